"""Raw data -> a folder of clean dialogues: dialogues.jsonl, rejected.jsonl, card/ and a tfds dataset."""

import collections
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.core import json_rows
from imitation_jax.core.files import new_folder
from imitation_jax.core.json_rows import Rejected
from imitation_jax.core.progress import progress
from imitation_jax.data import builder, card, cleaning, sources
from imitation_jax.data.cleaning import READERS, Cleaned, Step

MOST_ORIGINS = 20  # that the card counts dialogues of
# What the sources note in a dialogue that they changed -> what the card calls their sum.
NOTES = {
    "leading_turn_dropped": "leading_turns_dropped",
    "original_id": "repeated_ids_renamed",
    "html_turns": "html_turns",
    "artefact_turns": "artefact_turns",
}


def get_config(format: str = "sharegpt") -> ConfigDict:
    """What every data config holds; `config.steps` names what is done."""
    config = cleaning.get_config()
    # sharegpt, hc3, discord, alpaca or messages; a mixture has `config.inputs` instead of these two.
    config.format = format
    # Comma-separated paths or patterns: JSON lists or JSON Lines, .gz or not.
    config.input = ""
    # Longer rows are set aside; the longest real conversations have about 1 MB, and a tokenizer needs minutes and
    # gigabytes for a row of hundreds.
    config.max_row_bytes = json_rows.MAX_BYTES
    # Files of the tfds dataset, at most one a dialogue; 0 takes as many as tfds thinks right for its size.
    config.shards = 0
    # An Apache Beam runner that does the steps (DirectRunner, SparkRunner, FlinkRunner, DataflowRunner) and the flags
    # that it takes, space-separated; without one they are done here. The output is the same.
    config.runner = ""
    config.runner_flags = ""
    config.card = card.get_config()
    return config


def prepare(config: ConfigDict, output: str) -> dict:
    """Reads the input, takes it through the steps, writes `output`, and returns its card.

    Every row of the input is in dialogues.jsonl or in rejected.jsonl. The folder appears when it is whole, see
    `files.new_folder`.

    Args:
      config: as `get_config` makes it.
      output: local folder that does not exist yet.

    Raises:
      FileNotFoundError: a path or pattern of the input names no file.
      ValueError: `output` exists, a step that is not there, or no dialogue is left.
    """
    files, steps, writer = sources.files_of(config), cleaning.steps(config), card.Writer(config)
    if config.shards < 0:
        raise ValueError(f"config.shards={config.shards} must be 0 (tfds decides) or more")
    max_bytes, shards, runner, flags = config.max_row_bytes, config.shards, config.runner, config.runner_flags
    with new_folder(output) as part:
        if runner:
            from imitation_jax.data import beam

            cleaned = beam.run(files, max_bytes, steps, runner, flags.split(), part / "beam")
        else:
            rows = progress(sources.read(files, max_bytes), desc="preparing", unit="row")
            cleaned = cleaning.run(rows, steps)
        counts = {"input": [path for paths in files.values() for path in paths]} | _write(cleaned, steps, part)
        shutil.rmtree(part / "beam", ignore_errors=True)
        if not counts["dialogues"]:
            raise ValueError(_nothing_left(counts, part))
        result = writer.write(part / "card", counts, part / "dialogues.jsonl")

        def accepted() -> Iterator[dict]:
            with open(part / "dialogues.jsonl", encoding="utf-8") as file:
                lines = map(json.loads, file)
                yield from progress(lines, total=counts["dialogues"], desc="writing tfds", unit="dialogue")

        builder.build(accepted, part / "tfds", min(shards, counts["dialogues"]))
    for step in counts["funnel"]:
        did = "".join(f", {step[what]:,} {what}" for what in ("dropped", "changed") if step.get(what))
        logging.info("%-16s %9s rows left%s", step["step"], f"{step['rows']:,}", did)
    logging.info(
        "%d rows -> %d dialogues, %d rejected: %s", counts["rows"], counts["dialogues"], counts["rejected"], output
    )
    return result


def _nothing_left(counts: dict, part: Path) -> str:
    paths = ", ".join(counts["input"])
    if not counts["rows"]:
        shutil.rmtree(part)
        return f"no row in {paths}: it is empty"
    reason, count = next(iter(counts["reasons"].items()))
    return (
        f"no dialogue left of {paths}: all {counts['rows']} rows were rejected, {count} of them because of: {reason} "
        f"(see {part / 'rejected.jsonl'})"
    )


def _write(cleaned: Iterable[Cleaned], steps: Sequence[Step], folder: Path) -> dict:
    """Writes dialogues.jsonl and rejected.jsonl, and counts what is not in them or would take long to count again."""
    names = [step.name for step in steps]
    dropped: dict[str, collections.Counter] = {name: collections.Counter() for name in (*READERS, *names)}
    changed, notes, removed, origins = (collections.Counter() for _ in range(4))
    kept = 0
    with (
        open(folder / "dialogues.jsonl", "w", encoding="utf-8") as good,
        open(folder / "rejected.jsonl", "w", encoding="utf-8") as bad,
    ):
        for item, changed_by in cleaned:
            changed.update(changed_by)
            if isinstance(item, Rejected):
                # A step's reason without its details; a reader's stays whole.
                kind = item.reason if item.step in READERS else item.reason.partition(": ")[0]
                dropped[item.step][kind] += 1
                bad.write(item.line())
                continue
            good.write(json_rows.line(item))
            kept += 1
            origins[str(item["source"])] += 1
            notes.update(note for note in NOTES if note in item)
            removed.update(item["personal_data"] if "personal_data" in changed_by else {})
    reasons = sum(dropped.values(), collections.Counter())
    left = kept + reasons.total()
    funnel = [{"step": "read", "rows": left}]
    for name, why in dropped.items():
        left -= why.total()
        counts = {"step": name, "rows": left, "dropped": why.total(), "changed": changed[name]}
        funnel.append(counts | {"reasons": dict(why.most_common())})
    return {
        "rows": kept + reasons.total(),
        "dialogues": kept,
        "rejected": reasons.total(),
        "reasons": dict(reasons.most_common()),
        "sources": dict(origins.most_common(MOST_ORIGINS)),
        **{name: notes[note] for note, name in NOTES.items()},
        **({"personal_data_replaced": dict(removed.most_common())} if "personal_data" in names else {}),
        "funnel": funnel,
    }
