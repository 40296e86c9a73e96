"""Results come one request at a time and in any order; an item often has several requests."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Outcome = TypeVar("Outcome")


def by_item(counts: Sequence[int], on_item: Callable[[int, list[Outcome]], None]) -> Callable[[int, Outcome], None]:
    """An `on_result` for an engine: with an item's last result it hands on all of them, in the order of the requests.

    Args:
      counts: how many requests each item has; those of the first item come first.
      on_item: takes an item's index and its results.
    """
    places = [(item, place) for item, count in enumerate(counts) for place in range(count)]
    waiting: dict[int, dict[int, Outcome]] = {}

    def on_result(number: int, result: Outcome) -> None:
        item, place = places[number]
        results = waiting.setdefault(item, {})
        results[place] = result
        if len(results) == counts[item]:
            del waiting[item]
            on_item(item, [results[k] for k in range(counts[item])])

    return on_result
