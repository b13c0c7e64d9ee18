"""The local store of inference rows: append-only pages in one SQLite file.

SQLite, because a page, the gap that replaces one, the acknowledgement and the numbering then change in one transaction:
after a kill at any point the file says exactly which rows exist. A page (opsengine.logpages) holds rows of one kind and
one pipeline version; rows are numbered from 1 in each epoch (the uuid of the store).
"""

import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from opsengine import journal, logpages
from opsengine.errors import StateError
from opsengine.logpages import Page

logger = logging.getLogger(__name__)

TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kind (
    id INTEGER PRIMARY KEY, version TEXT NOT NULL, schema BLOB NOT NULL, UNIQUE (version, schema));
CREATE TABLE IF NOT EXISTS page (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, time_min INTEGER NOT NULL, time_max INTEGER NOT NULL,
    kind INTEGER NOT NULL REFERENCES kind, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS gap (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, time_min INTEGER NOT NULL, time_max INTEGER NOT NULL,
    reason TEXT NOT NULL);
"""
ROW_BYTES = 64  # what SQLite keeps beside a page's body, roughly
BUSY_SECONDS = 10.0
SLACK_PAGES = 16  # of SQLite's own: index pages, and what a deletion changes
# Rows of a page of ours fill many of SQLite's own: with larger ones than its 4 KiB a write takes a third less CPU.
LARGE_CAP, LARGE_PAGE = 2**27, 2**14
JOURNAL_RESERVE = 8 * 2**20  # of a large cap; of a small one a quarter
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


@dataclass(frozen=True, slots=True)
class Shipment:
    """Consecutive rows of one schema and one pipeline version."""

    first: int
    pipeline_version: str
    batches: tuple[pa.RecordBatch, ...]

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
    """One process at a time; safe for several threads. `cap` is the size in bytes that the store may take."""

    def __init__(self, path: Path, cap: int) -> None:
        self._cap = cap
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = self._open(path, cap)
        except sqlite3.DatabaseError as error:
            if not path.exists() or isinstance(error, sqlite3.OperationalError):
                raise StateError(
                    f"The log store {path} cannot be opened ({error}): check the disk of PERSIST_DIR and its owner."
                ) from error
            # A damaged file must not stop inference: it is kept for a person to look at, and a new epoch begins.
            for part in (path, Path(f"{path}-wal")):  # an old journal must not be replayed into the new file
                if part.exists():
                    part.replace(f"{part}.damaged")
            logger.error("The log store %s is damaged (%s): kept as .damaged, a new one is begun", path, error)
            self._db = self._open(path, cap)
        self._page_bytes = int(self._value("PRAGMA page_size"))
        self._journal = Path(f"{path}-wal")
        self._beside = journal.paths(path.parent)

    @staticmethod
    def _open(path: Path, cap: int) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            # This process's alone, so its index is kept in memory: a third file would need room on the disk, and at the
            # start there may be none.
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            if cap >= LARGE_CAP:  # holds for a new file only
                db.execute(f"PRAGMA page_size={LARGE_PAGE}")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")  # a commit returns when the rows are on the disk
            # At half of its room the journal is brought into the file and written from its beginning again, not cut
            # off: to take the blocks back and give them out anew was a third of what a write cost the kernel.
            room, page_bytes = _journal_room(cap), int(db.execute("PRAGMA page_size").fetchone()[0])
            db.execute(f"PRAGMA wal_autocheckpoint={room // 2 // page_bytes}")
            db.execute(f"PRAGMA journal_size_limit={room}")
            db.executescript(TABLES)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (str(uuid.uuid4()),))
            db.execute("INSERT OR IGNORE INTO meta VALUES ('last', 0), ('acked', 0), ('shed', 0), ('owner', NULL)")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @property
    def position(self) -> Position:
        """Epoch and counters."""
        with self._lock:
            return self._position()

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
        with self._lock:
            row: tuple[str | None] = self._db.execute("SELECT value FROM meta WHERE name = 'owner'").fetchone()
            return row[0]

    def set_owner(self, edge_id: str) -> None:
        """Ship this epoch as that edge."""
        with self._transaction():
            self._set("owner", edge_id)

    def append(self, pages: Sequence[Page], lost: Lost | None = None) -> int:
        """Append in one durable transaction; returns the new last number. Makes room first where the cap asks.

        Of more than a quarter of the cap the newest pages are kept.
        """
        incoming = sum(len(page.body) + ROW_BYTES for page in pages)
        room = min(incoming, self._cap // 4)
        self._empty_journal(room)
        with self._transaction():
            self._make_room(room)
            last, kind, before = self._position().last, 0, None
            for page in pages:
                # Pages of one kind follow each other. Each call of SQLite gives up Python's lock, for which this thread
                # and those that answer then queue.
                if before is None or not _are_alike(before, page):
                    kind = self._kind(page)
                last, before = self._insert(page, kind, last, incoming), page
                incoming -= len(page.body) + ROW_BYTES
            if lost and lost.count:
                self._note_gap(last + 1, last + lost.count, lost.time_min, lost.time_max, lost.reason)
                last += lost.count
            self._set("last", last)
        return last

    def next(self, max_rows: int) -> Shipment | Gap | None:
        """What to send next: a gap, or up to `max_rows` rows after the acknowledged ones; None when all is told."""
        with self._lock:
            position = self._position()
            at = position.acked + 1
            gap = self._row(
                "SELECT first, last, time_min, time_max, reason FROM gap WHERE last >= ? ORDER BY first LIMIT 1", at
            )
            if gap and gap[0] <= at:
                return Gap(at, gap[1], gap[2], gap[3], str(gap[4]))
            stop = gap[0] - 1 if gap else position.last
            if at > stop:
                return None
            return self._shipment(at, min(max_rows, stop - at + 1)) or self._hole(at, stop)

    def acknowledge(self, acked: int, told: Gap | None = None) -> None:
        """The center has, or was told of, all rows up to `acked`; `told` is the gap it was just told of.

        A gap that the center never had to be told of was in flight after all: its rows are no longer counted as shed.
        """
        with self._transaction():
            position = self._position()
            if acked <= position.acked:
                return
            self._set("acked", acked)
            gaps = self._db.execute("SELECT first, last FROM gap WHERE last <= ?", (acked,)).fetchall()
            self._db.execute("DELETE FROM gap WHERE last <= ?", (acked,))
            arrived = sum(last - first + 1 for first, last in gaps if told is None or last != told.last)
            if arrived:
                self._set("shed", max(0, position.shed - arrived))

    def resync(self, expected: int) -> None:
        """The center expects row `expected`: go back, or on, to it. What is no longer here is told as a gap then."""
        with self._transaction():
            self._set("acked", expected - 1)

    def give_up(self, first: int, last: int, reason: str) -> None:
        """Rows that the center will not take: told as a gap, still readable here."""
        with self._transaction():
            span = self._row(
                "SELECT min(time_min), max(time_max) FROM page WHERE last >= ? AND first <= ?", first, last
            )
            low, high = (int(span[0]), int(span[1])) if span and span[0] is not None else (0, 0)
            self._note_gap(first, last, low, high, reason)

    def begin_epoch(self, known: int = 0, owner: str | None = None) -> None:
        """A new epoch: rows that are not acknowledged are numbered from 1, the others stay readable here.

        For a center that knows other numbers: one that meets this edge under a new identity, or one that has rows which
        a store put back from an old copy has not. Rows up to `known` are at the center already and are not sent again.
        """
        with self._transaction():
            position = self._position()
            shift = min(position.last, max(position.acked, known))
            for table in ("page", "gap"):
                # By way of far negative numbers, so that no update meets a number that is still in use.
                self._db.execute(f"UPDATE {table} SET first = ? - first, last = last - ?", (shift - FAR, shift))
                self._db.execute(f"UPDATE {table} SET first = ? - first", (-FAR,))
            self._db.execute("DELETE FROM gap WHERE last <= 0")
            self._db.execute("UPDATE gap SET first = 1 WHERE first <= 0")
            self._set("last", position.last - shift)
            self._set("acked", 0)
            self._set("shed", self._value("SELECT coalesce(sum(last - first + 1), 0) FROM gap"))
            self._set("epoch", str(uuid.uuid4()))
            if owner is not None:
                self._set("owner", owner)

    def newest(
        self, limit: int, start: int | None = None, end: int | None = None, room: int = 2**62
    ) -> list[pa.RecordBatch]:
        """The newest pages that hold `limit` rows with start <= time < end (epoch ms), oldest first.

        Fewer where they take `room` bytes in memory: the page that reaches it is the last.
        """
        found: list[pa.RecordBatch] = []
        with self._lock:
            query = (
                "SELECT p.body, p.size, k.schema FROM page p JOIN kind k ON k.id = p.kind"
                " WHERE p.time_max >= ? AND p.time_min < ? ORDER BY p.first DESC"
            )
            low, high = start if start is not None else -(2**62), end if end is not None else 2**62
            with closing(self._db.execute(query, (low, high))) as cursor:
                for body, size, schema in cursor:
                    batch = _within(logpages.batch_of(schema, body, size), start, end)
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
        with self._lock:
            return self._used() + sum(map(_size_of, (self._journal, *self._beside)))

    def _shipment(self, at: int, max_rows: int) -> Shipment | None:
        query = (
            "SELECT p.first, p.body, p.size, p.kind, k.schema, k.version FROM page p JOIN kind k ON k.id = p.kind"
            " WHERE p.last >= ? AND p.first < ? ORDER BY p.first"
        )
        batches: list[pa.RecordBatch] = []
        version, wanted, expected = "", None, at
        with closing(self._db.execute(query, (at, at + max_rows))) as cursor:
            for first, body, size, kind, schema, page_version in cursor:
                if first > expected or wanted not in (None, kind):
                    break
                version, wanted = page_version, kind
                batch = logpages.batch_of(schema, body, size).slice(expected - first, at + max_rows - expected)
                batches.append(batch)
                expected += batch.num_rows
        return Shipment(at, version, tuple(batches)) if batches else None

    def _hole(self, at: int, stop: int) -> Gap:
        """Rows without a page or a gap: sent once and deleted, and asked for again by a center that lost them."""
        after = self._row(
            "SELECT first, time_min FROM page WHERE first > ? AND first <= ? ORDER BY first LIMIT 1", at, stop
        )
        end, moment = (after[0] - 1, after[1]) if after else (stop, int(time.time() * 1000))
        return Gap(at, end, moment, moment, "no_longer_stored")

    def _kind(self, page: Page) -> int:
        """The id of what pages of one version and one description share."""
        told = page.pipeline_version, page.described
        self._db.execute("INSERT OR IGNORE INTO kind (version, schema) VALUES (?, ?)", told)
        kind: tuple[int] = self._db.execute("SELECT id FROM kind WHERE version = ? AND schema = ?", told).fetchone()
        return kind[0]

    def _insert(self, page: Page, kind: int, last: int, incoming: int) -> int:
        """`incoming`: bytes of the page and of those after it."""
        first, last = last + 1, last + page.count
        if 4 * incoming > self._cap:
            self._note_gap(first, last, page.time_min, page.time_max, "storage_limit")
            return last
        row = (first, last, page.time_min, page.time_max, kind, page.size, page.body)
        self._db.execute("INSERT INTO page VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return last

    def _make_room(self, incoming: int) -> None:
        """Delete the oldest pages until `incoming` bytes fit: acknowledged ones are the oldest, so they go first."""
        # What is deleted makes room in the file, which does not shrink; the journal comes on top of it.
        reserve = max(_journal_room(self._cap), incoming) + len(self._beside) * self.queue_bytes
        excess = self._used() + incoming + SLACK_PAGES * self._page_bytes - (self._cap - reserve)
        if excess <= 0:
            return
        acked = self._position().acked
        doomed = []
        with closing(
            self._db.execute("SELECT first, last, time_min, time_max, length(body) FROM page ORDER BY first")
        ) as cursor:
            for first, last, low, high, length in cursor:
                if excess <= 0:
                    break
                doomed.append((first, last, low, high))
                excess -= length + ROW_BYTES
        for first, last, low, high in doomed:
            self._db.execute("DELETE FROM page WHERE first = ?", (first,))
            if last > acked:
                self._note_gap(max(first, acked + 1), last, low, high, "storage_limit")

    def _note_gap(self, first: int, last: int, low: int, high: int, reason: str) -> None:
        """Record a gap, as one with the gap before it where they touch, so that long outages do not pile records up."""
        before = self._row("SELECT first, last FROM gap WHERE last = ? AND reason = ?", first - 1, reason)
        if before:
            change = "UPDATE gap SET last = ?, time_min = min(time_min, ?), time_max = max(time_max, ?) WHERE first = ?"
            self._db.execute(change, (last, low, high, before[0]))
        else:
            self._db.execute("INSERT OR REPLACE INTO gap VALUES (?, ?, ?, ?, ?)", (first, last, low, high, reason))
        self._set("shed", self._position().shed + last - first + 1)

    def _empty_journal(self, incoming: int) -> None:
        """Bring the journal into the file and cut it off before it grows too large: it counts into the cap."""
        with self._lock:
            if _size_of(self._journal) + incoming > _journal_room(self._cap):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _used(self) -> int:
        return (int(self._value("PRAGMA page_count")) - int(self._value("PRAGMA freelist_count"))) * self._page_bytes

    def _position(self) -> Position:
        values = dict(self._db.execute("SELECT name, value FROM meta").fetchall())
        return Position(str(values["epoch"]), int(values["last"]), int(values["acked"]), int(values["shed"]))

    def _set(self, name: str, value: object) -> None:
        self._db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))

    def _value(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def _row(self, query: str, *values: object) -> tuple[int, ...] | None:
        row: tuple[int, ...] | None = self._db.execute(query, values).fetchone()
        return row

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite rolls back by itself when the disk is full, but not always
                    self._db.execute("ROLLBACK")
                raise


def _are_alike(one: Page, other: Page) -> bool:
    return one.pipeline_version == other.pipeline_version and one.described == other.described


def _journal_room(cap: int) -> int:
    return min(cap // 4, JOURNAL_RESERVE)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _within(batch: pa.RecordBatch, start: int | None, end: int | None) -> pa.RecordBatch:
    if start is None and end is None:
        return batch
    times = batch.column("time").view(pa.int64()).to_numpy()
    keep = (times >= (start if start is not None else -(2**62))) & (times < (end if end is not None else 2**62))
    return batch.filter(pa.array(keep))
