"""How often an API may be asked: so many requests and tokens a second, let through one after the other."""

import asyncio
import math
import time


class StoppedError(Exception):
    """Not asked any more: the work was stopped."""


class RateLimiter:
    """Lets requests through evenly, the first at once; of one event loop.

    Time without requests is not made up for, so no window of time sees more than its share and one request.

    Attributes:
      stopped: see `stop`.
    """

    def __init__(self, per_second: float = math.inf, tokens_per_second: float = math.inf):
        """Raises:
        ValueError: not more than 0.
        """
        for rate, unit in ((per_second, "requests"), (tokens_per_second, "tokens")):
            if not rate > 0:
                raise ValueError(f"{rate} {unit} a second: must be more than 0")
        self._per_second, self._tokens_per_second = per_second, tokens_per_second
        self._next_request = self._next_token = time.monotonic()
        self._turnstile, self._stop = asyncio.Lock(), asyncio.Event()

    async def wait(self, tokens: int = 0) -> None:
        """Returns when it is the turn of a request of so many tokens.

        Raises:
          StoppedError: see `stop`.
        """
        # One sleeps and the others queue behind it: after a pause they do not all come at once.
        async with self._turnstile:
            came = time.monotonic()
            while (left := max(self._next_request, self._next_token) - time.monotonic()) > 0:
                await self.sleep(left)
            if self.stopped:
                raise StoppedError("stopped")
            self._next_request = max(self._next_request, came) + 1 / self._per_second
            self._next_token = max(self._next_token, came) + tokens / self._tokens_per_second

    def pause(self, seconds: float) -> None:
        """Nobody's turn comes before so many seconds have passed."""
        self._next_request = max(self._next_request, time.monotonic() + seconds)

    async def sleep(self, seconds: float) -> None:
        """As asyncio.sleep.

        Raises:
          StoppedError: see `stop`.
        """
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
        raise StoppedError("stopped")

    @property
    def stopped(self) -> bool:
        """Whether all who wait, or come, raise StoppedError."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ends all waiting."""
        self._stop.set()
