"""How long work shows that it moves: a bar on a terminal, plain log lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from absl import logging
from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 15.0


def progress(
    items: Iterable[Item],
    *,
    total: int | None = None,
    initial: int = 0,
    desc: str = "",
    unit: str = "item",
    lines: bool = True,
) -> Iterator[Item]:
    """Yields `items` unchanged while showing how many have passed, how fast, and the time left.

    Args:
      items: what to iterate over.
      total: how many items the whole work has; taken from `len(items)` where it has one.
      initial: how many were done before this start (a resumed run).
      desc: what is being done, as a verb ("tokenising").
      unit: what one item is.
      lines: False where the work logs lines of its own.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items) + initial
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, initial=initial, desc=desc, unit=unit, dynamic_ncols=True)
        return
    if not lines:
        yield from items
        return
    start = last = time.monotonic()
    done = initial
    for done, item in enumerate(items, initial + 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = (done - initial) / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            logging.info("%s: %d%s %ss, %.3g/s%s", desc, done, f"/{total}" if total else "", unit, rate, left)
    if time.monotonic() - start >= SECONDS_BETWEEN_LINES:
        logging.info("%s: %d %ss in %.0f s", desc, done, unit, time.monotonic() - start)
