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
from ml_collections import ConfigDict

from imitation_jax.core.files import write_bytes
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import sources
from imitation_jax.data.cleaning import near_duplicates, pipeline
from imitation_jax.data.cleaning.pipeline import Cleaned

try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise ValueError("config.runner needs Apache Beam: pip install 'imitation_jax[beam]'") from error

ROWS_A_FILE = 10_000


def run(
    files: Mapping[str, Sequence[str]],
    names: Sequence[str],
    settings: dict[str, SimpleNamespace],
    config: ConfigDict,
    folder: Path,
) -> Iterator[Cleaned]:
    """As `pipeline.run` on `sources.read`, by the Beam runner `config.runner`.

    Args:
      folder: where the workers write, so it must be one that they all see; made, and not cleared.
    """
    folder.mkdir(parents=True)
    target = str(folder)
    # DirectRunner would first download another one that does its work.
    runner = "FnApiRunner" if config.runner == "DirectRunner" else config.runner
    flags = [f"--runner={runner}", *config.runner_flags.split()]
    logging.info("cleaning on Beam: %s", " ".join(flags))
    with apache_beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        alive = (
            pipeline
            | apache_beam.Create([(dict(files), config.max_row_bytes)])
            | apache_beam.FlatMap(_read)
            | apache_beam.Reshuffle()
        )
        done = []
        for number, (compares, some) in enumerate(_groups(names)):
            if compares:
                reasons = alive | f"{number} compared" >> COMPARED[some[0]](settings[some[0]])
                rows = {"rows": alive, "reasons": reasons} | f"{number} joined" >> apache_beam.CoGroupByKey()
                step = _Drop(some[0])
            else:
                rows, step = alive, _Clean(some, settings)
            split = rows | f"{number} {', '.join(some)}" >> apache_beam.ParDo(step).with_outputs("done", main="alive")
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


def _groups(names: Sequence[str]) -> list[tuple[bool, list[str]]]:
    """Each step that compares dialogues by itself, the others together; these come first, if it be none."""
    groups = [(False, [])]
    for name in names:
        if name in pipeline.DUPLICATES:
            groups.append((True, [name]))
        elif groups[-1][0]:
            groups.append((False, [name]))
        else:
            groups[-1][1].append(name)
    return groups


# A row is (number, (where, dialogue or Rejected, steps that changed it)), pickled: Beam's own coder takes fewer texts.


def _read(given: tuple[dict[str, list[str]], int]) -> Iterator[tuple[int, bytes]]:
    for number, (where, item) in enumerate(sources.read(*given)):
        yield number, pickle.dumps((where, item, ()))


class _Clean(apache_beam.DoFn):
    """Takes rows through steps that look at one dialogue."""

    def __init__(self, names: list[str], settings: dict[str, SimpleNamespace]):
        self._names = names
        self._settings = {name: settings[name] for name in names}

    def setup(self) -> None:
        self._todo = [(name, pipeline.step(name, self._settings)) for name in self._names]

    def process(self, numbered: tuple[int, bytes]) -> Iterator[Any]:
        number, row = numbered
        where, item, changed = pickle.loads(row)
        item, further = pipeline.clean(where, item, self._todo)
        out = number, pickle.dumps((where, item, changed + further))
        yield apache_beam.pvalue.TaggedOutput("done", out) if isinstance(item, Rejected) else out


class _Drop(apache_beam.DoFn):
    """Drops the rows that there is a reason for."""

    def __init__(self, name: str):
        self._name = name

    def process(self, joined: tuple[int, dict[str, Iterable]]) -> Iterator[Any]:
        number, found = joined
        (row,), reasons = found["rows"], list(found["reasons"])
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
        | apache_beam.MapTuple(lambda number, name, asked: (near_duplicates.digest(asked), (number, name)))
        | apache_beam.GroupByKey()
        | apache_beam.FlatMapTuple(_repeated)
    )


def _repeated(_: bytes, members: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    first, name = min(members)
    for number, _ in members:
        if number != first:
            yield number, near_duplicates.exact_reason(name)


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
        | apache_beam.FlatMapTuple(lambda number, found: _compare(number, found, settings))
        | apache_beam.CombinePerKey(min)
        | apache_beam.MapTuple(lambda number, found: (number, near_duplicates.near_reason(*found[1:])))
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


def _send(number: int, found: dict[str, Iterable]) -> Iterator[tuple[int, tuple[int, str]]]:
    """(earlier, (later, its query))"""
    (_, asked), *_ = found["asked"]
    for earlier in found["others"]:
        yield earlier, (number, asked)


def _compare(number: int, found: dict[str, Iterable], settings: SimpleNamespace) -> Iterator[tuple[int, tuple]]:
    """(later, (earlier, its id, similarity))"""
    (name, asked), *_ = found["asked"]
    own = near_duplicates.shingles(asked)
    for later, query in found["others"]:
        jaccard = near_duplicates.similar(near_duplicates.shingles(query), own, settings)
        if jaccard is not None:
            yield later, (number, name, jaccard)


def _query(number: int, row: bytes) -> tuple[int, str, str]:
    _, dialogue, _ = pickle.loads(row)
    return number, dialogue["id"], near_duplicates.query(dialogue)


def _write(block: int, rows: Iterable[tuple[int, bytes]], folder: str) -> None:
    write_bytes(Path(folder) / f"{block:08d}", pickle.dumps(sorted(rows)))


COMPARED = {"exact_duplicates": _exact, "near_duplicates": _near}
