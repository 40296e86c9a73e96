"""How often an API may be asked, and how often at all. Both are safe among threads."""

import threading
import time


class RateLimit:
    """Lets calls through evenly, `per_second` of them; the first at once."""

    def __init__(self, per_second: float):
        """Raises:
        ValueError: not more than 0.
        """
        if not per_second > 0:
            raise ValueError(f"{per_second} requests a second: must be more than 0")
        self._gap = 1 / per_second
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Returns when it is this call's turn."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap
        time.sleep(max(0.0, turn - time.monotonic()))


class BudgetSpentError(ValueError):
    """As many requests were sent as were allowed."""


class Budget:
    """Counts the requests sent, tries that failed too; `most` of them are allowed, 0 for any number."""

    def __init__(self, most: int = 0):
        self.most, self.spent = most, 0
        self._lock = threading.Lock()

    def spend(self) -> None:
        """Takes one request.

        Raises:
          BudgetSpentError: none is left.
        """
        with self._lock:
            if self.most and self.spent >= self.most:
                raise BudgetSpentError(
                    f"the budget of {self.most} requests is spent; what was answered is kept, another start goes on"
                )
            self.spent += 1
