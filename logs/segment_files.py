"""The files of segments: rows of one schema in the order of their keys, in groups that can be read by themselves.

Parquet, for whoever wants to read it too; the few schemas that Parquet has no word for (a struct without fields, say)
are Arrow IPC files. Beside the columns of the rows each has the key of the row, and when its page arrived.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from logs import pages, schemas, statistics
from logs.filters import Filters
from logs.query import Keys

PAGE, ROW, ARRIVED = KEYS = schemas.RESERVED
PARQUET, ARROW = "parquet", "arrow"
GROUP_ROWS = 20_000
GROUP_BYTES = 16 * 1024**2
_GROUPS = b"opscenter.groups"
_ARRIVED_TYPE = pa.timestamp("ms", "UTC")
_WRITE = pa.ipc.IpcWriteOptions(compression="zstd")


@dataclass(frozen=True)
class Group:
    """Some consecutive rows of a file. Times are epoch ms."""

    number: int
    rows: int
    time_min: int
    time_max: int


class Reader(Protocol):
    @property
    def groups(self) -> Sequence[Group]: ...

    @property
    def schema(self) -> pa.Schema: ...

    def read(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a group with their keys; at least these columns (`out.variable` is one) when they are given."""

    def may_hold(self, group: int, filters: Filters) -> bool:
        """Whether rows that are asked for may be in a group."""


def with_keys(table: pa.Table, page: int, arrived: int) -> pa.Table:
    """A page's rows as they stand in a segment. `arrived` is epoch ms."""
    count = len(table)
    keys = [
        pa.repeat(pa.scalar(page, pa.int64()), count),
        pa.array(np.arange(count, dtype=np.int32)),
        pa.repeat(pa.scalar(arrived, _ARRIVED_TYPE), count),
    ]
    table = table.replace_schema_metadata(None)
    for name, values in zip(KEYS, keys, strict=True):
        table = table.append_column(name, values)
    return table


def form_of(schema: pa.Schema) -> str:
    """`parquet`, where it gives back exactly what it is given, else `arrow`."""
    return _form_of(schema.remove_metadata())


@lru_cache(maxsize=256)
def _form_of(schema: pa.Schema) -> str:
    try:
        sink = pa.BufferOutputStream()
        pq.write_table(schema.empty_table(), sink)
        return PARQUET if pq.read_schema(pa.BufferReader(sink.getvalue())).equals(schema) else ARROW
    except pa.ArrowException:
        return ARROW


def write(sink: Any, parts: Sequence[pa.Table], form: str) -> None:
    """Writes the rows of tables of one schema by (time, page, row), one group after another: no second copy of all.

    The bounds of the groups stand in the file, so that a reader picks without reading.
    """
    whole = pa.concat_tables(parts)
    length = max(1, min(GROUP_ROWS, GROUP_BYTES * len(whole) // max(1, pages.weight(whole))))
    time = whole.column("time").cast(pa.int64()).to_numpy()
    order = np.lexsort((*(whole.column(name).to_numpy() for name in (ROW, PAGE)), time))
    groups = [order[at : at + length] for at in range(0, len(order), length)]
    bounds = [(len(places), int(time[places[0]]), int(time[places[-1]])) for places in groups]
    schema = whole.schema.with_metadata({_GROUPS: json.dumps(bounds)})
    begins = np.cumsum([0, *(len(part) for part in parts[:-1])])
    writer = pq.ParquetWriter if form == PARQUET else pa.ipc.new_file
    options = {"compression": "zstd"} if form == PARQUET else {"options": _WRITE}
    with writer(sink, schema, **options) as file:
        for places in groups:
            file.write_table(_rows(parts, begins, places).replace_schema_metadata(schema.metadata), len(places))


def _rows(parts: Sequence[pa.Table], begins: Keys, places: Keys) -> pa.Table:
    """The rows at these places of all parts together, in that order."""
    number = np.searchsorted(begins, places, side="right") - 1
    by_part = np.argsort(number, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(number[by_part])) + 1, len(places))
    found, begin, count = np.empty(len(places), dtype=np.int64), 0, 0
    pieces = []
    for end in ends:
        mine = by_part[begin:end]
        part = int(number[mine[0]])
        local = places[mine] - begins[part]
        low, span = int(local.min()), int(local.max() - local.min()) + 1
        if span > 2 * len(mine):  # rows that came in no order: not all between them are wanted
            pieces.append(parts[part].take(local))
            found[mine], span = count + np.arange(len(mine)), len(mine)
        else:
            pieces.append(parts[part].slice(low, span))
            found[mine] = local - low + count
        begin, count = int(end), count + span
    return pa.concat_tables(pieces).combine_chunks().take(found)


def opened(file: Any, form: str) -> Reader:
    """A reader of a file that `write` wrote. Raises `OSError` and pyarrow's errors for one that is damaged."""
    return _ParquetReader(file) if form == PARQUET else _ArrowReader(file)


def split(table: pa.Table) -> tuple[pa.Table, Keys, Keys]:
    """The rows as they came, and each one's page and row."""
    page, row = (table.column(name).cast(pa.int64()).to_numpy() for name in (PAGE, ROW))
    return table.drop_columns(list(KEYS)).replace_schema_metadata(None), page, row


def _groups(schema: pa.Schema) -> list[Group]:
    told = json.loads(schema.metadata[_GROUPS])
    return [Group(number, *values) for number, values in enumerate(told)]


class _ParquetReader:
    def __init__(self, file: Any) -> None:
        self._file = pq.ParquetFile(file)
        self.schema = self._file.schema_arrow
        self.groups = _groups(self.schema)

    def read(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = None if columns is None else [*columns, *KEYS]
        return self._file.read_row_group(group, columns=wanted, use_threads=False)

    def may_hold(self, group: int, filters: Filters) -> bool:
        return statistics.may_hold(self._file.metadata, group, filters)


class _ArrowReader:
    def __init__(self, file: Any) -> None:
        self._file = pa.ipc.open_file(file)
        self.schema = self._file.schema
        self.groups = _groups(self.schema)

    def read(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        return pa.Table.from_batches([self._file.get_batch(group)])

    def may_hold(self, group: int, filters: Filters) -> bool:
        return True
