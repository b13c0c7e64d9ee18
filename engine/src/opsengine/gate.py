"""Admission: how many requests may wait and how many bytes they may hold; what is over is refused at once with 429.

A request counts from its complete head to its answer, so that the line is known and bounded, and never grows into
memory.
"""

import threading
from typing import NoReturn

from opsengine.errors import RequestError

RETRY_SECONDS = 1
MOST_UNSENT = 128 * 2**20  # bytes of answers that callers have not taken, of all lines together
UNTAKEN = "answers wait to be taken"


class Gate:
    """`slots` requests run, `queue` more may wait, and all their bodies together may take `budget` bytes."""

    def __init__(self, slots: int, queue: int, budget: int) -> None:
        self._running = slots
        self._queue = queue
        self._budget = budget
        self._lock = threading.Lock()
        self._inside = 0
        self._bytes = 0
        self.refused = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return max(0, self._inside - self._running)

    def enter(self, size: int, unsent: int = 0) -> None:
        """Count a body. Raises RequestError (429), also while `unsent` bytes of answers are not taken."""
        with self._lock:
            if unsent > MOST_UNSENT:
                self._refuse(UNTAKEN)
            if self._inside >= self._running + self._queue:
                self._refuse("requests wait")
            if self._bytes and self._bytes + size > self._budget:
                self._refuse("bytes wait in requests")
            self._inside += 1
            self._bytes += size

    def grow(self, more: int) -> None:
        """Count more bytes of a body that is in. Raises RequestError (429)."""
        with self._lock:
            if self._bytes + more > self._budget:
                self._refuse("bytes wait in requests")
            self._bytes += more

    def leave(self, size: int) -> None:
        """Count a body no longer."""
        with self._lock:
            self._inside -= 1
            self._bytes -= size

    def _refuse(self, what: str) -> NoReturn:
        self.refused += 1
        raise refusal(what)


def refusal(what: str) -> RequestError:
    """The answer where too much waits."""
    told = f"Too many {what} already: try again in a moment, or send less at a time."
    return RequestError(told, 429, (("Retry-After", str(RETRY_SECONDS)),))
