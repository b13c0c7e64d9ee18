"""The log store's file: an SQLite database with a journal beside it, and what becomes of it on a bad disk.

It is opened, kept within its room, made shorter, and set aside where what it holds is no database any more. What stands
in its tables is the business of opsengine.logstore.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from opsengine.errors import StateError
from opsengine.store import sync_folder

logger = logging.getLogger(__name__)

BUSY_SECONDS = 10.0
# Rows of a page of ours fill many of SQLite's own: with larger ones than its 4 KiB a write takes a third less CPU.
LARGE_CAP, LARGE_PAGE = 2**27, 2**14
JOURNAL_ROOM = 8 * 2**20  # of a large cap; of a small one a quarter

Row = tuple[int, ...]


class LogFile:
    """One process at a time; several threads, each with `lock` held. `db` is the open database: another one after
    `begin_again` and `become`. `cap` is the size in bytes that all may take, `prepare` makes the tables of a new file.

    Raises StateError where the file cannot be opened.
    """

    def __init__(self, path: Path, cap: int, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.journal_room = min(cap // 4, JOURNAL_ROOM)
        self._cap = cap
        self._prepare = prepare
        self._journal = Path(f"{path}-wal")
        self._is_gone = self._is_set_aside = False  # a damaged file, and there is no new one yet
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open_or_begin()
        except sqlite3.Error as error:
            raise StateError(
                f"The log store {path} cannot be opened ({error}): check the disk of PERSIST_DIR and its owner."
            ) from error

    def _open_or_begin(self) -> None:
        """A damaged file must not stop inference: it is kept for a person to look at, and a new one begins."""
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if not self.path.exists() or isinstance(error, sqlite3.OperationalError):
                raise
            self._set_aside(error)
            self._open()

    def _open(self) -> None:
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            # This process's alone, so its index is kept in memory: a third file would need room on the disk, and at the
            # start there may be none.
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            if self._cap >= LARGE_CAP:  # holds for a new file only
                db.execute(f"PRAGMA page_size={LARGE_PAGE}")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")  # a commit returns when the rows are on the disk
            # At half of its room the journal is brought into the file and written from its beginning again, not cut
            # off: to take the blocks back and give them out anew was a third of what a write cost the kernel.
            page_bytes = int(db.execute("PRAGMA page_size").fetchone()[0])
            db.execute(f"PRAGMA wal_autocheckpoint={self.journal_room // 2 // page_bytes}")
            db.execute(f"PRAGMA journal_size_limit={self.journal_room}")
            self._prepare(db)
        except sqlite3.Error:
            db.close()
            raise
        self.db, self.page_bytes = db, page_bytes

    def close(self) -> None:
        """Close it."""
        with self.lock:
            self.db.close()

    def begin_again(self, error: sqlite3.Error) -> None:
        """Set a damaged file aside and begin a new one.

        Raises sqlite3.Error or OSError where the disk does not allow it: to be tried again.
        """
        with self.lock:
            self._is_gone = True
            self.db.close()
            if not self._is_set_aside:
                self._set_aside(error)
                self._is_set_aside = True
            self._open()
            self._is_set_aside = self._is_gone = False

    def is_damaged(self, error: sqlite3.Error) -> bool:
        """Whether only a new file can help: what this one holds is no database any more."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells more of the same
        return self._is_gone or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

    @property
    def is_over(self) -> bool:
        """Whether the file is longer than its cap: it was lowered."""
        return size_of(self.path) > self._cap

    def shorter(self) -> Path:
        """A copy beside the file without what is deleted, which alone does not make the file shorter.

        Raises sqlite3.Error or OSError where there is no room for it.
        """
        copy = Path(f"{self.path}.partial")
        copy.unlink(missing_ok=True)
        try:
            self.db.execute("VACUUM INTO ?", (str(copy),))
            with copy.open("rb") as file:
                os.fsync(file.fileno())
        except (sqlite3.Error, OSError):
            copy.unlink(missing_ok=True)
            raise
        return copy

    def become(self, copy: Path) -> None:
        """Go on with this copy under the file's name."""
        self.db.close()  # brings its journal into the file, and deletes it
        if self._journal.exists():  # what it holds could not be brought there
            copy.unlink()
        else:
            copy.replace(self.path)
            sync_folder(self.path.parent)
        self._open()

    def cut_journal(self, incoming: int) -> None:
        """Bring the journal into the file and cut it off before it grows too large: it counts into the cap."""
        if size_of(self._journal) + incoming > self.journal_room:
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @property
    def used(self) -> int:
        """Bytes in use within the file."""
        return (self.value("PRAGMA page_count") - self.value("PRAGMA freelist_count")) * self.page_bytes

    @property
    def taken(self) -> int:
        """Bytes in use on the disk, the journal included."""
        try:
            inside = self.used
        except sqlite3.Error:  # the disk gives nothing back
            inside = size_of(self.path)
        return inside + size_of(self._journal)

    def value(self, query: str) -> int:
        """The one number that is asked for."""
        return int(self.db.execute(query).fetchone()[0])

    def row(self, query: str, *values: object) -> Row | None:
        """The first row of the answer."""
        row: Row | None = self.db.execute(query, values).fetchone()
        return row

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the lock, and commit or roll back at the end."""
        with self.lock, self.committed():
            yield

    @contextmanager
    def committed(self) -> Iterator[None]:
        """Commit or roll back at the end."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:  # SQLite rolls back by itself when the disk is full, but not always
                self.db.execute("ROLLBACK")
            raise

    def _set_aside(self, error: sqlite3.Error) -> None:
        for part in (self.path, self._journal):  # an old journal must not be replayed into the new file
            if part.exists():
                part.replace(f"{part}.damaged")
        logger.error("The log store %s is damaged (%s): kept as .damaged, a new one is begun", self.path, error)


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
