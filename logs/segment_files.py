"""The files of segments: rows of one schema in the order of their keys, in groups that can be read by themselves.

Parquet, for whoever wants to read it too; the few schemas that Parquet has no word for (a struct without fields, say)
are Arrow IPC files. Beside the columns of the rows each has the key of the row, and when its page arrived.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from logs import schemas, segment_encoding, statistics
from logs.filters import Filters
from logs.query import Keys
from logs.segment_order import Ordered

PAGE, ROW, ARRIVED = KEYS = schemas.RESERVED
PARQUET, ARROW = "parquet", "arrow"
GROUP_ROWS = 20_000
GROUP_BYTES = 16 * 1024**2
PIECE_GROUPS = 4  # that are put in order at once
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


def write(sink: Any, rows: Ordered, form: str) -> None:
    """Writes rows in order. The bounds of the groups stand in the file, so that a reader picks without reading."""
    length = max(1, min(GROUP_ROWS, GROUP_BYTES * len(rows) // max(1, rows.weight)))
    bounds = [
        (len(some), int(some[0]), int(some[-1]))
        for some in (rows.times[at : at + length] for at in range(0, len(rows), length))
    ]
    schema = rows.schema.with_metadata({_GROUPS: json.dumps(bounds)})
    pieces = rows.pieces(length * PIECE_GROUPS)
    if form == PARQUET:
        first = next(pieces, rows.schema.empty_table())
        repeating = segment_encoding.with_dictionary(first.slice(0, length))
        with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=repeating) as writer:
            for piece in itertools.chain([first], pieces):
                writer.write_table(piece.replace_schema_metadata(schema.metadata), row_group_size=length)
        return
    with pa.ipc.new_file(sink, schema, options=_WRITE) as writer:
        for piece in pieces:
            writer.write_table(piece.replace_schema_metadata(schema.metadata), max_chunksize=length)


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
