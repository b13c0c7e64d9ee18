"""Files of bounded size that rows are written to as they come: Arrow, Parquet or pandas-records JSON."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from logs import formats

WRITTEN_ROWS = 20_000  # at once: a record batch, a row group
MOST_SCHEMAS = 32  # files open at once
RESERVE = 32 * 1024  # a file's head and foot, for the column counts that pages have


@dataclass(frozen=True)
class Finished:
    """A durable file."""

    number: int
    rows: int
    size: int


class Encoder(Protocol):
    """A format. `bound` is the most that a table may add to the file."""

    def bound(self, table: pa.Table) -> int: ...

    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class _Arrow:
    """An Arrow IPC file (Feather V2), lz4."""

    def __init__(self, file: pa.NativeFile, schema: pa.Schema) -> None:
        self.writer = pa.ipc.new_file(file, schema, options=formats.COMPRESSED)
        self.leaves = _leaves(schema)
        self.foot = 0

    def bound(self, table: pa.Table) -> int:
        # Padding, the message and, of what cannot be compressed, the codec's own bytes.
        return int(table.nbytes * 1.02) + 512 * self.leaves + self.foot

    def write(self, table: pa.Table) -> None:
        self.writer.write_table(table.combine_chunks())
        self.foot += 32  # a Block is 24 bytes

    def close(self) -> None:
        self.writer.close()


class _Parquet:
    """Parquet, zstd; a row group each time."""

    def __init__(self, file: pa.NativeFile, schema: pa.Schema) -> None:
        self.writer = pq.ParquetWriter(file, schema, compression="zstd", version="2.6")
        self.leaves = _leaves(schema)
        self.foot = 0

    def bound(self, table: pa.Table) -> int:
        return int(table.nbytes * 1.1) + 1024 * self.leaves + self.foot

    def write(self, table: pa.Table) -> None:
        self.writer.write_table(table, row_group_size=len(table))
        self.foot += 512 * self.leaves  # where each column chunk is, and its statistics

    def close(self) -> None:
        self.writer.close()


class _Records:
    """One JSON list of objects, `time` in epoch ms: what `pandas.read_json(orient="records")` reads."""

    def __init__(self, file: pa.NativeFile, schema: pa.Schema) -> None:
        self.file = file
        self.made: tuple[pa.Table, bytes] | None = None
        self.is_empty = True

    def bound(self, table: pa.Table) -> int:
        self.made = table, formats.records(table)
        return len(self.made[1])

    def write(self, table: pa.Table) -> None:
        text = self.made[1] if self.made and self.made[0] is table else formats.records(table)
        self.made = None
        self.file.write(b"[" if self.is_empty else b",")
        self.file.write(text.removeprefix(b"[").removesuffix(b"]"))
        self.is_empty = False

    def close(self) -> None:
        self.file.write(b"[]" if self.is_empty else b"]")


Encoding = Callable[[pa.NativeFile, pa.Schema], Encoder]
ENCODERS: dict[str, Encoding] = {
    "arrow": _Arrow,
    "parquet": _Parquet,
    "json": _Records,
}


class Files:
    """The files of one export, numbered in a folder; rows of different schemas go to different files.

    No file is larger than `limit` bytes, unless a single row is. What is not in `finish` yet may be half written.
    """

    def __init__(self, folder: Path, kind: str, limit: int, number: int = 1) -> None:
        self.folder = folder
        self.kind = kind
        self.limit = limit
        self.number = number
        self._open: dict[pa.Schema, _Open] = {}
        self._finished: list[Finished] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def is_due(self) -> bool:
        """Whether files are full, or many are open, so that it is time to `finish`."""
        return bool(self._finished) or len(self._open) > MOST_SCHEMAS

    def write(self, table: pa.Table) -> None:
        """Appends rows. Raises `OSError`."""
        for part in _parts(table, self.limit):
            file = self._file(part.schema)
            if file.rows and file.size + file.encoder.bound(part) + RESERVE > self.limit:
                self._close(part.schema)
                file = self._file(part.schema)
            file.write(part)

    def finish(self) -> list[Finished]:
        """Makes all durable and answers what was not answered before. Raises `OSError`."""
        for schema in list(self._open):
            self._close(schema)
        finished, self._finished = self._finished, []
        return finished

    def discard(self) -> None:
        """Removes files that are open."""
        for file in self._open.values():
            file.discard()
        self._open = {}

    def _file(self, schema: pa.Schema) -> "_Open":
        if schema not in self._open:
            path = path_of(self.folder, self.number, self.kind)
            self._open[schema] = _Open(self.number, path, ENCODERS[self.kind], schema)
            self.number += 1
        return self._open[schema]

    def _close(self, schema: pa.Schema) -> None:
        self._finished.append(self._open.pop(schema).close())


class _Open:
    """A file that is written under another name until it is whole."""

    def __init__(self, number: int, path: Path, encoder: Encoding, schema: pa.Schema) -> None:
        self.number = number
        self.path = path
        self.draft = path.with_name(f"{path.name}.part")
        self.file = pa.OSFile(str(self.draft), "wb")
        self.encoder = encoder(self.file, schema)
        self.rows = 0

    @property
    def size(self) -> int:
        return int(self.file.tell())

    def write(self, table: pa.Table) -> None:
        self.encoder.write(table)
        self.rows += len(table)

    def discard(self) -> None:
        with contextlib.suppress(pa.ArrowException, OSError, ValueError):
            self.encoder.close()  # or it would do so later, when the file is gone
        self.file.close()
        self.draft.unlink(missing_ok=True)

    def close(self) -> Finished:
        self.encoder.close()
        self.file.close()
        _sync(self.draft)
        self.draft.rename(self.path)
        _sync(self.path.parent)
        return Finished(self.number, self.rows, self.path.stat().st_size)


def path_of(folder: Path, number: int, kind: str) -> Path:
    return folder / f"{number:06}.{kind}"


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _parts(table: pa.Table, limit: int) -> Iterator[pa.Table]:
    """Slices that are small beside a file, so that it can be filled well."""
    each = max(1, table.nbytes // max(1, len(table)))
    rows = max(1, min(WRITTEN_ROWS, limit // 32 // each))
    for begin in range(0, len(table), rows):
        yield table.slice(begin, rows)


def _leaves(schema: pa.Schema) -> int:
    def count(kind: pa.DataType) -> int:
        return 1 + sum(count(kind.field(index).type) for index in range(kind.num_fields))

    return sum(count(field.type) for field in schema)
