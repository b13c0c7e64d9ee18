"""What pages of one kind share, told once: a table of the log store's file, and when its rows go.

Which columns there are is up to callers, so there may be any number of kinds. Those that no page is of any more go when
room is needed. All pages are looked at to find them, so that is done for many at a time: an index of the pages' kinds
would make every write larger, for what only callers bring about that send ever new columns.
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager

TABLE = """
CREATE TABLE IF NOT EXISTS kind (
    id INTEGER PRIMARY KEY, version TEXT NOT NULL, schema BLOB NOT NULL, UNIQUE (version, schema));
"""
COPIES = 2  # of a description: in the table, and in the index that it is found by
ROW_BYTES = 64  # what SQLite keeps beside one, roughly


class Kinds:
    """The table. `page_bytes` is the size of SQLite's pages, `most_loose` of what may lie there for nothing.

    Not safe for several threads: the caller holds a lock.
    """

    def __init__(self, db: sqlite3.Connection, page_bytes: int, most_loose: int) -> None:
        self._db = db
        self._page_bytes = page_bytes
        self._most_loose = most_loose
        self._loose = most_loose + 1  # bytes that no page may be of any more; what the run before left is not known

    @property
    def are_loose(self) -> bool:
        """Whether it is time to look for some that no page is of."""
        return self._loose > self._most_loose

    def size(self, length: int) -> int:
        """What a description of this length takes. A long one begins SQLite pages of its own."""
        return COPIES * (length + ROW_BYTES + (self._page_bytes if 4 * length > self._page_bytes else 0))

    def id_of(self, version: str, described: bytes) -> int:
        """The id of a kind, which is described now if it is not yet."""
        find, told = "SELECT id FROM kind WHERE version = ? AND schema = ?", (version, described)
        known = self._db.execute(find, told).fetchone()
        if known is None:
            self._db.execute("INSERT INTO kind (version, schema) VALUES (?, ?)", told)
            known = self._db.execute(find, told).fetchone()
        return int(known[0])

    def loosen(self, length: int) -> None:
        """A page is deleted that had a description of this length: it may have been the last one."""
        self._loose += self.size(length)

    def forget(self, committed: Callable[[], AbstractContextManager[None]], room: int) -> None:
        """Delete those that no page is of.

        In steps that change `room` bytes: nearly each description stands in an index page of its own.
        """
        unused, step = self._unused(), max(1, room // self._page_bytes)
        for at in range(0, len(unused), step):
            with committed():
                self._db.executemany("DELETE FROM kind WHERE id = ?", unused[at : at + step])
        self._loose = 0

    def _unused(self) -> list[tuple[int]]:
        lengths = self._db.execute("SELECT length(schema) FROM kind").fetchall()
        if sum(self.size(length) for (length,) in lengths) <= self._most_loose:
            return []  # and no page need be looked at
        return self._db.execute("SELECT id FROM kind WHERE id NOT IN (SELECT kind FROM page)").fetchall()
