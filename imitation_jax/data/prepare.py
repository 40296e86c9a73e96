"""Raw data -> a folder of clean dialogues: dialogues.jsonl, rejected.jsonl, card/ and a tfds dataset."""

import collections
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.core import json_rows
from imitation_jax.core.files import new_folder
from imitation_jax.core.json_rows import Rejected
from imitation_jax.core.progress import progress
from imitation_jax.data import builder, card, sources
from imitation_jax.data.cleaning import pipeline
from imitation_jax.data.cleaning.pipeline import Cleaned
from imitation_jax.data.sources import input_files

SOURCES_TOLD = 20
# What the readers note in a dialogue that they changed -> what the card calls their sum.
NOTES = {
    "leading_turn_dropped": "leading_turns_dropped",
    "original_id": "repeated_ids_renamed",
    "html_turns": "html_turns",
    "artefact_turns": "artefact_turns",
}


def get_config(format: str = "sharegpt") -> ConfigDict:
    """What every data config holds; `config.steps` names what is done."""
    config = pipeline.get_config()
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


def prepare(config: ConfigDict, output: str, texts: Mapping[str, str] | None = None) -> dict:
    """Reads the input, takes it through the steps, writes `output`, and returns its card.

    Every row of the input is in dialogues.jsonl or in rejected.jsonl. The folder appears when it is whole, see
    `output.new_folder`.

    Args:
      config: as `get_config` makes it.
      output: local folder that does not exist yet.
      texts: the evaluation items that the step `decontaminate` looks for, by what rejects call them.

    Raises:
      FileNotFoundError: a path or pattern of the input names no file.
      ValueError: `output` exists, a step that is not there, or no dialogue is left.
    """
    files = _files(config)
    names, settings = pipeline.steps(config), pipeline.settings(config, dict(texts or {}))
    card.check(config)
    if config.shards < 0:
        raise ValueError(f"config.shards={config.shards} must be 0 (tfds decides) or more")
    paths = [path for some in files.values() for path in some]
    with new_folder(output) as part:
        if config.runner:
            from imitation_jax.data import beam

            cleaned = beam.run(files, names, settings, config, part / "beam")
        else:
            read = progress(sources.read(files, config.max_row_bytes), desc="preparing", unit="row")
            cleaned = pipeline.run(read, names, settings)
        counts = {"input": paths} | _write(cleaned, names, part)
        shutil.rmtree(part / "beam", ignore_errors=True)
        if not counts["dialogues"]:
            raise ValueError(_nothing_left(counts, part))
        # The card is about the data, not about the machines.
        told = ConfigDict({key: value for key, value in config.items() if not key.startswith("runner")})
        result = card.write(part / "card", counts, part / "dialogues.jsonl", told)

        def accepted() -> Iterable[dict]:
            with open(part / "dialogues.jsonl", encoding="utf-8") as file:
                lines = map(json.loads, file)
                yield from progress(lines, total=counts["dialogues"], desc="writing tfds", unit="dialogue")

        builder.build(accepted, part / "tfds", min(config.shards, counts["dialogues"]))
    for step in counts["funnel"]:
        logging.info("%-16s %9s rows left%s", step["step"], f"{step['rows']:,}", _said(step))
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


def _files(config: ConfigDict) -> dict[str, list[str]]:
    """Format -> files: those of `config.input`, which are of `config.format`, or those of each in `config.inputs`.

    Raises:
      FileNotFoundError, ValueError: one that names no file, an empty one, an unknown format.
    """
    given = {f"config.inputs.{name}": (name, paths) for name, paths in config.get("inputs", {}).items()}
    given = given or {"config.input": (config.format, config.input)}
    for key, (name, _) in given.items():
        if name not in sources.FORMATS:
            key = "config.format" if key == "config.input" else key
            raise ValueError(f"{key}: there is no format {name!r}; there are {', '.join(sources.FORMATS)}")
    return {name: input_files(paths, key) for key, (name, paths) in given.items()}


def _said(step: dict) -> str:
    dropped, changed = step.get("dropped", 0), step.get("changed", 0)
    return (f", {dropped:,} dropped" if dropped else "") + (f", {changed:,} changed" if changed else "")


def _write(cleaned: Iterable[Cleaned], names: list[str], folder: Path) -> dict:
    """Writes dialogues.jsonl and rejected.jsonl, and counts what is not in them or would take long to count again."""
    dropped: dict[str, collections.Counter] = {name: collections.Counter() for name in (*pipeline.READERS, *names)}
    changed, notes, removed, origins = (collections.Counter() for _ in range(4))
    kept = 0
    with (
        open(folder / "dialogues.jsonl", "w", encoding="utf-8") as good,
        open(folder / "rejected.jsonl", "w", encoding="utf-8") as bad,
    ):
        for item, steps in cleaned:
            changed.update(steps)
            if isinstance(item, Rejected):
                dropped[item.step][_kind(item)] += 1
                bad.write(item.line())
                continue
            good.write(json_rows.line(item))
            kept += 1
            origins[str(item["source"])] += 1
            notes.update(note for note in NOTES if note in item)
            removed.update(item["personal_data"] if "personal_data" in steps else {})
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
        "sources": dict(origins.most_common(SOURCES_TOLD)),
        **{name: notes[note] for note, name in NOTES.items()},
        **({"personal_data_replaced": dict(removed.most_common())} if "personal_data" in names else {}),
        "funnel": funnel,
    }


def _kind(item: Rejected) -> str:
    """The reason without its details; a reader's stays whole."""
    return item.reason if item.step in pipeline.READERS else item.reason.partition(": ")[0]
