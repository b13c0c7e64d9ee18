"""Admission: how many requests may wait and how many bytes they may hold; what is over is refused at once with 429.

Requests run in a few slots. The others wait for one, in threads that do nothing else, so that the line is known and
bounded, and never grows into memory.
"""

import threading
from queue import SimpleQueue

from opsengine.errors import RequestError

RETRY_SECONDS = 1


class Gate:
    """`slots` requests run, `queue` more may wait, and all their bodies together may take `budget` bytes."""

    def __init__(self, slots: int, queue: int, budget: int) -> None:
        self._slot = _Slot(slots)
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

    def admit(self, size: int) -> "_Place":
        """With it a body of `size` bytes counts, from before it is read to the answer. Raises RequestError (429)."""
        return _Place(self, size)

    def slot(self) -> "_Slot":
        """With it a slot is waited for, and had."""
        return self._slot

    def enter(self, size: int) -> None:
        """Count a body. Raises RequestError (429)."""
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

    def leave(self, size: int) -> None:
        """Count a body no longer."""
        with self._lock:
            self._inside -= 1
            self._bytes -= size


class _Place:
    """A class and not a generator: those take five times as long, in every request."""

    __slots__ = ("_gate", "_size")

    def __init__(self, gate: Gate, size: int) -> None:
        self._gate, self._size = gate, size

    def __enter__(self) -> None:
        self._gate.enter(self._size)

    def __exit__(self, *fault: object) -> None:
        self._gate.leave(self._size)


class _Slot:
    """All slots: whoever is inside has taken one out of the queue. That queue is made in C, a Semaphore is not."""

    __slots__ = ("_free",)

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *fault: object) -> None:
        self._free.put(None)
