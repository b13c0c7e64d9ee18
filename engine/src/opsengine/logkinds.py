"""What pages of one kind share, told once: a table of the log store's file, and when its rows go.

Which columns there are is up to callers, so there may be any number of kinds. Those that no page is of any more go when
room is needed. All pages are looked at to find them, so that is done for many at a time: an index of the pages' kinds
would make every write larger, for what only callers bring about that send ever new columns.
"""

from opsengine.logfile import LogFile

TABLE = """
CREATE TABLE IF NOT EXISTS kind (
    id INTEGER PRIMARY KEY, version TEXT NOT NULL, schema BLOB NOT NULL, UNIQUE (version, schema));
"""
COPIES = 2  # of a description: in the table, and in the index that it is found by
ROW_BYTES = 64  # what SQLite keeps beside one, roughly


class Kinds:
    """The table. The caller holds the file's lock."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._most_loose = file.journal_room // 2  # bytes that may lie there for nothing
        self._loose = self._most_loose + 1  # bytes that no page may be of now; what the run before left is not known

    @property
    def are_loose(self) -> bool:
        """Whether it is time to look for some that no page is of."""
        return self._loose > self._most_loose

    def size(self, length: int) -> int:
        """What a description of this length takes. A long one begins SQLite pages of its own."""
        page_bytes = self._file.page_bytes
        return COPIES * (length + ROW_BYTES + (page_bytes if 4 * length > page_bytes else 0))

    def id_of(self, version: str, described: bytes) -> int:
        """The id of a kind, which is described now if it is not yet."""
        find, told = "SELECT id FROM kind WHERE version = ? AND schema = ?", (version, described)
        known = self._file.db.execute(find, told).fetchone()
        if known is None:
            self._file.db.execute("INSERT INTO kind (version, schema) VALUES (?, ?)", told)
            known = self._file.db.execute(find, told).fetchone()
        return int(known[0])

    def loosen(self, length: int) -> None:
        """A page is deleted that had a description of this length: it may have been the last one."""
        self._loose += self.size(length)

    def forget(self, room: int) -> None:
        """Delete those that no page is of.

        In steps that change `room` bytes: nearly each description stands in an index page of its own.
        """
        unused, step = self._unused(), max(1, room // self._file.page_bytes)
        for at in range(0, len(unused), step):
            with self._file.committed():
                self._file.db.executemany("DELETE FROM kind WHERE id = ?", unused[at : at + step])
        self._loose = 0

    def _unused(self) -> list[tuple[int]]:
        lengths = self._file.db.execute("SELECT length(schema) FROM kind").fetchall()
        if sum(self.size(length) for (length,) in lengths) <= self._most_loose:
            return []  # and no page need be looked at
        return self._file.db.execute("SELECT id FROM kind WHERE id NOT IN (SELECT kind FROM page)").fetchall()
