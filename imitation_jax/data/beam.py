"""The same steps on Apache Beam: rows are numbered as they are read, and every step keeps their numbers.

What compares dialogues is grouped by what they may have in common: equal queries by their digest, near ones by the keys
of their bands, where each pair that shares one is then compared exactly. In the end rows come back in order, so that
what is written is what the local run writes.
"""

import heapq
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from absl import logging

from imitation_jax.core.files import write_bytes
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import cleaning, sources
from imitation_jax.data.cleaning import Cleaned, Step, exact_duplicates, near_duplicates, queries

try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise ValueError("config.runner needs Apache Beam: pip install 'imitation_jax[beam]'") from error

ROWS_A_FILE = 10_000


def run(
    files: Mapping[str, Sequence[str]],
    max_bytes: int,
    steps: Sequence[Step],
    runner: str,
    flags: Sequence[str],
    folder: Path,
) -> Iterator[Cleaned]:
    """As `cleaning.run` on `sources.read(files, max_bytes)`, by a Beam runner.

    Args:
      runner: its name, and `flags` of its own.
      folder: where the workers write, so it must be one that they all see; made, and not cleared.

    Raises:
      ValueError: a step that compares dialogues in a way that is not written here.
    """
    for step in steps:
        if step.compares and step.name not in COMPARED:
            raise ValueError(f"config.steps: {step.name} does not run on Beam; leave out config.runner")
    folder.mkdir(parents=True)
    target = str(folder)
    # DirectRunner would first download another one that does its work.
    flags = [f"--runner={'FnApiRunner' if runner == 'DirectRunner' else runner}", *flags]
    logging.info("cleaning on Beam: %s", " ".join(flags))
    with apache_beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        alive = (
            pipeline
            | apache_beam.Create([(dict(files), max_bytes)])
            | apache_beam.FlatMap(_read)
            | apache_beam.Reshuffle()
        )
        done = []
        for number, some in enumerate(_groups(steps)):
            names = ", ".join(step.name for step in some)
            if some and some[0].compares:
                reasons = alive | f"{number} compared" >> COMPARED[names](some[0].settings)
                rows = {"rows": alive, "reasons": reasons} | f"{number} joined" >> apache_beam.CoGroupByKey()
                todo = _Drop(names)
            else:
                rows, todo = alive, _Clean(some)
            split = rows | f"{number} {names}" >> apache_beam.ParDo(todo).with_outputs("done", main="alive")
            alive = split.alive
            done.append(split.done)
        (
            (alive, *done)
            | apache_beam.Flatten()
            | apache_beam.MapTuple(lambda number, row: (number // ROWS_A_FILE, (number, row)))
            | apache_beam.GroupByKey()
            | apache_beam.MapTuple(lambda block, rows: _write(block, rows, target))
        )
    for path in sorted(folder.glob("[0-9]" * 8)):  # not what a worker that was killed left half written
        for _, row in pickle.loads(path.read_bytes()):
            _, item, changed = pickle.loads(row)
            yield Cleaned(item, changed)


def _groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Splits the steps into runs of per-dialogue steps and single comparing steps; the first run may be empty."""
    groups: list[list[Step]] = [[]]
    for step in steps:
        if step.compares or (groups[-1] and groups[-1][0].compares):
            groups.append([step])
        else:
            groups[-1].append(step)
    return groups


# A row is (number, (where, dialogue or Rejected, steps that changed it)), pickled: Beam's own coder takes fewer texts.


def _read(given: tuple[dict[str, list[str]], int]) -> Iterator[tuple[int, bytes]]:
    for number, (where, item) in enumerate(sources.read(*given)):
        yield number, pickle.dumps((where, item, ()))


class _Clean(apache_beam.DoFn):
    """Takes rows through steps that look at one dialogue."""

    def __init__(self, steps: list[Step]):
        self._steps = steps

    def process(self, numbered: tuple[int, bytes]) -> Iterator[Any]:
        number, row = numbered
        where, item, changed = pickle.loads(row)
        item, further = cleaning.clean(where, item, self._steps)
        out = number, pickle.dumps((where, item, changed + further))
        yield apache_beam.pvalue.TaggedOutput("done", out) if isinstance(item, Rejected) else out


class _Drop(apache_beam.DoFn):
    """Drops the rows that there is a reason for."""

    def __init__(self, name: str):
        self._name = name

    def process(self, joined: tuple[int, dict[str, Iterable]]) -> Iterator[Any]:
        number, groups = joined
        (row,), reasons = groups["rows"], list(groups["reasons"])
        if not reasons:
            yield number, row
            return
        where, item, changed = pickle.loads(row)
        rejected = Rejected(where, item["id"], reasons[0], item, step=self._name)
        yield apache_beam.pvalue.TaggedOutput("done", (number, pickle.dumps((where, rejected, changed))))


@apache_beam.ptransform_fn
def _exact(rows: apache_beam.PCollection, settings: SimpleNamespace) -> apache_beam.PCollection:
    """(number, reason) of each exact duplicate."""
    return (
        rows
        | "queries" >> apache_beam.MapTuple(_query)
        | apache_beam.MapTuple(lambda number, name, asked: (queries.digest(asked), (number, name)))
        | apache_beam.GroupByKey()
        | apache_beam.FlatMapTuple(_repeated)
    )


def _repeated(_: bytes, members: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    first, name = min(members)
    for number, _ in members:
        if number != first:
            yield number, exact_duplicates.reason(name)


@apache_beam.ptransform_fn
def _near(rows: apache_beam.PCollection, settings: SimpleNamespace) -> apache_beam.PCollection:
    """(number, reason) of each near duplicate."""
    asked = (
        rows
        | "asked" >> apache_beam.MapTuple(_query)
        | apache_beam.Filter(lambda row: near_duplicates.compared(row[2], settings))
        | apache_beam.MapTuple(lambda number, name, asked: (number, (name, asked)))
    )
    pairs = (
        asked
        | apache_beam.FlatMapTuple(lambda number, row: _keys(number, row, settings))
        | "buckets" >> apache_beam.GroupByKey()
        | apache_beam.FlatMapTuple(lambda _, numbers: _pairs(numbers, settings.compared))
        | apache_beam.Distinct()
    )
    waiting = (
        {"others": pairs, "asked": asked} | "later" >> apache_beam.CoGroupByKey() | apache_beam.FlatMapTuple(_send)
    )
    return (
        {"others": waiting, "asked": asked}
        | "earlier" >> apache_beam.CoGroupByKey()
        | apache_beam.FlatMapTuple(lambda number, groups: _compare(number, groups, settings))
        | apache_beam.CombinePerKey(min)
        | apache_beam.MapTuple(lambda number, nearest: (number, near_duplicates.reason(*nearest[1:])))
    )


def _keys(number: int, row: tuple[str, str], settings: SimpleNamespace) -> Iterator[tuple[bytes, int]]:
    for key in near_duplicates.bands(near_duplicates.shingles(row[1]), settings).tolist():
        yield key.to_bytes(8), number


def _pairs(numbers: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """(later, earlier) for the first `most` of a bucket as the earlier ones."""
    first = heapq.nsmallest(most, numbers)
    for number in numbers:
        for earlier in first:
            if earlier < number:
                yield number, earlier


def _send(number: int, groups: dict[str, Iterable]) -> Iterator[tuple[int, tuple[int, str]]]:
    """(earlier, (later, its query))"""
    (_, asked), *_ = groups["asked"]
    for earlier in groups["others"]:
        yield earlier, (number, asked)


def _compare(number: int, groups: dict[str, Iterable], settings: SimpleNamespace) -> Iterator[tuple[int, tuple]]:
    """(later, (earlier, its id, similarity))"""
    (name, asked), *_ = groups["asked"]
    own = near_duplicates.shingles(asked)
    for later, query in groups["others"]:
        jaccard = near_duplicates.similar(near_duplicates.shingles(query), own, settings)
        if jaccard is not None:
            yield later, (number, name, jaccard)


def _query(number: int, row: bytes) -> tuple[int, str, str]:
    _, dialogue, _ = pickle.loads(row)
    return number, dialogue["id"], queries.query(dialogue)


def _write(block: int, rows: Iterable[tuple[int, bytes]], folder: str) -> None:
    write_bytes(Path(folder) / f"{block:08d}", pickle.dumps(sorted(rows)))


COMPARED = {"exact_duplicates": _exact, "near_duplicates": _near}
