"""The raw data by their formats, and one stream of all their rows."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

from imitation_jax.data import alpaca, dialogues, hc3, messages, sharegpt
from imitation_jax.data.rows import Rejected

FORMATS: dict[str, ModuleType] = {
    "sharegpt": sharegpt,
    "hc3": hc3,
    "alpaca": alpaca,
    "messages": messages,
}


def read(files: Mapping[str, Sequence[str]], max_bytes: int) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for each row of the files, format by format; no id comes twice."""
    if len(files) == 1:
        ((name, paths),) = files.items()
        yield from FORMATS[name].read(paths, max_bytes)
        return
    seen: set[str] = set()
    for name, paths in files.items():
        for where, item in FORMATS[name].read(paths, max_bytes):
            yield where, item if isinstance(item, Rejected) else dialogues.with_own_id(item, seen)
