"""Rows in true global time order, out of pieces whose time ranges overlap.

Pieces come by the newest (or oldest) time they may hold. As soon as enough rows lie beyond that of the next piece, the
rest need not be read: the newest hundred rows of twenty edges take about twenty pages, however many there are.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from logs import pages
from logs.query import Answer, Cursor, Keys, Piece, Query, Rows, Source, Status
from logs.schemas import TIME


def answer(sources: Iterable[Source], query: Query) -> Answer:
    """The first rows of a query, of one schema and as many as the limits allow."""
    pool = _Pool(query, is_one_schema=True)
    pool.fill(sources)
    order = pool.order()
    if not len(order):
        return Answer(pa.table({"time": pa.array([], TIME)}), Status.ALL, None)
    count, status = pool.cut(order)
    following = None if status is Status.ALL else pool.cursor(order[count - 1])
    return Answer(pool.table(order[:count]), status, following)


def records(sources: Iterable[Source], query: Query) -> list[dict[str, Any]]:
    """The first rows of a query as Python values, whatever their schemas; fewer than the limit where rows are large."""
    pool = _Pool(query, is_one_schema=False)
    pool.fill(sources)
    order = pool.order()
    return pool.records(order[: pool.cut(order)[0]]) if len(order) else []


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
    """Candidates for an answer. All keys in it are multiplied with the order's sign: the largest comes first."""

    def __init__(self, query: Query, *, is_one_schema: bool) -> None:
        self.query = query
        self.is_one_schema = is_one_schema
        self.chunks: list[_Chunk] = []
        self.schemas: list[pa.Schema] = []
        self.unsettled: list[_Chunk] = []
        self.settled_rows = 0
        self.settled_bytes = 0
        self.settled_kinds: set[int] = set()
        self.held_bytes = 0

    def fill(self, sources: Iterable[Source]) -> None:
        """Reads pieces until what remains cannot come before what is here."""
        pieces: Iterable[Piece] = heapq.merge(
            *(source.pieces(self.query) for source in sources), key=lambda piece: piece.reach, reverse=True
        )
        for piece in pieces:
            if self._is_enough_beyond(piece.reach):
                return
            rows = piece.read()
            if rows is not None:
                self._add(rows)

    def order(self) -> Keys:
        """All rows, the first first, as (chunk, row in the chunk) pairs."""
        if not self.chunks:
            return np.empty((0, 2), dtype=np.int64)
        time, page, row = (np.concatenate([getattr(c, key) for c in self.chunks]) for key in ("time", "page", "row"))
        number = np.repeat(np.arange(len(self.chunks)), [len(c) for c in self.chunks])
        position = np.concatenate([np.arange(len(c)) for c in self.chunks])
        return np.stack((number, position), axis=1)[np.lexsort((row, page, time))[::-1]]

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
        wanted = np.flatnonzero(self._is_asked(time, page, row))
        if not len(wanted):
            return
        # One row more than is answered, to know whether there are more.
        at = wanted[np.lexsort((row[wanted], page[wanted], time[wanted]))[::-1]][: self.query.limit + 1]
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
            at_time, at_page, at_row = (sign * key for key in (query.cursor.time, query.cursor.page, query.cursor.row))
            asked &= (time < at_time) | ((time == at_time) & ((page < at_page) | ((page == at_page) & (row < at_row))))
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

    def _hold(self, chunk: _Chunk) -> None:
        """Keeps a chunk, and no more memory than a few answers need."""
        self.chunks.append(chunk)
        self.unsettled.append(chunk)
        self.held_bytes += chunk.held_bytes
        if self.held_bytes > 4 * self.query.max_bytes:
            self._shrink()

    def _shrink(self) -> None:
        """Lets go of rows that come too late for the answer, keeping one to know that there are more."""
        order = self.order()
        count = self.cut(order)[0] + 1
        kept = [int(n) for n in np.bincount(order[:count, 0], minlength=len(self.chunks))]
        self.chunks = [chunk.first(n) for chunk, n in zip(self.chunks, kept, strict=True) if n]
        self.held_bytes = sum(chunk.held_bytes for chunk in self.chunks)
        self.settled_rows, self.settled_bytes, self.settled_kinds = 0, 0, set()
        self.unsettled = list(self.chunks)
