"""Tokens/s of `imitation_jax.serve` with 16 clients against one client at a time.

    python tests/benchmarks/server.py --model=SmolLM2.gguf --prompts=koala_test_set.jsonl

Prompts are lines with "prompt". One at a time is measured on a server with one row, which is what is fastest for it,
and on the server with 16 rows itself. In each round all three answer, greedily, prompts that they have not seen;
clients ask over HTTP and count the tokens that the server says it wrote, prompts not included.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """A server of its own, whose programs are compiled."""

    def __init__(self, model: str, rows: int, cache: str):
        command = [sys.executable, "-m", "imitation_jax.serve", f"--model=gguf:{model}", "--port=0", f"--rows={rows}"]
        env = os.environ | {"IMITATION_CACHE": cache}
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=env)
        for line in self.process.stderr:
            if found := re.search(r"chat page (http://\S+)/,", line):
                self.url = f"{found[1]}/v1"
                self.name = requests.get(f"{self.url}/models").json()["data"][0]["id"]
                return
        raise SystemExit("the server did not start; try it without the benchmark")

    def answer(self, prompt: str, tokens: int) -> int:
        """Tokens written."""
        body = {"model": self.name, "messages": [{"role": "user", "content": prompt}]}
        settings = {"temperature": 0, "max_tokens": tokens}
        response = requests.post(f"{self.url}/chat/completions", json=body | settings)
        response.raise_for_status()
        return response.json()["usage"]["completion_tokens"]

    def rate(self, prompts: list[str], tokens: int, clients: int) -> float:
        """Tokens/s of all clients together."""
        begin = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            written = sum(pool.map(lambda prompt: self.answer(prompt, tokens), prompts))
        return written / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True, help="JSON Lines")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="most of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with open(args.prompts, encoding="utf-8") as lines:
        prompts = [prompt for prompt in (json.loads(line)["prompt"] for line in lines) if len(prompt) < 1000]
    few, many = 4, 3 * args.clients
    with tempfile.TemporaryDirectory() as cache:
        alone, server = Server(args.model, 1, cache), Server(args.model, args.clients, cache)
        ways = {
            "one at a time, one row": (alone, few, 1),
            f"one at a time, {args.clients} rows": (server, few, 1),
            f"{args.clients} clients, {args.clients} rows": (server, many, args.clients),
        }
        try:
            for each in (alone, server):
                each.rate(prompts[:many], 4, args.clients)  # compiles the shapes of prompts
            rates = {way: [] for way in ways}
            for number in range(args.rounds):
                mine = prompts[number * many : (number + 1) * many]
                for way, (each, count, clients) in ways.items():
                    rates[way].append(each.rate(mine[:count], args.tokens, clients))
        finally:
            for each in (alone, server):
                each.process.terminate()
                each.process.wait()
    found = {way: statistics.median(those) for way, those in rates.items()}
    most = found[f"{args.clients} clients, {args.clients} rows"]
    print("| way | tokens/s, median | rounds | all clients against it |\n|---|---|---|---|")
    for way, rate in found.items():
        print(f"| {way} | {rate:.1f} | {' '.join(f'{one:.1f}' for one in rates[way])} | {most / rate:.1f} times |")


if __name__ == "__main__":
    main()
