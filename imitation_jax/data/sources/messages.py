"""Dialogue files (`messages` JSONL) as a source: those of other trainers and those that this package wrote."""

from collections.abc import Iterable, Iterator

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues


def read(paths: Iterable[str], max_bytes: int = json_rows.MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for each row of the files, in order, exactly one for each.

    As `dialogues.read`, but ids are unique over all files: see `dialogues.with_own_id`.

    Args:
      paths: JSON Lines or JSON lists, gzipped or not.
      max_bytes: longer rows are set aside.
    """
    return dialogues.converted(paths, lambda where, row: [dialogues.named(where, row)], max_bytes)
