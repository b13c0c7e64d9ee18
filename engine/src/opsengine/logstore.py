"""The local store of inference rows: append-only pages in one SQLite file.

SQLite, because a page, the gap that replaces one, the acknowledgement and the numbering then change in one transaction:
after a kill at any point the file says exactly which rows exist. A page (opsengine.logpages) holds rows of one kind and
one pipeline version; rows are numbered from 1 in each epoch (the uuid of the store).
"""

import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from opsengine import journal, logkinds, logpages
from opsengine.errors import DamagedPage
from opsengine.logfile import LogFile, size_of
from opsengine.logpages import Page

logger = logging.getLogger(__name__)

T = TypeVar("T")

Told = tuple[str, bytes]  # pipeline version and description: what pages of one kind share

TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS page (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, time_min INTEGER NOT NULL, time_max INTEGER NOT NULL,
    kind INTEGER NOT NULL REFERENCES kind, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS gap (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, time_min INTEGER NOT NULL, time_max INTEGER NOT NULL,
    reason TEXT NOT NULL);
"""
ROW_BYTES = 64  # what SQLite keeps beside a page's body, roughly
SLACK_PAGES = 16  # of SQLite's own: index pages, and what a deletion changes
QUEUE_BYTES = 64 * 2**20
PAGE_PART = 32  # of the cap
QUEUE_PART = 16  # of the cap: one sixteenth
FAR = 2**60  # beyond any row number


@dataclass(frozen=True, slots=True)
class Lost:
    """Rows that were answered but cannot be kept; they get numbers, and a gap record instead of content."""

    count: int
    time_min: int
    time_max: int
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers first..last will never come. Times are epoch ms."""

    first: int
    last: int
    time_min: int
    time_max: int
    reason: str
    epoch: str


@dataclass(frozen=True, slots=True)
class Shipment:
    """Consecutive rows of one schema and one pipeline version."""

    first: int
    pipeline_version: str
    batches: tuple[pa.RecordBatch, ...]
    epoch: str

    @property
    def count(self) -> int:
        """How many rows."""
        return sum(batch.num_rows for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Position:
    """Where the store stands. `shed` counts rows given up in this epoch."""

    epoch: str
    last: int
    acked: int
    shed: int


class LogStore:
    """One process at a time; safe for several threads. `cap` is the size in bytes that the store may take.

    Raises StateError where its file cannot be opened.
    """

    def __init__(self, path: Path, cap: int) -> None:
        self._cap = cap
        self._beside = journal.paths(path.parent)
        self._owner: str | None = None
        self._file = LogFile(path, cap, self._prepare)
        self._kinds = logkinds.Kinds(self._file)
        self._known = self._position()
        self._owner = self._file.db.execute("SELECT value FROM meta WHERE name = 'owner'").fetchone()[0]
        if self._file.is_over:
            self._shorten()

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.executescript(logkinds.TABLE + TABLES)
        begun = {"epoch": str(uuid.uuid4()), "last": 0, "acked": 0, "shed": 0, "owner": self._owner}
        db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", begun.items())

    def _shorten(self) -> None:
        """Have the file take no more than a cap that was lowered. No more room than the new cap is needed meanwhile."""
        with self._file.lock:
            try:
                self._in_room(0, lambda: None)
                copy = self._file.shorter()
            except (sqlite3.Error, OSError) as error:
                logger.warning("The log store %s cannot be made smaller now (%s)", self._file.path, error)
                return
            self._file.become(copy)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def position(self) -> Position:
        """Epoch and counters; what was last known of them while the disk gives nothing back."""
        with self._file.lock:
            with suppress(sqlite3.Error):
                self._known = self._position()
            return self._known

    @property
    def queue_bytes(self) -> int:
        """What may wait to be appended: in memory, and in each of the two files of opsengine.journal."""
        return min(QUEUE_BYTES, self._cap // QUEUE_PART)

    @property
    def page_bytes(self) -> int:
        """What a page should hold at most, so that the cap has room for many."""
        return min(logpages.MOST_BYTES, self._cap // PAGE_PART)

    @property
    def owner(self) -> str | None:
        """Id of the edge that this epoch is shipped as, None before the first join."""
        return self._owner

    def set_owner(self, edge_id: str) -> None:
        """Ship this epoch as that edge."""
        with self._file.transaction():
            self._set("owner", edge_id)
        self._owner = edge_id

    def begin_again(self, error: sqlite3.Error) -> None:
        """Set aside a file that turned out to be damaged, and begin a new epoch in a new one.

        Raises sqlite3.Error or OSError where the disk does not allow it: to be tried again.
        """
        self._file.begin_again(error)

    def is_damaged(self, error: sqlite3.Error) -> bool:
        """Whether only a new file can help: what this one holds is no database any more."""
        return self._file.is_damaged(error)

    def append(self, pages: Sequence[Page], lost: Lost | None = None) -> int:
        """Append in one durable transaction; returns the new last number. Makes room first where the cap asks.

        Of more than a quarter of the cap the newest pages are kept. Where descriptions go too, that is in transactions
        before: SQLite's journal has no room for many at once.
        """
        kinds, incoming = self._fitting(pages)
        with self._file.lock:
            self._file.cut_journal(incoming)
            return self._in_room(incoming, lambda: self._append(pages, kinds, lost))

    def _in_room(self, incoming: int, change: Callable[[], T]) -> T:
        """Make a change that takes so many bytes once there is room for it. With the lock held."""
        while True:
            with self._file.committed():
                if self._make_room(incoming):
                    return change()
            self._kinds.forget(self._file.journal_room // 4)

    def next(self, max_rows: int) -> Shipment | Gap | None:
        """What to send next: a gap, or up to `max_rows` rows after the acknowledged ones; None when all is told."""
        with self._file.transaction():
            position = self._position()
            at = position.acked + 1
            gap = self._file.row(
                "SELECT first, last, time_min, time_max, reason FROM gap WHERE last >= ? ORDER BY first LIMIT 1", at
            )
            if gap and gap[0] <= at:
                return Gap(at, gap[1], gap[2], gap[3], str(gap[4]), position.epoch)
            stop = gap[0] - 1 if gap else position.last
            if at > stop:
                return None
            found = self._shipment(at, min(max_rows, stop - at + 1), position.epoch)
            return found or self._hole(at, stop, position.epoch)

    def acknowledge(self, acked: int, told: Gap | None = None) -> None:
        """The center has, or was told of, all rows up to `acked`; `told` is the gap it was just told of.

        A gap that the center never had to be told of was in flight after all: its rows are no longer counted as shed.
        """
        with self._file.transaction():
            position = self._position()
            if acked <= position.acked:
                return
            self._set("acked", acked)
            gaps = self._file.db.execute("SELECT first, last FROM gap WHERE last <= ?", (acked,)).fetchall()
            self._file.db.execute("DELETE FROM gap WHERE last <= ?", (acked,))
            arrived = sum(last - first + 1 for first, last in gaps if told is None or last != told.last)
            if arrived:
                self._set("shed", max(0, position.shed - arrived))

    def resync(self, expected: int) -> None:
        """The center expects row `expected`: go back, or on, to it. What is no longer here is told as a gap then."""
        with self._file.transaction():
            self._set("acked", expected - 1)

    def give_up(self, first: int, last: int, reason: str) -> None:
        """Rows that the center will not take: told as a gap, still readable here."""
        with self._file.transaction():
            span = self._file.row(
                "SELECT min(time_min), max(time_max) FROM page WHERE last >= ? AND first <= ?", first, last
            )
            low, high = (int(span[0]), int(span[1])) if span and span[0] is not None else (0, 0)
            self._note_gap(first, last, low, high, reason)

    def begin_epoch(self, known: int = 0, owner: str | None = None) -> None:
        """A new epoch: rows that are not acknowledged are numbered from 1, the others stay readable here.

        For a center that knows other numbers: one that meets this edge under a new identity, or one that has rows which
        a store put back from an old copy has not. Rows up to `known` are at the center already and are not sent again.
        """
        with self._file.transaction():
            position = self._position()
            shift = min(position.last, max(position.acked, known))
            for table in ("page", "gap"):
                # By way of far negative numbers, so that no update meets a number that is still in use.
                self._file.db.execute(f"UPDATE {table} SET first = ? - first, last = last - ?", (shift - FAR, shift))
                self._file.db.execute(f"UPDATE {table} SET first = ? - first", (-FAR,))
            self._file.db.execute("DELETE FROM gap WHERE last <= 0")
            self._file.db.execute("UPDATE gap SET first = 1 WHERE first <= 0")
            self._set("last", position.last - shift)
            self._set("acked", 0)
            self._set("shed", self._file.value("SELECT coalesce(sum(last - first + 1), 0) FROM gap"))
            self._set("epoch", str(uuid.uuid4()))
            if owner is not None:
                self._set("owner", owner)
        self._owner = owner or self._owner

    def newest(
        self, limit: int, start: int | None = None, end: int | None = None, room: int = 2**62
    ) -> list[pa.RecordBatch]:
        """The newest pages that hold `limit` rows with start <= time < end (epoch ms), oldest first.

        Fewer where they take `room` bytes in memory: the page that reaches it is the last.
        """
        found: list[pa.RecordBatch] = []
        with self._file.lock:
            query = (
                "SELECT p.body, p.size, p.last - p.first + 1, k.schema FROM page p JOIN kind k ON k.id = p.kind"
                " WHERE p.time_max >= ? AND p.time_min < ? ORDER BY p.first DESC"
            )
            low, high = start if start is not None else -(2**62), end if end is not None else 2**62
            with closing(self._file.db.execute(query, (low, high))) as cursor:
                for body, size, count, schema in cursor:
                    try:
                        whole = logpages.batch_of(schema, body, size, count)
                    except DamagedPage:  # told as a gap when it is its turn to be sent
                        continue
                    batch = _within(whole, start, end)
                    batch = batch.slice(max(0, batch.num_rows - limit))
                    if batch.num_rows:
                        found.append(batch)
                        limit, room = limit - batch.num_rows, room - batch.nbytes
                    if min(limit, room) <= 0:
                        break
        return found[::-1]

    @property
    def used(self) -> int:
        """Bytes in use on the disk, the journals included."""
        with self._file.lock:
            return self._file.taken + sum(map(size_of, self._beside))

    def _shipment(self, at: int, max_rows: int, epoch: str) -> Shipment | Gap | None:
        query = (
            "SELECT p.first, p.last, p.body, p.size, p.kind, k.schema, k.version"
            " FROM page p JOIN kind k ON k.id = p.kind"
            " WHERE p.first >= ifnull((SELECT max(first) FROM page WHERE first <= ?1), ?1) AND p.first < ?2"
            " AND p.last >= ?1 ORDER BY p.first"
        )
        batches: list[pa.RecordBatch] = []
        version, wanted, expected = "", None, at
        damaged: tuple[int, DamagedPage] | None = None
        with closing(self._file.db.execute(query, (at, at + max_rows))) as cursor:
            for first, last, body, size, kind, schema, page_version in cursor:
                if first > expected or wanted not in (None, kind):
                    break
                try:
                    whole = logpages.batch_of(schema, body, size, last - first + 1)
                except DamagedPage as error:
                    damaged = None if batches else (last, error)
                    break
                batch = whole.slice(expected - first, at + max_rows - expected)
                version, wanted = page_version, kind
                batches.append(batch)
                expected += batch.num_rows
        if damaged:
            return self._give_up_page(at, *damaged, epoch)
        return Shipment(at, version, tuple(batches), epoch) if batches else None

    def _give_up_page(self, at: int, last: int, error: DamagedPage, epoch: str) -> Gap:
        """The rows behind a page that cannot be read must not wait for ever."""
        logger.error("Rows %d to %d of the log are damaged (%s): told as a gap", at, last, error)
        moment = int(time.time() * 1000)
        self._note_gap(at, last, moment, moment, "damaged")
        return Gap(at, last, moment, moment, "damaged", epoch)

    def _hole(self, at: int, stop: int, epoch: str) -> Gap:
        """Rows without a page or a gap: sent once and deleted, and asked for again by a center that lost them."""
        after = self._file.row(
            "SELECT first, time_min FROM page WHERE first > ? AND first <= ? ORDER BY first LIMIT 1", at, stop
        )
        end, moment = (after[0] - 1, after[1]) if after else (stop, int(time.time() * 1000))
        return Gap(at, end, moment, moment, "no_longer_stored", epoch)

    def _append(self, pages: Sequence[Page], kinds: Sequence[Told | None], lost: Lost | None) -> int:
        last = self._position().last
        # Pages of one kind follow each other. Each call of SQLite gives up Python's lock, for which this thread and
        # those that answer then queue.
        for told, alike in groupby(zip(kinds, pages, strict=True), itemgetter(0)):
            kind = self._kinds.id_of(*told) if told else None
            for _, page in alike:
                last = self._insert(page, kind, last)
        if lost and lost.count:
            self._note_gap(last + 1, last + lost.count, lost.time_min, lost.time_max, lost.reason)
            last += lost.count
        self._set("last", last)
        return last

    def _fitting(self, pages: Sequence[Page]) -> tuple[list[Told | None], int]:
        """What tells of each page's kind, None where there is no room for the page; and the bytes of the others.

        These are at most: where none of their kinds is described yet.
        """
        kinds: list[Told | None] = []
        taken, described, before = 0, 0, None
        for page in reversed(pages):
            told, size = (page.pipeline_version, page.described), len(page.body) + ROW_BYTES
            is_new = told != before
            if is_new:
                size += self._kinds.size(len(page.described))
            if 4 * (taken + size) > self._cap:
                kinds.append(None)
                continue
            kinds.append(told)
            taken, described, before = taken + size, described + is_new, told
        # To describe a kind changes an index page anywhere, which goes through SQLite's journal.
        return kinds[::-1], taken + described * self._file.page_bytes

    def _insert(self, page: Page, kind: int | None, last: int) -> int:
        first, last = last + 1, last + page.count
        if kind is None:
            self._note_gap(first, last, page.time_min, page.time_max, "storage_limit")
        else:
            row = (first, last, page.time_min, page.time_max, kind, page.size, page.body)
            self._file.db.execute("INSERT INTO page VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return last

    def _make_room(self, incoming: int) -> bool:
        """Delete the oldest pages until `incoming` bytes fit: acknowledged ones are the oldest, so they go first.

        False where descriptions are to go before more pages do.
        """
        excess = self._excess(incoming)
        if excess <= 0:
            return True
        acked = self._position().acked
        doomed, before = [], None
        query = (
            "SELECT p.first, p.last, p.time_min, p.time_max, length(p.body), p.kind, length(k.schema)"
            " FROM page p JOIN kind k ON k.id = p.kind ORDER BY p.first"
        )
        with closing(self._file.db.execute(query)) as cursor:
            for first, last, low, high, length, kind, described in cursor:
                if excess <= 0 or self._kinds.are_loose:
                    break
                doomed.append((first, last, low, high))
                excess -= length + ROW_BYTES
                if kind != before:
                    self._kinds.loosen(described)
                    before = kind
        for first, last, low, high in doomed:
            self._file.db.execute("DELETE FROM page WHERE first = ?", (first,))
            if last > acked:
                self._note_gap(max(first, acked + 1), last, low, high, "storage_limit")
        return excess <= 0 or not self._kinds.are_loose

    def _excess(self, incoming: int) -> int:
        """Bytes that are to go before `incoming` ones fit."""
        # What is deleted makes room in the file, which does not shrink; the journal comes on top of it.
        reserve = max(self._file.journal_room, incoming) + len(self._beside) * self.queue_bytes
        return self._file.used + incoming + SLACK_PAGES * self._file.page_bytes - (self._cap - reserve)

    def _note_gap(self, first: int, last: int, low: int, high: int, reason: str) -> None:
        """Record a gap, as one with the gap before it where they touch, so that long outages do not pile records up.

        Rows that the center refused stay readable here, and may go for want of room later: a row is in one gap.
        """
        told = self._file.row(
            "SELECT coalesce(sum(min(last, ?2) - max(first, ?1) + 1), 0),"
            " coalesce(max(last) FILTER (WHERE first < ?1), 0) FROM gap WHERE first <= ?2 AND last >= ?1",
            first,
            last,
        )
        counted, until = told or (0, 0)
        self._set("shed", self._position().shed + last - first + 1 - counted)
        self._file.db.execute("DELETE FROM gap WHERE first >= ? AND last <= ?", (first, last))
        self._file.db.execute(
            "UPDATE OR REPLACE gap SET first = ? WHERE first BETWEEN ? AND ?", (last + 1, first, last)
        )
        first = max(first, until + 1)
        if first > last:
            return
        before = self._file.row("SELECT first FROM gap WHERE last = ? AND reason = ?", first - 1, reason)
        if before:
            change = "UPDATE gap SET last = ?, time_min = min(time_min, ?), time_max = max(time_max, ?) WHERE first = ?"
            self._file.db.execute(change, (last, low, high, before[0]))
        else:
            self._file.db.execute("INSERT INTO gap VALUES (?, ?, ?, ?, ?)", (first, last, low, high, reason))

    def _position(self) -> Position:
        values = dict(self._file.db.execute("SELECT name, value FROM meta").fetchall())
        return Position(str(values["epoch"]), int(values["last"]), int(values["acked"]), int(values["shed"]))

    def _set(self, name: str, value: object) -> None:
        self._file.db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


def _within(batch: pa.RecordBatch, start: int | None, end: int | None) -> pa.RecordBatch:
    if start is None and end is None:
        return batch
    times = batch.column("time").view(pa.int64()).to_numpy()
    keep = (times >= (start if start is not None else -(2**62))) & (times < (end if end is not None else 2**62))
    return batch.filter(pa.array(keep))
