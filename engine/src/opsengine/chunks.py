"""Answered results of one kind, packed: what the journal holds, and what pages of the log are made of.

Results that end in the same turn of the loop are packed together, a column at a time: what they share is told once, and
a page is later made of a few long buffers instead of thousands of short arrays.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from math import prod
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import orjson

from opsengine import rows
from opsengine.fields import Array, Field
from opsengine.kept import Kept
from opsengine.rows import Answering, Facts, Result, Rows

LENGTH = struct.Struct("<I")
TOLD_BYTES = 16  # that a kind takes for a byte of what tells of it, roughly
LISTED = ("list", "text")  # columns whose values are told in JSON
LIST_BYTES = 64  # that a value of such a column takes in memory, roughly

Groups = tuple[Mapping[str, Field], ...]
Values = bytes | list[object]


class Column(NamedTuple):
    """A column of a kind: `form` is numpy's name of the number type, or one of LISTED; `shape` that of a row."""

    group: int
    name: str
    form: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What results of one kind share."""

    facts: Facts
    columns: tuple[Column, ...]
    dropped: tuple[str, ...]
    labels: tuple[str, ...]
    told: bytes  # all of this as JSON
    described: bytes  # the same with 0 for the length of every axis: results of other shapes are described alike
    is_even: bool  # numbers only: such results are packed together


@dataclass(frozen=True, slots=True)
class Chunk:
    """Results of one kind in order, an entry each in `times` (epoch ms), `counts` (rows) and `elapsed` (ns)."""

    kind: Kind
    times: list[int]
    counts: list[int]
    elapsed: list[tuple[int, ...]]
    values: list[Values]

    @property
    def count(self) -> int:
        """How many rows."""
        return sum(self.counts)

    @property
    def size(self) -> int:
        """Bytes held, roughly for lists."""
        return sum(len(v) if isinstance(v, bytes) else LIST_BYTES * len(v) for v in self.values)


class Columns(NamedTuple):
    """Rows of one kind with an entry a row: `times` (epoch ms), `elapsed` (ns; rows x stages), and each column."""

    kind: Kind
    times: Array
    elapsed: Array
    values: Sequence[Field]


_kinds = Kept[object, Kind]()
_told_kinds = Kept[bytes, Kind]()


def pack(results: Iterable[Result]) -> Iterator[Chunk]:
    """The results in chunks, in order."""
    for key, together in groupby(results, attrgetter("kind")):
        some = list(together)
        kind = _kinds.get(key)
        if kind is None:
            kind = _kind_of(some[0])
            _kinds.keep(key, kind, some[0].kind_bytes)
        for part in [some] if kind.is_even else ([one] for one in some):
            yield _packed(kind, part)


def _packed(kind: Kind, results: list[Result]) -> Chunk:
    groups = [_groups(result) for result in results]
    return Chunk(
        kind,
        [result.time for result in results],
        [result.count for result in results],
        [result.elapsed for result in results],
        [_column(column, groups) for column in kind.columns],
    )


def _groups(result: Result) -> Groups:
    arms: Mapping[str, Field] = {} if result.arms is None else {"": result.arms}
    return (result.inputs, result.outputs, result.checks, arms, *result.recorded.values())


def _column(column: Column, groups: list[Groups]) -> Values:
    group, name, form, _ = column
    if form in LISTED:
        return [value for one in groups for value in _listed(one[group][name])]
    parts = [one[group][name].tobytes() for one in groups]  # type: ignore[union-attr]  # the form tells that
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _listed(value: Field) -> list[object]:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _kind_of(result: Result) -> Kind:
    columns = tuple(
        Column(place, name, *_form(value))
        for place, group in enumerate(_groups(result))
        for name, value in group.items()
    )
    return _kind(result.facts, columns, result.dropped, tuple(result.recorded))


def _form(value: Field) -> tuple[str, tuple[int, ...]]:
    if not isinstance(value, np.ndarray):
        return "list", ()
    return (value.dtype.str, value.shape[1:]) if value.dtype.kind in "biuf" else ("text", ())


def _kind(facts: Facts, columns: tuple[Column, ...], dropped: tuple[str, ...], labels: tuple[str, ...]) -> Kind:
    plain = (*facts[:-1], [tuple(arm) for arm in facts.arms])  # orjson knows no named tuples
    told = _fitted(orjson.dumps([plain, [tuple(column) for column in columns], dropped, labels]))
    open_columns = [(*column[:-1], (0,) * len(column.shape)) for column in columns]
    described = _fitted(orjson.dumps([plain, open_columns, dropped, labels]))
    is_even = all(column.form not in LISTED for column in columns)
    return Kind(facts, columns, dropped, labels, told, described, is_even)


def _fitted(made: bytes) -> bytes:
    """The same bytes, to be kept: those that orjson made hold up to sixteen times their room."""
    return bytes(memoryview(made))


def packed_bytes(chunk: Chunk) -> list[bytes]:
    """The chunk as bytes, in pieces. Raises TypeError for values that JSON has no word for."""
    listed = [value for value in chunk.values if not isinstance(value, bytes)]
    told = [orjson.Fragment(chunk.kind.told), chunk.times, chunk.counts, chunk.elapsed, listed]
    head = orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)
    return [LENGTH.pack(len(head)), head, *(value for value in chunk.values if isinstance(value, bytes))]


def unpacked(body: bytes) -> Chunk:
    """A chunk out of its bytes. Raises ValueError where they are none."""
    (length,) = LENGTH.unpack_from(body)
    at = LENGTH.size + length
    try:
        told, times, counts, elapsed, listed = orjson.loads(body[LENGTH.size : at])
        kind = kind_again(orjson.dumps(told))
        values: list[Values] = []
        for column in kind.columns:
            if column.form in LISTED:
                values.append(listed.pop(0))
                continue
            size = np.dtype(column.form).itemsize * prod(column.shape) * sum(counts)
            values.append(body[at : at + size])
            at += size
    except (TypeError, IndexError, KeyError) as error:
        raise ValueError(f"not a chunk: {error}") from error
    return Chunk(kind, times, counts, [tuple(one) for one in elapsed], values)


def kind_again(told: bytes) -> Kind:
    """The kind that `told` or `described` of a kind tells of. Raises TypeError or ValueError where they are none."""
    kind = _told_kinds.get(told)
    if kind is None:
        kind = _kind_told(told)
        _told_kinds.keep(told, kind, TOLD_BYTES * len(told))
    return kind


def _kind_told(told: bytes) -> Kind:
    (*plain, arms), columns, dropped, labels = orjson.loads(told)
    facts = Facts._make([*plain, tuple(Answering(*arm) for arm in arms)])
    made = tuple(Column(group, name, form, tuple(shape)) for group, name, form, shape in columns)
    return _kind(facts, made, tuple(dropped), tuple(labels))


def joined(chunks: Sequence[Chunk]) -> Columns:
    """The rows of chunks of one kind, in order."""
    kind = chunks[0].kind
    counts = list(chain.from_iterable(chunk.counts for chunk in chunks))
    times = np.array([time for chunk in chunks for time in chunk.times], dtype=np.int64)
    elapsed = np.array([one for chunk in chunks for one in chunk.elapsed], dtype=np.int64)
    total = sum(counts)
    values = [_joined(column, [chunk.values[at] for chunk in chunks], total) for at, column in enumerate(kind.columns)]
    return Columns(kind, np.repeat(times, counts), np.repeat(elapsed, counts, axis=0), values)


def as_rows(columns: Columns) -> Rows:
    """The rows as answers and pages have them."""
    kind = columns.kind
    groups: list[dict[str, Field]] = [{} for _ in range(4 + len(kind.labels))]
    for column, values in zip(kind.columns, columns.values, strict=True):
        groups[column.group][column.name] = values
    inputs, outputs, checks, arms, *recorded = groups
    together = Result(
        kind.facts,
        0,
        len(columns.times),
        inputs,
        outputs,
        (),
        rows.arrays(checks),
        dict(zip(kind.labels, recorded, strict=True)),
        rows.arrays(arms).get(""),
        kind.dropped,
    )
    return rows.spread(together, columns.times, columns.elapsed)


def whole(chunks: Sequence[Chunk]) -> Rows:
    """The rows of chunks of one kind, in order, as answers and pages have them."""
    return as_rows(joined(chunks))


def _joined(column: Column, parts: list[Values], total: int) -> Field:
    if column.form in LISTED:
        values = [value for part in parts for value in part]
        return np.array(values, dtype=object) if column.form == "text" else values
    buffers = [part for part in parts if isinstance(part, bytes)]
    joined = buffers[0] if len(buffers) == 1 else b"".join(buffers)
    return np.frombuffer(joined, np.dtype(column.form)).reshape(total, *column.shape)
