"""Admission: how many requests may wait and how many bytes they may hold; what is over is refused at once with 429.

A request counts from its complete head to its answer, so that the line is known and bounded, and never grows into
memory. One whose body is still coming takes no place, only the bytes that have come, and not the last of all bytes:
however many callers are slow, none of those who send at once is refused for it. A proxy in front that passes requests
on when they are whole, as nginx does, has the same effect.
"""

import threading
from typing import NoReturn

from opsengine.errors import RequestError

RETRY_SECONDS = 1
MOST_UNSENT = 128 * 2**20  # bytes of answers that callers have not taken, of all lines together
UNTAKEN = "answers wait to be taken"
KEPT = 8  # an eighth of all bytes is kept for bodies that are whole
PLACES, BYTES = "requests wait", "bytes wait in requests"


class Gate:
    """`slots` requests run, `queue` more may wait, and all their bodies together may take `budget` bytes."""

    def __init__(self, slots: int, queue: int, budget: int) -> None:
        self._running = slots
        self._queue = queue
        self._budget = budget
        self._most_coming = budget - budget // KEPT
        self._lock = threading.Lock()
        self._inside = 0
        self._bytes = 0
        self._coming = 0  # of these bytes: in bodies that are not whole
        self.refused = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return max(0, self._inside - self._running)

    def enter(self, size: int, unsent: int = 0) -> None:
        """Count a body as whole. Raises RequestError (429), also while `unsent` bytes of answers are not taken."""
        with self._lock:
            if unsent > MOST_UNSENT:
                self._refuse(UNTAKEN)
            if self._inside >= self._running + self._queue:
                self._refuse(PLACES)
            if self._bytes and self._bytes + size > self._budget:
                self._refuse(BYTES)
            self._inside += 1
            self._bytes += size

    def come(self, had: int, counted: int, *, has_place: bool) -> None:
        """A body that is not whole yet counts for the `had` bytes that have come, and gives up the place that it has.

        Raises RequestError (429), as `complete` does; it is then still counted as before.
        """
        with self._lock:
            coming = self._coming + had - (0 if has_place else counted)
            if coming > self._most_coming or self._bytes + had - counted > self._budget:
                self._refuse(BYTES)
            self._coming = coming
            self._bytes += had - counted
            self._inside -= has_place

    def complete(self, size: int, counted: int, *, has_place: bool) -> None:
        """A body that was coming is whole: it takes a place."""
        with self._lock:
            if not has_place and self._inside >= self._running + self._queue:
                self._refuse(PLACES)
            if self._bytes + size - counted > self._budget:
                self._refuse(BYTES)
            self._coming -= 0 if has_place else counted
            self._bytes += size - counted
            self._inside += not has_place

    def leave(self, size: int, *, has_place: bool = True) -> None:
        """Count a body no longer."""
        with self._lock:
            self._inside -= has_place
            self._bytes -= size
            self._coming -= 0 if has_place else size

    def _refuse(self, what: str) -> NoReturn:
        self.refused += 1
        raise refusal(what)


def refusal(what: str) -> RequestError:
    """The answer where too much waits."""
    told = f"Too many {what} already: try again in a moment, or send less at a time."
    return RequestError(told, 429, (("Retry-After", str(RETRY_SECONDS)),))
