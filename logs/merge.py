"""Rows in true global time order, out of pieces whose time ranges overlap.

Pieces come by the newest (or oldest) time they may hold. As soon as enough rows lie beyond that of the next piece, the
rest need not be read: the newest hundred rows of twenty edges take about twenty pages, however many there are.
"""

import dataclasses
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from django.utils.translation import gettext

from common.errors import Conflict
from logs import pages
from logs.query import Answer, Cursor, Keys, Piece, Query, Rearranged, Rows, Source, Status
from logs.schemas import TIME

PIECE_ROWS = 1000  # what looking at a piece costs at least, in rows
HELD_BYTES = 192 * 1024**2  # of decoded rows that a walk keeps for its next answers
RETRIES = 20  # each needs pages to become a segment just between being listed and being read


class Records(NamedTuple):
    """Rows as Python values, and where to go on; None when these are the last."""

    rows: list[dict[str, Any]]
    next: Cursor | None


def answer(sources: Sequence[Source], query: Query) -> Answer:
    """The first rows of a query, of one schema and as many as the limits allow."""
    return _filled(sources, query, is_one_schema=True).answer()


def records(sources: Sequence[Source], query: Query) -> Records:
    """The first rows of a query as Python values, whatever their schemas; fewer than the limit where rows are large."""
    pool = _filled(sources, query, is_one_schema=False)
    order, _, following = pool.answered()
    return Records(pool.records(order), following)


class Batch(NamedTuple):
    """Rows of a walk: a table for each schema, each in order, and the cursor after them, None after the last."""

    tables: list[pa.Table]
    next: Cursor | None


def walk(sources: Sequence[Source], query: Query, total: int | None = None) -> Iterator[Batch]:
    """All rows of a query (or the first `total`), batch after batch, each within the query's limits.

    Decodes what overlaps once, in memory that does not grow. A batch may be empty while filters let no rows through.
    """
    left = total
    while True:
        query = dataclasses.replace(query, limit=_least(query.limit, left))
        pool = _Pool(query, is_one_schema=False, holds=HELD_BYTES)
        reader = _Reader(sources, query)
        while not pool.is_short:
            pool.fill(reader)
            if reader.is_stale:
                break
            order, _, following = pool.answered()
            left = None if left is None else left - len(order)
            following = None if left == 0 else following
            yield Batch(pool.tables(order), following)
            if following is None:
                return
            query = dataclasses.replace(query, cursor=following, limit=_least(query.limit, left))
            pool.go_on(query)
            reader.go_on(query)


def _least(limit: int, left: int | None) -> int:
    return limit if left is None else min(limit, left)


def _filled(sources: Sequence[Source], query: Query, *, is_one_schema: bool) -> "_Pool":
    """A pool that can answer. Begins again when a piece went away meanwhile: its rows are then in another one."""
    for _ in range(RETRIES):
        pool, reader = _Pool(query, is_one_schema=is_one_schema), _Reader(sources, query)
        pool.fill(reader)
        if not reader.is_stale:
            return pool
    raise Conflict(gettext("The logs are being rearranged faster than they can be read: try again."))


class _Reader:
    """The pieces of all sources, one after another, and how much may still be looked at."""

    def __init__(self, sources: Sequence[Source], query: Query) -> None:
        self._pieces: Iterator[Piece] = heapq.merge(
            *(source.pieces(query) for source in sources), key=lambda piece: piece.reach, reverse=True
        )
        self.is_stale = False
        self._next = self._following()
        self.go_on(query)

    def go_on(self, query: Query) -> None:
        """Allows as much again, for the next answer."""
        self.query = query
        self.rows = 0
        self.bytes = 0

    @property
    def reach(self) -> int | None:
        """Beyond this no unread row comes; None when all is read."""
        return None if self._next is None else self._next.reach

    @property
    def is_spent(self) -> bool:
        """Whether as much was looked at as one answer may."""
        return self.rows > self.query.max_scanned_rows or self.bytes > self.query.max_scanned_bytes

    def read(self) -> Rows | None:
        """The next piece's rows; None when it is gone."""
        piece = self._next
        if piece is None:
            return None
        rows = piece.read()
        self.is_stale = rows is None
        # What reaches back before the cursor has to be looked at for every answer: only what is beyond it counts, so
        # that each answer comes further than the one before.
        cursor = self.query.cursor
        if rows is not None and (cursor is None or piece.reach < self.query.order.sign * cursor.time):
            self.rows += max(PIECE_ROWS, len(rows.table))
            self.bytes += rows.table.nbytes
        self._next = self._following()
        return rows

    def _following(self) -> Piece | None:
        try:
            return next(self._pieces, None)
        except Rearranged:
            self.is_stale = True
            return None


@dataclass
class _Chunk:
    """Rows that may be answered: their keys, the first row's first, and where in the table each is."""

    table: pa.Table
    kind: int
    row_bytes: int
    time: Keys
    page: Keys
    row: Keys
    at: Keys

    def __len__(self) -> int:
        return len(self.at)

    @property
    def held_bytes(self) -> int:
        return len(self.table) * self.row_bytes

    def beyond(self, key: Keys) -> "_Chunk":
        """What comes after a row's key (time, page, row)."""
        place = int(np.count_nonzero(~_is_after(self.time, self.page, self.row, key)))
        kept = {name: getattr(self, name)[place:] for name in ("time", "page", "row", "at")}
        return dataclasses.replace(self, **kept)

    def first(self, count: int) -> "_Chunk":
        """Its first rows, without holding on to the memory of the others."""
        return _Chunk(
            table=self.table.take(self.at[:count]),
            kind=self.kind,
            row_bytes=self.row_bytes,
            time=self.time[:count],
            page=self.page[:count],
            row=self.row[:count],
            at=np.arange(min(count, len(self)), dtype=np.int64),
        )


class _Pool:
    """Candidates for an answer. All keys in it are multiplied with the order's sign: the largest comes first.

    `holds` is how many bytes of rows may be kept for answers after the first; without it, none are.
    """

    def __init__(self, query: Query, *, is_one_schema: bool, holds: int = 0) -> None:
        self.query = query
        self.is_one_schema = is_one_schema
        self.holds = holds
        self.chunks: list[_Chunk] = []
        self.schemas: list[pa.Schema] = []
        self.horizon: int | None = None
        self.is_short = False
        self.unsettled: list[_Chunk] = []
        self._unsettle()

    def fill(self, reader: _Reader) -> None:
        """Reads pieces until what remains cannot come before what is here, or enough was looked at."""
        while (reach := reader.reach) is not None:
            if self._is_enough_beyond(reach) or reader.is_spent:
                break
            rows = reader.read()
            if rows is None:
                return
            self._add(rows)
        self.horizon = reader.reach

    def go_on(self, query: Query) -> None:
        """Lets go of what was answered, which is all before the query's cursor."""
        self.query = query
        if query.cursor:
            key = query.order.sign * np.array([query.cursor.time, query.cursor.page, query.cursor.row])
            self.chunks = [chunk for chunk in (each.beyond(key) for each in self.chunks) if len(chunk)]
        self._unsettle()

    def answer(self) -> Answer:
        """The rows that are answered, which have one schema."""
        order, status, following = self.answered()
        table = self.table(order) if len(order) else pa.table({"time": pa.array([], TIME)})
        return Answer(table, status, following)

    def answered(self) -> tuple[Keys, Status, Cursor | None]:
        """The rows that are answered as (chunk, row in the chunk) pairs, why no more, and where to go on."""
        order, times = self._sorted()
        if self.horizon is not None:
            order = order[: int(np.searchsorted(-times, -self.horizon, side="left"))]
        count, status = self.cut(order) if len(order) else (0, Status.ALL)
        if status is not Status.ALL or (count == self.query.limit and self.horizon is not None):
            status = Status.RECORD_LIMITED if status is Status.ALL else status
            return order[:count], status, self.cursor(order[count - 1])
        if self.horizon is None:
            return order, Status.ALL, None
        sign = self.query.order.sign
        return order, Status.BYTE_LIMITED, Cursor.before(self.query.order, sign * self.horizon)

    def _sorted(self) -> tuple[Keys, Keys]:
        """All rows, the first first, as (chunk, row in the chunk) pairs, and their times."""
        if not self.chunks:
            return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.int64)
        time, page, row = (np.concatenate([getattr(c, key) for c in self.chunks]) for key in ("time", "page", "row"))
        sorting = np.lexsort((row, page, time))[::-1]
        time, page, row = time[sorting], page[sorting], row[sorting]
        # While a page becomes a segment, both may have been listed: the same key is the same row.
        is_first = np.append(True, (time[1:] != time[:-1]) | (page[1:] != page[:-1]) | (row[1:] != row[:-1]))
        number = np.repeat(np.arange(len(self.chunks)), [len(c) for c in self.chunks])
        position = np.concatenate([np.arange(len(c)) for c in self.chunks])
        places = sorting[is_first]
        return np.stack((number[places], position[places]), axis=1), time[is_first]

    def cut(self, order: Keys) -> tuple[int, Status]:
        """How many of the rows are answered, and why no more."""
        numbers = order[:, 0]
        used = np.cumsum(np.array([chunk.row_bytes for chunk in self.chunks])[numbers])
        affordable = max(1, int(np.searchsorted(used, self.query.max_bytes, side="right")))
        kinds = np.array([chunk.kind for chunk in self.chunks])[numbers]
        others = np.flatnonzero(kinds != kinds[0]) if self.is_one_schema else kinds[:0]
        alike = int(others[0]) if len(others) else len(order)
        count = min(self.query.limit, affordable, alike)
        if count == len(order):
            return count, Status.ALL
        if count == self.query.limit:
            return count, Status.RECORD_LIMITED
        return count, Status.SCHEMA_CHANGE if count == alike else Status.BYTE_LIMITED

    def cursor(self, place: Keys) -> Cursor:
        """The cursor after that row."""
        chunk, position, sign = self.chunks[place[0]], place[1], self.query.order.sign
        time, page, row = (sign * int(key[position]) for key in (chunk.time, chunk.page, chunk.row))
        return Cursor(self.query.order, time, page, row)

    def tables(self, order: Keys) -> list[pa.Table]:
        """Those rows, in that order, those of each schema by themselves."""
        kinds = np.array([chunk.kind for chunk in self.chunks], dtype=np.int64)[order[:, 0]]
        return [self.table(order[kinds == kind]) for kind in np.unique(kinds)]

    def table(self, order: Keys) -> pa.Table:
        """Those rows, which have one schema, in that order."""
        parts = self._parts(order)
        if len(parts) == 1:
            return parts[0][1].combine_chunks()
        whole = pa.concat_tables([part for _, part in parts]).combine_chunks()
        return whole.take(np.argsort(np.concatenate([places for places, _ in parts])))

    def records(self, order: Keys) -> list[dict[str, Any]]:
        """Those rows as Python values, in that order."""
        found: list[dict[str, Any]] = [{}] * len(order)
        for places, part in self._parts(order):
            for place, record in zip(places, part.to_pylist(), strict=True):
                found[place] = record
        return found

    def _parts(self, order: Keys) -> list[tuple[Keys, pa.Table]]:
        """For each chunk: where its rows stand in that order, and the rows."""
        parts = []
        for number in np.unique(order[:, 0]):
            places = np.flatnonzero(order[:, 0] == number)
            chunk = self.chunks[number]
            parts.append((places, chunk.table.take(chunk.at[order[places, 1]])))
        return parts

    def _add(self, rows: Rows) -> None:
        sign = self.query.order.sign
        time = sign * rows.table.column("time").cast(pa.int64()).to_numpy()
        page, row = sign * rows.page, sign * rows.row
        asked = self._is_asked(time, page, row)
        if self.query.filters.is_any and asked.any():
            asked &= self.query.filters.mask(rows.table)
        wanted = np.flatnonzero(asked)
        if not len(wanted):
            return
        at = wanted[np.lexsort((row[wanted], page[wanted], time[wanted]))[::-1]]
        if not self.holds:
            at = at[: self.query.limit + 1]  # one more than is answered, to know whether there are more
        table = self.query.selection.apply(rows.table)
        chunk = _Chunk(
            table=table,
            kind=self._kind(table.schema),
            row_bytes=-(-pages.weight(table) // len(table)),
            time=time[at],
            page=page[at],
            row=row[at],
            at=at,
        )
        self._hold(chunk.first(len(at)) if 2 * len(at) < len(table) else chunk)

    def _is_asked(self, time: Keys, page: Keys, row: Keys) -> Any:
        query, sign = self.query, self.query.order.sign
        asked = np.ones(len(time), dtype=bool)
        if query.start is not None:
            asked &= sign * time >= query.start
        if query.end is not None:
            asked &= sign * time <= query.end
        if query.cursor:
            key = sign * np.array([query.cursor.time, query.cursor.page, query.cursor.row])
            asked &= _is_after(time, page, row, key)
        return asked

    def _kind(self, schema: pa.Schema) -> int:
        for kind, known in enumerate(self.schemas):
            if known.equals(schema):
                return kind
        self.schemas.append(schema)
        return len(self.schemas) - 1

    def _is_enough_beyond(self, reach: int) -> bool:
        """Whether the rows that come before everything of that reach already end the answer."""
        rows, used, kinds, active = self.settled_rows, self.settled_bytes, set(self.settled_kinds), []
        for chunk in self.unsettled:
            beyond = int(np.searchsorted(-chunk.time, -reach, side="left"))
            rows += beyond
            used += beyond * chunk.row_bytes
            if beyond:
                kinds.add(chunk.kind)
            if beyond < len(chunk):
                active.append(chunk)
            else:
                self._settle(chunk)
        self.unsettled = active
        return (
            rows > self.query.limit
            or (used > self.query.max_bytes and rows > 1)  # one row is answered however large it is
            or (self.is_one_schema and len(kinds) > 1)
        )

    def _settle(self, chunk: _Chunk) -> None:
        self.settled_rows += len(chunk)
        self.settled_bytes += len(chunk) * chunk.row_bytes
        self.settled_kinds.add(chunk.kind)

    def _unsettle(self) -> None:
        """Counts anew what is settled."""
        self.held_bytes = sum(chunk.held_bytes for chunk in self.chunks)
        self.settled_rows, self.settled_bytes = 0, 0
        self.settled_kinds: set[int] = set()
        self.unsettled = list(self.chunks)

    def _hold(self, chunk: _Chunk) -> None:
        """Keeps a chunk, and no more memory than a few answers need."""
        self.chunks.append(chunk)
        self.unsettled.append(chunk)
        self.held_bytes += chunk.held_bytes
        if self.held_bytes > max(self.holds, 4 * self.query.max_bytes):
            self._shrink()

    def _shrink(self) -> None:
        """Lets go of rows that come too late for the answer, keeping one to know that there are more."""
        order = self._sorted()[0]
        count = self.cut(order)[0] + 1
        kept = [int(n) for n in np.bincount(order[:count, 0], minlength=len(self.chunks))]
        self.chunks = [chunk.first(n) for chunk, n in zip(self.chunks, kept, strict=True) if n]
        self.is_short = True
        self._unsettle()


def _is_after(time: Keys, page: Keys, row: Keys, key: Keys) -> Any:
    """Whether rows come after that one. All are multiplied with the order's sign."""
    at_time, at_page, at_row = (int(part) for part in key)
    return (time < at_time) | ((time == at_time) & ((page < at_page) | ((page == at_page) & (row < at_row))))
