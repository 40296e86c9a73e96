"""How fast the nearest other query is found, and how much faster than sacrebleu over all pairs.

    python tests/benchmarks/nearest.py --dump=sharegpt_sample.jsonl.gz [--more=10000,50000]

The dump's user turns, all and the first of each dialogue, against each other; then the first ones together with
stretches of its other turns, as long as first queries are, up to the numbers in --more. One core.
"""

import argparse
import random
import resource
import sys
import time

from sacrebleu.metrics import BLEU

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import nearest
from imitation_jax.data.sources import sharegpt

PAIRS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", required=True)
    parser.add_argument("--more", default="10000,50000", help="comma-separated numbers of texts")
    args = parser.parse_args()

    first, queries, others = [], [], []
    for _, dialogue in sharegpt.read([args.dump]):
        if not isinstance(dialogue, Rejected):
            asked = [turn["content"] for turn in dialogue["messages"] if turn["role"] == "user"]
            first += asked[:1]
            queries += asked
            others += [turn["content"] for turn in dialogue["messages"] if turn["content"] not in asked[:1]]

    bleu, drawn = BLEU(effective_order=True), random.Random(0)
    pairs = [(drawn.choice(first), drawn.choice(first)) for _ in range(PAIRS)]
    begin = time.process_time()
    for one, other in pairs:
        bleu.sentence_score(one, [other])
    a_pair = (time.process_time() - begin) / PAIRS
    print(f"sacrebleu: {1 / a_pair:,.0f} pairs/s\n")

    print("| texts | number | wall s | CPU s | texts/s of CPU | all pairs would take | peak GB |")
    print("|---|---|---|---|---|---|---|")

    def line(name: str, texts: list[str]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        nearest.nearest(texts)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        hours = a_pair * len(texts) ** 2 / 3600
        speed = f"{wall:.1f} | {cpu:.1f} | {len(texts) / cpu:,.0f}"
        print(f"| {name} | {len(texts):,} | {speed} | {hours:,.1f} h | {peak / 1e9:.1f} |", flush=True)

    line("first queries", first)
    line("all queries", queries)
    lengths = list(map(len, first))
    for wanted in map(int, args.more.split(",")):
        texts = list(first[:wanted])
        while len(texts) < wanted:
            text, length = drawn.choice(others), drawn.choice(lengths)
            if len(text) >= length:
                start = drawn.randrange(len(text) - length + 1)
                texts.append(text[start : start + length])
        line("with stretches of turns", texts)


if __name__ == "__main__":
    main()
