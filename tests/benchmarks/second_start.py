"""Seconds from the command to its first step: a first start, and a second one with a warm compilation cache.

    python tests/benchmarks/second_start.py --model=SmolLM2.gguf

Runs `imitation_jax.train` for one step on the demo dialogues in fresh workdirs that share one cache.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(model: str, cache: str, workdir: str) -> tuple[float, float]:
    """Seconds until the first step's line, and that step's own seconds as metrics.jsonl has them."""
    command = [sys.executable, "-m", "imitation_jax.train", f"--config={ROOT}/configs/smollm2_135m.py:demo"]
    command += [f"--config.data.path={ROOT}/imitation_jax/data/demo/train.jsonl", f"--config.model.init=gguf:{model}"]
    command += [f"--workdir={workdir}", "--config.steps=1", "--config.evaluate.samples=0", "--config.batch_size=4"]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "IMITATION_CACHE": cache})
    seen = 0.0
    for line in process.stderr:
        if not seen and re.search(r"step 1/1,", line):
            seen = time.perf_counter() - begin
    if process.wait():
        raise SystemExit("the run failed; try it without the benchmark")
    first = (Path(workdir) / "metrics.jsonl").read_text().splitlines()[0]
    return seen, float(re.search(r'"seconds": ([\d.e+-]+)', first)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    print("| start | command to first step, s | the first step itself, s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(("first, nothing cached", "second", "third")):
            total, step = start(args.model, f"{folder}/cache", f"{folder}/run{number}")
            print(f"| {name} | {total:.1f} | {step:.1f} |", flush=True)


if __name__ == "__main__":
    main()
