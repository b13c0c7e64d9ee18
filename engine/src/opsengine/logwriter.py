"""From the request path to the log store: a bounded queue, and one thread that writes it down.

The request path appends a reference. Before the answers of a turn of the loop go out, what was taken since is packed
(opsengine.chunks), queued, and written to the journal, which outlives a kill of the process. The thread writes at least
every 200 ms. A counter in a memory-mapped file knows how many rows were ever taken, so rows that a power cut
took from the journal are counted, and told as a gap, at the next start.
"""

import logging
import mmap
import os
import sqlite3
import struct
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from opsengine import chunks, journal, logpages
from opsengine.chunks import Chunk, Kind
from opsengine.journal import Journal
from opsengine.logpages import Page
from opsengine.logstore import LogStore, Lost
from opsengine.rows import Result

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.1  # rows gather this long; with the write itself they are on the disk within 200 ms
RETRY_SECONDS = 1.0  # after a write that failed
RECORD = struct.Struct("<16sQ")  # epoch, rows taken


class TakenCounter:
    """How many rows were ever taken in an epoch, in a memory-mapped file: it outlives a kill, at no cost a request."""

    def __init__(self, path: Path) -> None:
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            # Written, not only sized: a write to a mapped page that has no place on a full disk would kill the process.
            known = file.read(RECORD.size)
            file.seek(0)
            file.write(known.ljust(RECORD.size, b"\0"))
            file.flush()
            self._map = mmap.mmap(file.fileno(), RECORD.size)

    def read(self, epoch: str) -> int:
        """Rows taken in this epoch, 0 when the file is of another."""
        known, taken = RECORD.unpack_from(self._map)
        return int(taken) if known == uuid.UUID(epoch).bytes else 0

    def write(self, epoch: bytes, taken: int) -> None:
        """Set the count."""
        RECORD.pack_into(self._map, 0, epoch, taken)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()


class LogWriter:
    """Takes results from the request path and writes pages to the store. `wrote` is set after each write."""

    def __init__(self, store: LogStore, counter_path: Path) -> None:
        self._store = store
        self._counter = TakenCounter(counter_path)
        self._journal = Journal(counter_path.parent, store.queue_bytes)
        self._taking: list[Result] = []  # not yet in queue and journal
        self._queue: deque[Chunk] = deque()
        self._bytes = 0
        self._limit = store.queue_bytes  # of chunks that wait for the disk; beyond it rows are given up, and counted
        self._lock = threading.Lock()
        self._waiting = threading.Event()  # something is queued
        self._hurry = threading.Event()  # do not gather, write now
        self._written = threading.Condition()
        self._stopping = False
        self._lost: Lost | None = None
        self.fault: str | None = None  # why the log cannot be written now, for people
        self.wrote = threading.Event()
        self._epoch = uuid.UUID(store.position.epoch).bytes
        self._done = store.position.last
        self._taken = self._recover()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def take(self, result: Result) -> None:
        """Take a result for the log. Its answer may go out after the next `settle`."""
        self._taking.append(result)  # in one step, so that it needs no lock

    def settle(self) -> None:
        """Have what was taken in the queue and in the journal, so that its answers may go out.

        Never waits for the disk: when the queue is full, rows are counted as lost.
        """
        with self._lock:  # also where nothing is left: another thread may be at writing down what this one took
            if not self._taking:
                return
            results, self._taking = self._taking, []
            for chunk in chunks.pack(results):
                self._keep(chunk)
            self._counter.write(self._epoch, self._taken)
        if self._bytes > self._limit // 2:
            self._hurry.set()
        if not self._waiting.is_set():
            self._waiting.set()

    def put(self, result: Result) -> None:
        """Take and settle a single result."""
        self.take(result)
        self.settle()

    def _keep(self, chunk: Chunk) -> None:
        """Number a chunk, then queue and journal it, or count it as lost. With the lock held."""
        body = _journaled(chunk)
        size = chunk.size if body is None else journal.size_of(body)
        first, count = self._taken + 1, chunk.count
        self._taken += count
        if self._queue and self._bytes + size > self._limit:
            self._lost = _added(self._lost, chunk, "queue_full")
            return
        self._queue.append(chunk)
        self._bytes += size
        if body is not None:
            self._journal.add(self._epoch, first, count, body)

    def flush(self, timeout: float) -> bool:
        """Write everything that was taken until now; False if that took longer than `timeout` seconds."""
        self.settle()
        goal = self._taken
        self._hurry.set()
        self._waiting.set()
        with self._written:
            return self._written.wait_for(lambda: self._done >= goal, timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """Write what is queued and end the thread."""
        self.settle()
        self._stopping = True
        self._hurry.set()
        self._waiting.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if self._thread.is_alive():  # on a slow disk; a file that is opened next would have its descriptors
            return
        with self._lock:
            self._counter.close()
            self._journal.close()

    def begin_epoch(self, known: int = 0, owner: str | None = None) -> None:
        """Begin a new epoch of the store (LogStore.begin_epoch), with nothing half-way between queue and disk."""
        with self._written:  # the writer holds this while it writes
            self._store.begin_epoch(known, owner)
            self._number_again()

    @property
    def epoch(self) -> bytes:
        """What is taken now is of this epoch."""
        return self._epoch

    def begin_again(self, error: sqlite3.Error, epoch: bytes) -> None:
        """The store was damaged in this epoch: begin a new one (LogStore.begin_again) with what is still here."""
        with self._written:
            if epoch != self._epoch:  # another thread met the same damage, and the store is a new one already
                return
            try:
                self._store.begin_again(error)
            except (sqlite3.Error, OSError) as another:
                self._note(another)
                return
            self.fault = None
            self._number_again()

    def _number_again(self) -> None:
        """Go on in the store's new epoch with what is taken and not stored."""
        position = self._store.position
        with self._lock:
            queued = self._taken - self._done
            self._epoch = uuid.UUID(position.epoch).bytes
            self._taken, self._done = position.last + queued, position.last
            self._counter.write(self._epoch, self._taken)
            self._journal_again(position.last)

    def _journal_again(self, last: int) -> None:
        """Give the journal's rows the numbers that they have in a new epoch."""
        self._journal.clear()
        for chunk in self._queue:
            body = _journaled(chunk)
            if body is not None:
                self._journal.add(self._epoch, last + 1, chunk.count, body)
            last += chunk.count

    def _recover(self) -> int:
        """Writes down what a kill left in the journal; what a power cut took becomes a gap. The last row's number."""
        position = self._store.position
        missing = self._counter.read(position.epoch) - position.last
        found = self._journal.read(self._epoch, position.last)
        pages, unfit = _pages(found, self._store.page_bytes)
        missing -= sum(page.count for page in pages)
        lost = None
        for chunk in unfit:
            lost = _added(lost, chunk, "not_storable")
            missing -= chunk.count
        if missing > 0:
            now = int(time.time() * 1000)
            logger.warning("Answered rows lost when the engine was cut off: %d; told as a gap", missing)
            lost = _both(lost, Lost(missing, now, now, "cut_off"))
        try:
            self._done = self._store.append(pages, lost) if pages or lost else position.last
        except sqlite3.Error as error:
            self._keep_for_later(found, unfit, lost, error)
            return position.last + sum(chunk.count for chunk in self._queue) + (lost.count if lost else 0)
        self._counter.write(self._epoch, self._done)
        self._journal.clear()
        return self._done

    def _keep_for_later(self, found: list[Chunk], unfit: list[Chunk], lost: Lost | None, error: sqlite3.Error) -> None:
        """A start on a full disk: what was left is written when there is room, and stays in the journal until then."""
        self._note(error)
        gone = {id(chunk) for chunk in unfit}
        self._queue.extend(chunk for chunk in found if id(chunk) not in gone)
        self._bytes = sum(chunk.size for chunk in self._queue)
        self._lost = lost
        self._journal.claim(self._counter.read(self._store.position.epoch))
        self._waiting.set()

    def _note(self, error: sqlite3.Error | OSError) -> None:
        told = f"The inference log cannot be written ({error}): check the disk of PERSIST_DIR."
        logger.log(logging.ERROR if self.fault is None else logging.DEBUG, told)
        self.fault = told

    def _run(self) -> None:
        while not self._stopping:
            self._waiting.wait()
            self._waiting.clear()
            self._hurry.wait(GATHER_SECONDS)
            self._hurry.clear()
            self._try_to_write()
        self._try_to_write()  # what came while the last write was under way

    def _try_to_write(self) -> None:
        try:
            self._write()
        except Exception:
            logger.exception("writing the inference log failed")

    def _write(self) -> None:
        with self._written:
            with self._lock:
                queued, self._queue = self._queue, deque()
                lost, self._lost = self._lost, None
                self._bytes = 0
                self._journal.switch()
            if not queued and lost is None:
                self._written.notify_all()
                return
            pages, unfit = _pages(queued, self._store.page_bytes)
            for chunk in unfit:
                lost = _added(lost, chunk, "not_storable")
            try:
                self._done = self._store.append(pages, lost)
            except sqlite3.Error as error:
                self._note(error)
                self._put_back(queued, unfit, lost)
                if self._store.is_damaged(error):
                    self.begin_again(error, self._epoch)
                return
            self.fault = None
            self._journal.forget_other(self._done)
            with self._lock:
                self._journal.forget_current(self._done)
            self._written.notify_all()
        self.wrote.set()

    def _put_back(self, queued: deque[Chunk], unfit: list[Chunk], lost: Lost | None) -> None:
        """Try again in a second. Meanwhile the queue fills, and what it cannot hold is counted."""
        gone = {id(chunk) for chunk in unfit}
        with self._lock:
            self._queue.extendleft(chunk for chunk in reversed(queued) if id(chunk) not in gone)
            self._bytes += sum(chunk.size for chunk in queued)
            self._lost = _both(lost, self._lost)
        timer = threading.Timer(RETRY_SECONDS, self._waiting.set)
        timer.daemon = True
        timer.start()


def _journaled(chunk: Chunk) -> list[bytes] | None:
    try:
        return chunks.packed_bytes(chunk)
    except TypeError:  # a column that no model reads holds what JSON has no word for: a kill may cost this row
        return None


def _added(lost: Lost | None, chunk: Chunk, reason: str) -> Lost | None:
    return _both(lost, Lost(chunk.count, min(chunk.times), max(chunk.times), reason))


def _both(one: Lost | None, other: Lost | None) -> Lost | None:
    if one is None or other is None:
        return one or other
    times = min(one.time_min, other.time_min), max(one.time_max, other.time_max)
    return Lost(one.count + other.count, *times, one.reason)


def _pages(queued: Iterable[Chunk], most: int) -> tuple[list[Page], list[Chunk]]:
    """Chunks as pages of up to `most` bytes, grouped by what fits into one, in order within each; and those that Arrow
    cannot hold.
    """
    groups: dict[Kind, list[Chunk]] = {}
    for chunk in queued:
        groups.setdefault(chunk.kind, []).append(chunk)
    pages: list[Page] = []
    unfit: list[Chunk] = []
    for kind, group in groups.items():
        try:
            pages += logpages.of_chunks(group, most)
        except (pa.ArrowException, ValueError, TypeError):
            logger.exception("results cannot be logged", extra={"pipeline_version": kind.facts.version})
            unfit += group
    return pages, unfit
