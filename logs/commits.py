"""One commit for pages that arrive at the same time, on PostgreSQL.

A request that has a page leads if few others do: it writes what waits in one transaction, tells each its own outcome,
and hands over to the first of those that came meanwhile. So nobody waits for company, and each is answered after its
commit.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.db import DatabaseError, connection

from common.errors import RateLimited
from logs import arrivals
from logs.arrivals import Arrival

# PostgreSQL lets transactions at the same time share a sync itself: more leaders answer sooner, fewer take less CPU.
LEADERS = 2
MOST_PAGES = 64
MOST_BYTES = 16 * 1024**2
# Longer than a batch and the pages of it that go on alone take, unless the database hangs.
WAIT_SECONDS = 30.0


@dataclass(eq=False)
class _Waiting:
    """A page on its way. `is_stored` is None when it has to be stored alone."""

    arrival: Arrival
    told: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    is_stored: bool | None = None


class GroupCommit:
    """Requests of one process that store pages together. `write` stores some in one transaction, or none and raises.

    At most `leaders` write at a time; who comes then waits for the next.
    """

    def __init__(
        self, write: Callable[[Sequence[Arrival]], list[bool]], leaders: int = 1, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._write = write
        self._free = leaders
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()

    def store(self, arrival: Arrival) -> bool | None:
        """Whether the page was stored; None when it has to be stored alone, since the batch that it was in failed.

        Raises `RateLimited` when nothing was heard of it for too long: sent again it is stored once in any case.
        """
        own = _Waiting(arrival)
        with self._lock:
            own.leads = self._free > 0
            if own.leads:
                self._free -= 1
            else:
                self._queue.append(own)
        if not own.leads and not own.told.wait(self._wait_seconds):
            self._give_up(own)
        if own.leads:
            self._lead(own)
        return own.is_stored

    def _give_up(self, own: _Waiting) -> None:
        """Raises `RateLimited`, unless it was told or made the leader just now."""
        with self._lock:
            if own.told.is_set():
                return
            if own in self._queue:  # else it is being written, and who sends it again is told how that ended
                self._queue.remove(own)
        raise RateLimited("The center is busy with other pages: send this one again.", retry_after=1)

    def _lead(self, own: _Waiting) -> None:
        """Writes the leader's page with those behind it, and lets the next lead before the others are woken."""
        batch = self._taken(own)
        try:
            self._write_together(batch)
        finally:
            self._hand_over()
            for waiting in batch:
                waiting.told.set()

    def _write_together(self, batch: list[_Waiting]) -> None:
        try:
            stored = self._write([waiting.arrival for waiting in batch])
        except DatabaseError:
            return  # one page of it is to blame, or all: each finds out alone and is told its own
        for waiting, is_stored in zip(batch, stored, strict=True):
            waiting.is_stored = is_stored

    def _taken(self, own: _Waiting) -> list[_Waiting]:
        """The leader's page and as many of those that wait as one transaction should hold."""
        batch, size = [own], len(own.arrival.page.body)
        with self._lock:
            while self._queue and len(batch) < MOST_PAGES:
                size += len(self._queue[0].arrival.page.body)
                if size > MOST_BYTES:
                    break
                batch.append(self._queue.popleft())
        return batch

    def _hand_over(self) -> None:
        with self._lock:
            if self._queue:
                following = self._queue.popleft()
                following.leads = True
                following.told.set()
            else:
                self._free += 1


_together = GroupCommit(arrivals.store_together, LEADERS)


def store(arrival: Arrival) -> bool:
    """Stores a page durably if its mark stands right before it; whether it did.

    Raises Django's database errors and `RateLimited`. Alone on SQLite, where a shared commit gains nothing, and within
    a transaction of the caller's, which no other thread can write in.
    """
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        return arrivals.store(arrival)
    # Before it waits: a leader that had to wait for one itself could wait for those whom it leads.
    connection.ensure_connection()
    is_stored = _together.store(arrival)
    return arrivals.store(arrival) if is_stored is None else is_stored
