"""Rows of many tables in the order of their keys, some at a time: no copy of all of them is ever made.

Most pages are in order already. Then the rows of a piece are a slice of each page that has a part in them, and only
these are put together and rearranged, in memory that the next piece uses again.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from logs import pages
from logs.schemas import RESERVED

WORKERS = 2  # Arrow works without Python's lock: pieces are made while the one before them is written
PAGE, ROW = RESERVED[:2]

Numbers = npt.NDArray[np.int64]


class Ordered:
    """Rows of one schema by (time, page, row). `times` are theirs, epoch ms; `weight` is in bytes, decoded."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self.schema: pa.Schema = tables[0].schema
        self.weight = sum(map(pages.weight, tables))
        self._tables = [_in_order(table) for table in tables]
        self._starts = np.cumsum([0, *map(len, self._tables)])
        keys = [np.concatenate(column) for column in zip(*map(_keys, self._tables), strict=True)]
        self._order = np.lexsort(keys)
        self.times: Numbers = keys[-1][self._order]

    def __len__(self) -> int:
        return len(self.times)

    def pieces(self, rows: int) -> Iterator[pa.Table]:
        """All of them in order, so many at a time."""
        waiting: deque[Future[pa.Table]] = deque()
        with ThreadPoolExecutor(WORKERS) as pool:
            for begin in range(0, len(self), rows):
                waiting.append(pool.submit(self._piece, begin, begin + rows))
                if len(waiting) > WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _piece(self, begin: int, end: int) -> pa.Table:
        """The rows from a place in the order until before another. Of each table they follow one another."""
        places = self._order[begin:end]
        owners = np.searchsorted(self._starts, places, side="right") - 1
        which, at, owner, counts = np.unique(owners, return_index=True, return_inverse=True, return_counts=True)
        firsts = places[at]
        parts = [
            self._tables[table].slice(first - self._starts[table], count)
            for table, first, count in zip(which, firsts, counts, strict=True)
        ]
        together = pa.concat_tables(parts).combine_chunks()
        if len(parts) == 1:
            return together
        return together.take(pa.array(places - firsts[owner] + (np.cumsum(counts) - counts)[owner]))


def _keys(table: pa.Table) -> tuple[Numbers, Numbers, Numbers]:
    """Row, page and time, as `numpy.lexsort` wants them: what counts most is the last."""
    row, page, time = (table.column(name).cast(pa.int64()).to_numpy() for name in (ROW, PAGE, "time"))
    return row, page, time


def _in_order(table: pa.Table) -> pa.Table:
    order = np.lexsort(_keys(table))
    is_in_order = bool((order[1:] > order[:-1]).all())
    return table if is_in_order else table.combine_chunks().take(pa.array(order))
