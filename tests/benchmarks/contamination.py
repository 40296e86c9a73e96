"""Which evaluation items stand in a ShareGPT dump, and how long it takes to look for them in a dump of any size.

    python tests/benchmarks/contamination.py --data=FOLDER [--dump=FILE] [--copies=66] [--more=45000]

FOLDER has evaluation sets in its subfolders (koala_test_set, alpaca_eval, mmlu, nq_open, human_eval, arc_easy, piqa,
lambada_openai, realtoxicityprompts, summarisation; what is missing is left out). The dump is searched as it is; then
`--copies` of it, rows shuffled, in one file without compression, for those items and `--more` texts of 60 words drawn
from the dump's (they stand for sets that are not in the folder). 66 copies of the sample have 150 million words.
"""

import argparse
import itertools
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from imitation_jax.core import json_rows
from imitation_jax.data import evaluation_items, ngrams
from imitation_jax.data.benchmark_rows import read_rows

# name -> (pattern, the keys of an item's own words)
SETS = {
    "Koala test set": ("koala_test_set/*.jsonl", ("prompt",)),
    "alpaca_eval": ("alpaca_eval/model_outputs/*", ("instruction",)),
    "MMLU test": ("mmlu/test/*.csv", ("question", "choice0", "choice1", "choice2", "choice3")),
    "NQ open": ("nq_open/NQ-open.dev.jsonl", ("question",)),
    "HumanEval": ("human_eval/HumanEval.jsonl.gz", ("prompt",)),
    "ARC-Easy": ("arc_easy/*.jsonl", ("query", "choices")),
    "PIQA": ("piqa/*.jsonl", ("query", "choices")),
    "LAMBADA": ("lambada_openai/*.jsonl", ("context", "continuation")),
    "RealToxicityPrompts": ("realtoxicityprompts/*.jsonl", ("prompt",)),
    "TL;DR": ("summarisation/*.jsonl", ("prompt",)),
}


def words_of(value: object) -> str:
    """All texts in a row's value."""
    if isinstance(value, dict):
        return words_of(value.get("text", ""))
    return "\n".join(map(words_of, value)) if isinstance(value, list) else str(value)


def read_sets(folder: Path) -> dict[str, dict[str, str]]:
    """Set -> place -> text. Of several files of answers to the same prompts one is enough."""
    found = {}
    for name, (pattern, keys) in SETS.items():
        files = sorted(folder.glob(pattern))[: 1 if name == "alpaca_eval" else None]
        read = (pair for file in files for pair in read_rows(str(file)))
        found[name] = {where: "\n".join(words_of(row[key]) for key in keys if key in row) for where, row in read}
    return {name: texts for name, texts in found.items() if any(texts.values())}


def timed(sets: dict, dump: Path, scratch: str) -> tuple[dict, float, float]:
    """The marks, seconds and CPU seconds, with nothing kept from before."""
    wall, cpu = time.perf_counter(), time.process_time()
    marks = evaluation_items.mark(sets, str(dump), Path(tempfile.mkdtemp(dir=scratch)))
    return marks, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--dump", type=Path, help="default: sharegpt/sharegpt_sample.jsonl.gz in --data")
    parser.add_argument("--copies", type=int, default=66)
    parser.add_argument("--more", type=int, default=45_000)
    parser.add_argument("--scratch", help="folder for the copies, default the temporary one")
    args = parser.parse_args()

    dump = args.dump or args.data / "sharegpt" / "sharegpt_sample.jsonl.gz"
    sets = read_sets(args.data)
    read = [row for _, row in json_rows.read(dump) if isinstance(row, dict)]
    words = sum(len(text.split()) for row in read for text in ngrams.turns(row))
    vocabulary = [word for row in read[:200] for text in ngrams.turns(row) for word in text.split()]

    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        marks, wall, cpu = timed(sets, dump, scratch)
        print("| set | items | stand in the dump | too short to tell |\n|---|---|---|---|")
        for name, texts in sets.items():
            print(f"| {name} | {len(texts):,} | {len(marks[name]['items'])} | {len(marks[name]['too_short'])} |")
        print("\n| data | words | items | wall s | CPU s | words/s of wall | peak GB |\n|---|---|---|---|---|---|---|")

        def line(name: str, words: int, items: int, wall: float, cpu: float) -> None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            numbers = f"{words:,} | {items:,} | {wall:.1f} | {cpu:.1f} | {words / wall:,.0f} | {peak / 1e9:.1f}"
            print(f"| {name} | {numbers} |", flush=True)

        items = sum(map(len, sets.values()))
        line(dump.name, words, items, wall, cpu)
        drawn = random.Random(0)
        copies = Path(scratch, "copies.jsonl")
        with open(copies, "w", encoding="utf-8") as file:
            for _ in range(args.copies):
                drawn.shuffle(read)
                file.writelines(json.dumps(row) + "\n" for row in read)
        del read
        texts = (" ".join(drawn.choices(vocabulary, k=60)) for _ in itertools.repeat(None, args.more))
        sets["drawn"] = {str(number): text for number, text in enumerate(texts)}
        _, wall, cpu = timed(sets, copies, scratch)
        line(f"{args.copies} copies", words * args.copies, items + args.more, wall, cpu)


if __name__ == "__main__":
    main()
