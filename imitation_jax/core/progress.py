"""How long work shows that it moves: a bar on a terminal, plain log lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from absl import logging
from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 15.0
_quiet = False


def quiet() -> None:
    """Shows nothing from now on: of several processes one is enough."""
    global _quiet
    _quiet = True


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
    with ticks(total=total, initial=initial, desc=desc, unit=unit, lines=lines) as tick:
        for item in items:
            yield item
            tick()


@contextlib.contextmanager
def ticks(
    *, total: int | None = None, initial: int = 0, desc: str = "", unit: str = "item", lines: bool = True
) -> Iterator[Callable[..., object]]:
    """`progress` for work that calls back: gives a function to call after each item, with a note to show if any."""
    if sys.stderr.isatty() and not _quiet:
        with tqdm(total=total, initial=initial, desc=desc, unit=unit, dynamic_ncols=True) as bar:

            def update(note: str = "") -> None:
                if note:
                    bar.set_postfix_str(note, refresh=False)
                bar.update()

            yield update
        return
    start = last = time.monotonic()
    done = initial

    def tick(note: str = "") -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if lines and now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = (done - initial) / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            of, note = f"/{total}" if total else "", f", {note}" if note else ""
            logging.info("%s: %d%s %ss, %.3g/s%s%s", desc, done, of, unit, rate, left, note)

    yield tick
    if lines and time.monotonic() - start >= SECONDS_BETWEEN_LINES:
        logging.info("%s: %d %ss in %.0f s", desc, done, unit, time.monotonic() - start)
