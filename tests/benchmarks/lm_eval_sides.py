"""lm-eval's `hf` back end and this project's engine on the same lm-eval tasks, SmolLM2-135M in float32.

Used by evaluate_*.py. The reference is one process of an interpreter with torch, transformers, gguf and lm-eval; it
keeps its model, its clock runs only while the model answers, and a task's time is taken from some of its questions.
Ours is a fresh process with an empty cache folder each time that answers all, and its clock runs from its start to its
end: imports, weights, compilation and all. They take turns.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIE = 1e-4
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
Answers = dict[str, dict[str, list]]  # task -> document -> [[log-likelihood, greedy], ...] or [text]


# ---------------------------------------------------------------- inside the two processes


def answer(lm, ask: dict) -> tuple[float, Answers]:
    """The seconds that `lm` took, and lm-eval's answers with it to rows ask["rows"] of the tasks in ask["folder"]."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    seconds = 0.0

    def timed(method):
        def call(*args, **kwargs):
            nonlocal seconds
            start = time.perf_counter()
            answers = method(*args, **kwargs)
            seconds += time.perf_counter() - start
            return answers

        return call

    own = {name: getattr(lm, name) for name in ("loglikelihood", "generate_until")}
    for name, method in own.items():
        setattr(lm, name, timed(method))
    manager = TaskManager(include_path=ask["folder"], include_defaults=False)
    results = simple_evaluate(
        lm,
        tasks=list(ask["rows"]),
        task_manager=manager,
        samples={task: list(range(*rows)) for task, rows in ask["rows"].items()},
        bootstrap_iters=0,
    )
    for name in own:
        delattr(lm, name)
    found = {
        task: {str(row["doc_id"]): [each[0] for each in row["resps"]] for row in rows}
        for task, rows in results["samples"].items()
    }
    return seconds, found


def serve_reference(gguf: Path) -> None:
    import torch
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(str(gguf.parent), gguf_file=gguf.name, dtype="float32", device="cpu", batch_size=1)
    print("READY", torch.__version__, torch.get_num_threads(), flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        lm.batch_size_per_gpu = ask["batch_size"]
        seconds, answers = answer(lm, ask)
        print("DONE", json.dumps({"seconds": seconds, "answers": answers}), flush=True)


def run_ours(ask: dict) -> None:
    from imitation_jax.evaluation.lm_eval_model import ImitationJax

    lm = ImitationJax(f"gguf:{ask['gguf']}")
    scored, written = [], []
    score, generate = lm.engine.score, lm.engine.generate

    def recorded_score(requests, on_result=None):
        scored.extend(requests)
        return score(requests, on_result)

    def recorded_generate(requests, on_result=None):
        generations = generate(requests, on_result)
        written.extend(zip(requests, generations, strict=True))
        return generations

    lm.engine.score, lm.engine.generate = recorded_score, recorded_generate
    seconds, answers = answer(lm, ask)
    start = time.perf_counter()
    fed = [[*request.context, *request.continuation[:-1]] for request in scored]
    fed += [[*request.prompt, *generation.ids] for request, generation in written]
    done = {
        "seconds": seconds,
        "answers": answers,
        "forwarded": lm.engine.tokens_forwarded,
        "minimum": distinct_prefixes(fed),
        "fed": sum(map(len, fed)),
        "counting": time.perf_counter() - start,
    }
    print("DONE", json.dumps(done), flush=True)


def distinct_prefixes(rows: Sequence[Sequence[int]]) -> int:
    """How many nodes a trie of the rows has: what has to be computed where every shared prefix is computed once."""
    nodes, before = 0, []
    for row in sorted(map(list, rows)):
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, row, strict=False)) if a != b), min(len(before), len(row))
        )
        nodes += len(row) - shared
        before = row
    return nodes


# ---------------------------------------------------------------- the process that compares


def flags(description: str, questions: int, reference_questions: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    python = os.environ.get("IMITATION_ORACLE_PYTHON", "")
    data = os.environ.get("IMITATION_TEST_DATA", ROOT.parent / "shared" / "data")
    gguf = os.environ.get("IMITATION_TEST_GGUF", ROOT / ".cache" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--reference-python", default=python, help="interpreter with torch, transformers and lm-eval")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the lent data")
    parser.add_argument("--gguf", type=Path, default=Path(gguf), help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--questions", type=int, default=questions, help="ours answers so many of each task")
    parser.add_argument(
        "--reference-questions",
        type=int,
        default=reference_questions,
        help="the reference answers so many of each task in a round, other ones in each; its rate is taken from these",
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--batch-sizes", default="1,4,16", help="the reference runs with the fastest on a few questions"
    )
    return parser


def write_tasks(folder: Path, tasks: dict[str, dict]) -> None:
    """Files of lm-eval; JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **task}))


@contextlib.contextmanager
def reference(python: str, gguf: Path, scratch: Path) -> Iterator[Callable[[dict], dict]]:
    """Starts lm-eval's hf back end; gives a function from what is asked to {"seconds", "answers"}."""
    command = [python, __file__, "--serve", str(gguf)]
    env = os.environ | OFFLINE | {"HF_HOME": str(scratch / "hf")}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=env)

    def read(sign: str) -> str:
        while not (line := process.stdout.readline()).startswith(sign):
            if not line:
                raise SystemExit(f"the reference ended with {process.wait()}")
        return line.removeprefix(sign).strip()

    def ask(what: dict) -> dict:
        process.stdin.write(json.dumps(what) + "\n")
        return json.loads(read("DONE"))

    version, threads = read("READY").split()
    print(f"reference: torch {version}, {threads} threads", flush=True)
    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait()


def ours(ask: dict, scratch: Path, python: str = sys.executable) -> dict:
    """What a fresh process with an empty cache answers; "wall" is all of its time but that of counting tokens."""
    wall, output = cold([python, __file__, "--ours", json.dumps(ask)], scratch)
    line = next(line for line in output.splitlines() if line.startswith("DONE"))
    found = json.loads(line.removeprefix("DONE"))
    return {"wall": wall - found["counting"], **found}


def cold(command: list[str], scratch: Path) -> tuple[float, str]:
    """The seconds of a process with an empty cache folder, and its standard output."""
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        env = os.environ | OFFLINE | {"HF_HOME": str(scratch / "hf"), "IMITATION_CACHE": cache, "JAX_PLATFORMS": "cpu"}
        for name in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
            env.pop(name, None)
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=True, cwd=ROOT)
        return time.perf_counter() - start, done.stdout


def compare(
    args: argparse.Namespace,
    tasks: dict[str, dict],
    rows: dict[str, int],
    same_rows: bool = False,
    run: Callable[[dict, Path], dict] = ours,
) -> dict:
    """Runs the rounds and prints the speeds.

    Args:
      args: of `flags`.
      tasks: name -> what lm-eval's task file says.
      rows: how many rows each task has.
      same_rows: the reference answers all that ours answers, as it must where prompts depend on what came before.
      run: our side: what is asked and a scratch folder -> what `ours` returns.

    Returns:
      {"reference": answers, "ours": answers, "wall", "seconds", "forwarded", "minimum", "fed", "questions"}.
    """
    if not args.reference_python:
        raise SystemExit("--reference-python or IMITATION_ORACLE_PYTHON: an interpreter with torch and lm-eval")
    if not args.gguf.exists():
        raise SystemExit(f"--gguf: {args.gguf} is not there; launch/test.sh fetches it")
    all_rows = {task: min(count, args.questions) for task, count in rows.items()}
    total = sum(all_rows.values())
    few = args.questions if same_rows else args.reference_questions
    collected: Answers = {task: {} for task in tasks}
    rates, runs = [], []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_tasks(scratch / "tasks", tasks)
        base = {"folder": str(scratch / "tasks"), "gguf": str(args.gguf.resolve())}
        with reference(args.reference_python, args.gguf, scratch) as ask:
            best = best_batch_size(ask, base, all_rows, [int(size) for size in args.batch_sizes.split(",")])
            for number in range(args.rounds):
                needed = 0.0
                for task, count in all_rows.items():
                    first = 0 if same_rows else min(number * few, max(0, count - few))
                    last = min(first + few, count)
                    done = ask({**base, "rows": {task: (first, last)}, "batch_size": best})
                    needed += done["seconds"] / (last - first) * count
                    collected[task] |= done["answers"][task]
                rates.append(total / needed)
                runs.append(run({**base, "rows": {task: (0, count) for task, count in all_rows.items()}}, scratch))
                print(f"round {number + 1}: reference {rates[-1]:.3f} questions/s, ours {total / runs[-1]['wall']:.3f}")
    wall, seconds = (statistics.median(run[key] for run in runs) for key in ("wall", "seconds"))
    rate = statistics.median(rates)
    print(f"\n| {total} questions, {len(tasks)} tasks, {args.rounds} rounds | questions/s | times the reference |")
    print("|---|---|---|")
    print(f"| lm-eval hf, batch size {best}, answering alone | {rate:.3f} | 1.00 |")
    print(f"| ours, process start to end, cold cache | {total / wall:.3f} | {total / wall / rate:.2f} |")
    print(f"| ours, answering alone, cold cache | {total / seconds:.3f} | {total / seconds / rate:.2f} |")
    last = runs[-1]
    if "fed" in last:
        print(f"\ntokens that the requests hold: {last['fed']:,}; in distinct prefixes: {last['minimum']:,}")
        times = last["forwarded"] / last["minimum"]
        print(f"tokens forwarded, padding included: {last['forwarded']:,}, {times:.3f} times the distinct ones")
    for run in runs[1:]:
        changed = sum(run["answers"][task] != runs[0]["answers"][task] for task in tasks)
        print(f"tasks whose answers changed between two runs of ours: {changed}")
    return {**last, "wall": wall, "ours": last["answers"], "reference": collected, "questions": total}


def best_batch_size(ask: Callable[[dict], dict], base: dict, rows: dict[str, int], sizes: Sequence[int]) -> int:
    """The fastest on the last few rows of the first, middle and last task."""
    if len(sizes) == 1:
        return sizes[0]
    names = list(rows)
    names = {names[0], names[len(names) // 2], names[-1]}
    chosen = {task: (max(0, rows[task] - 4), rows[task]) for task in names}
    ask({**base, "rows": chosen, "batch_size": sizes[0]})  # warms up
    seconds = {size: ask({**base, "rows": chosen, "batch_size": size})["seconds"] for size in sizes}
    print("reference, seconds by batch size:", {size: round(value, 1) for size, value in seconds.items()}, flush=True)
    return min(seconds, key=seconds.get)


def compare_choices(found: dict) -> tuple[int, float, int, int]:
    """(choice lists on both sides, largest difference of a log-likelihood, different choices, of these ties)."""
    count, largest, different, ties = 0, 0.0, 0, 0
    for task, documents in found["reference"].items():
        for document, theirs in documents.items():
            pairs = list(zip(theirs, found["ours"][task][document], strict=True))
            count += 1
            largest = max(largest, *(abs(a[0] - b[0]) for a, b in pairs))
            if len(pairs) == 1:
                different += pairs[0][0][1] != pairs[0][1][1]
                continue
            a, b = ([pair[side][0] for pair in pairs] for side in (0, 1))
            if a.index(max(a)) != b.index(max(b)):
                different += 1
                ties += all(max(side) - sorted(side)[-2] <= TIE for side in (a, b))
    return count, largest, different, ties


def print_choices(found: dict) -> None:
    count, largest, different, ties = compare_choices(found)
    print(f"items compared: {count}; largest difference of a log-likelihood: {largest:.2e}; ", end="")
    print(f"different answers: {different}, of these ties within {TIE:g}: {ties}")


if __name__ == "__main__":
    kind, argument = sys.argv[1:]
    if kind == "--serve":
        serve_reference(Path(argument))
    else:
        run_ours(json.loads(argument))
