"""Cleaning and near-duplicate removal of a ShareGPT dump, in MB of JSON a second of one core, against the usual recipe.

    pip install datasketch pycld2
    python tests/benchmarks/cleaning.py --dump=FILE [--rounds=5]

The usual recipe is FastChat's, written here with its libraries: every answer through markdownify, the page's artefacts
taken out, dialogues with an error reply dropped, the language by cld2 (which polyglot wraps) on the whole dialogue,
equal queries dropped; then near-equal queries by datasketch, 128 permutations on 5-word shingles, each candidate
checked. Its split into blocks of 2,048 tokens is left out on both sides: here the packer does it.

Ours are the steps of configs/data/sharegpt.py. Both read the unpacked dump from disk and write dialogues.jsonl and
rejected rows. Rounds alternate; seconds are the process's CPU seconds; the median of the rounds' ratios counts.
"""

import argparse
import collections
import gzip
import json
import re
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pycld2
from datasketch import MinHash, MinHashLSH
from markdownify import markdownify

sys.path.insert(0, str(Path(__file__).parents[2]))

from configs.data import sharegpt as config_file  # noqa: E402
from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import cleaning, sources
from imitation_jax.data.cleaning import language

COPY_CODE = re.compile(r"```\s*([\w+#-]*)\s*Copy code", re.DOTALL)
REGENERATED = re.compile(r"\d+ / \d+")
ERRORS = ("Too many requests in 1 hour", "That model is currently overloaded", "An error occurred. If this issue")
THRESHOLD = 0.7


def usual(dump: Path, folder: Path, parts: collections.Counter) -> collections.Counter:
    """What dropped how many rows."""
    dropped: collections.Counter = collections.Counter()
    seen, sketches = set(), MinHashLSH(threshold=THRESHOLD, num_perm=128)
    kept: dict[int, MinHash] = {}
    with open(folder / "dialogues.jsonl", "w", encoding="utf-8") as good, open(folder / "rejected", "w") as bad:
        for number, line in enumerate(open(dump, encoding="utf-8")):
            begin = time.process_time()
            row = json.loads(line)
            turns = row["conversations"]
            begin = _since(begin, parts, "read")
            why = _usual_structure(turns)
            if not why:
                for turn in turns:
                    if turn["from"] == "gpt":
                        text = markdownify(turn["value"]).replace("\\_", "_").strip()
                        turn["value"] = REGENERATED.sub("", COPY_CODE.sub(r"```\1\n", text))
                if any(error in turn["value"] for turn in turns for error in ERRORS):
                    why = "error"
            begin = _since(begin, parts, "markdown")
            if not why:
                text = "\n".join(turn["value"] for turn in turns)
                try:
                    found = pycld2.detect(text.encode("utf-8", "ignore"), bestEffort=True)[2][0][1]
                except pycld2.error:
                    found = "un"
                why = "" if found in ("en", "un") else "language"
            begin = _since(begin, parts, "language")
            if not why:
                asked = " ".join(" ".join(turn["value"] for turn in turns if turn["from"] == "human").lower().split())
                why = "exact" if asked in seen else ""
                seen.add(asked)
            if not why:
                words = asked.split()
                shingles = {" ".join(words[at : at + 5]).encode() for at in range(max(1, len(words) - 4))}
                sketch = MinHash(num_perm=128)
                sketch.update_batch(shingles)
                if any(sketch.jaccard(kept[other]) >= THRESHOLD for other in sketches.query(sketch)):
                    why = "near"
                sketches.insert(number, sketch)
                kept[number] = sketch
            begin = _since(begin, parts, "duplicates")
            dropped[why or "kept"] += 1
            (bad if why else good).write(json.dumps(row, ensure_ascii=not why) + "\n")
            _since(begin, parts, "write")
    return dropped


def _usual_structure(turns: list[dict]) -> str:
    while turns and turns[0]["from"] != "human":
        del turns[0]
    if len(turns) < 2:
        return "empty"
    wrong = any(turn["from"] != ("human", "gpt")[number % 2] for number, turn in enumerate(turns))
    return "format" if wrong or not all(turn["value"].strip() for turn in turns) else ""


def ours(dump: Path, folder: Path, parts: collections.Counter) -> collections.Counter:
    """What dropped how many rows."""
    config = config_file.get_config()
    dropped: collections.Counter = collections.Counter()
    steps = [step._replace(apply=_timed(step.name, step.apply, parts)) for step in cleaning.steps(config)]
    read = sources.read({"sharegpt": [str(dump)]}, config.max_row_bytes)
    with open(folder / "dialogues.jsonl", "w", encoding="utf-8") as good, open(folder / "rejected", "w") as bad:
        begin = time.process_time()
        for where, item in read:
            begin = _since(begin, parts, "read")
            item = cleaning.clean(where, item, steps).item
            begin = time.process_time()
            if isinstance(item, Rejected):
                dropped[item.step] += 1
                bad.write(item.line())
            else:
                dropped["kept"] += 1
                good.write(json_rows.line(item))
            begin = _since(begin, parts, "write")
    return dropped


def _timed(name: str, step, parts: collections.Counter):
    def run(dialogue: dict) -> dict | str:
        begin = time.process_time()
        result = step(dialogue)
        _since(begin, parts, name)
        return result

    return run


def _since(begin: float, parts: collections.Counter, name: str) -> float:
    now = time.process_time()
    parts[name] += now - begin
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", required=True, type=Path, help="ShareGPT as JSON Lines, .gz or not")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dump = folder / "dump.jsonl"
        dump.write_bytes(
            gzip.decompress(args.dump.read_bytes()) if args.dump.suffix == ".gz" else args.dump.read_bytes()
        )
        size = dump.stat().st_size / 1e6
        warnings.simplefilter("ignore")  # of BeautifulSoup, about answers that look like XML
        for side in (usual, ours):  # models are loaded, tables are made
            small = folder / "small.jsonl"
            small.write_bytes(b"".join(dump.read_bytes().splitlines(keepends=True)[:50]))
            side(small, folder, collections.Counter())
        language.of_turn("Der Rest der Tabellen wird auch geladen.", language.get_config())
        sides = {"usual recipe": usual, "imitation_jax": ours}
        seconds = {name: [] for name in sides}
        parts = {name: collections.Counter() for name in sides}
        kept = {}
        for _ in range(args.rounds):
            for name, side in sides.items():
                begin = time.process_time()
                kept[name] = side(dump, folder, parts[name])
                seconds[name].append(time.process_time() - begin)
        print(f"{size:.1f} MB, {args.rounds} rounds\n")
        print("| | CPU s (median) | MB/s | kept | dropped |\n|---|---|---|---|---|")
        for name, took in seconds.items():
            dropped = ", ".join(f"{why} {count}" for why, count in kept[name].most_common() if why != "kept")
            middle = statistics.median(took)
            print(f"| {name} | {middle:.2f} | {size / middle:.1f} | {kept[name]['kept']} | {dropped} |")
        ratios = [one / other for one, other in zip(*seconds.values(), strict=True)]
        print(f"\nratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}\n")
        for name, some in parts.items():
            print(f"{name}: " + ", ".join(f"{part} {value / args.rounds:.2f} s" for part, value in some.most_common()))


if __name__ == "__main__":
    main()
