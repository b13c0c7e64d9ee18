"""Admission: how many requests may wait and how many bytes they may hold; what is over is refused at once with 429.

Requests run in a few slots. The others wait for one, in threads that do nothing else, so that the line is known and
bounded, and never grows into memory.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opsengine.errors import RequestError

RETRY_SECONDS = 1


class Gate:
    """`slots` requests run, `queue` more may wait, and all their bodies together may take `budget` bytes."""

    def __init__(self, slots: int, queue: int, budget: int) -> None:
        self._slots = threading.Semaphore(slots)
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

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Be counted with a body of `size` bytes, from before it is read to the answer. Raises RequestError (429)."""
        with self._lock:
            is_full = self._inside >= self._running + self._queue
            if is_full or (self._bytes and self._bytes + size > self._budget):
                self.refused += 1
                what = "requests wait" if is_full else "bytes wait in requests"
                raise RequestError(
                    f"Too many {what} already: try again in a moment, or send less at a time.",
                    429,
                    (("Retry-After", str(RETRY_SECONDS)),),
                )
            self._inside += 1
            self._bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                self._bytes -= size

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot, and have it."""
        self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()
