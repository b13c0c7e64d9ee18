"""Inference rows in columns: what an answer, a log page and `/logs` have in common.

Groups and types are those of contract/README.md: time, in, out, out_<model> of models that are recorded beside the
answer, anomaly, metadata.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from opsengine import fields
from opsengine.fields import Array, Field, Sent

ARROW_TIME = pa.timestamp("ms")
COLUMN_BYTES, NAMES = 1000, 8  # of what is kept of a column: bytes beside its name, and bytes for each letter of that
MOST_KEPT = 1000  # rows of columns that are kept, because they are the same in all answers
RECORDED = "out_"  # before the label of a shadow or an audited model: `out_challenger.variable`


class Answering(NamedTuple):
    """A model that answers, as rows tell it."""

    last_model: str  # JSON text {"model_name", "model_sha"}
    name: str
    version: str
    described: str  # JSON text {"name", "version", "sha"}: what `out._model_split` holds


class Facts(NamedTuple):
    """What every row of one loaded pipeline says of it."""

    pipeline: str
    version: str
    last_model: str  # JSON text {"model_name", "model_sha"}
    model_name: str
    model_version: str
    partition: str
    arms: tuple[Answering, ...] = ()  # of a split: which of them answered differs from row to row


@dataclass(slots=True, eq=False)  # not frozen: that makes each one four times as slow to make
class Result:
    """A request, or several that ran as one, answered: also what is queued for the log, by reference.

    Times: epoch ms, elapsed in ns. Never changed once it is made and its kind was asked for.
    """

    facts: Facts
    time: int
    count: int
    inputs: Mapping[str, Field]
    outputs: dict[str, Field]
    elapsed: tuple[int, ...]
    checks: dict[str, Array] = field(default_factory=dict)
    recorded: dict[str, dict[str, Field]] = field(default_factory=dict)  # outputs of shadows and audited models
    arms: Array | None = None  # the place in `facts.arms`, a row
    dropped: tuple[str, ...] = ()  # inputs that were answered but are not logged
    shares: tuple[int, ...] = ()  # where several requests ran as one: how many of the rows are whose
    sent: Mapping[str, Sent] = field(default_factory=dict)  # inputs of JSON bodies as answers in JSON tell them
    _kind: tuple[object, ...] | None = field(default=None, init=False, repr=False)  # asked for more than once

    @property
    def kind(self) -> tuple[object, ...]:
        """Results of the same kind fit into one page: same pipeline version, same columns, same types."""
        if self._kind is None:
            self._kind = self._told_kind()
        return self._kind

    @property
    def kind_bytes(self) -> int:
        """What takes memory where something is kept of a kind, roughly: its columns, and their names several times."""
        names = chain(self.inputs, self.outputs, self.checks, *self.recorded.values(), self.dropped)
        return sum(COLUMN_BYTES + NAMES * len(name) for name in names)

    def _told_kind(self) -> tuple[object, ...]:
        groups: list[Mapping[str, Field]] = [self.inputs, self.outputs, self.checks, *self.recorded.values()]
        described = [(name, _kind(value)) for group in groups for name, value in group.items()]
        # All results of a loaded pipeline hold the same facts, and hashing them anew for each would cost.
        return (id(self.facts), len(self.inputs), len(self.elapsed), self.dropped, *self.recorded, *described)


def _kind(value: Field) -> object:
    return (value.dtype.char, value.shape[1:]) if isinstance(value, np.ndarray) else "list"


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value in every row."""

    value: object
    arrow: pa.DataType


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in columns. `time` is one epoch ms for all, or one a row."""

    count: int
    time: int | Array
    groups: dict[str, dict[str, Field | Constant]]


def of_result(result: Result) -> Rows:
    """The rows of one answered request."""
    return Rows(result.count, result.time, _groups(result, Constant(result.elapsed, pa.list_(pa.int64()))))


def spread(result: Result, times: Array, elapsed: Array) -> Rows:
    """The rows of a result that stands for several: `times` and `elapsed` have an entry a row."""
    return Rows(result.count, times, _groups(result, elapsed))


def arrays(group: Mapping[str, Field]) -> dict[str, Array]:
    """The columns that are arrays."""
    return {name: value for name, value in group.items() if isinstance(value, np.ndarray)}


def apart(result: Result) -> Iterator[Result]:
    """A result of several requests as one for each."""
    at = 0
    for count in result.shares:
        some = slice(at, at + count)
        at += count
        yield Result(
            result.facts,
            result.time,
            count,
            _some(result.inputs, some),
            _some(result.outputs, some),
            result.elapsed,
            {name: value[some] for name, value in result.checks.items()},
            {label: _some(made, some) for label, made in result.recorded.items()},
            None if result.arms is None else result.arms[some],
            result.dropped,
        )


def _some(columns: Mapping[str, Field], rows: slice) -> dict[str, Field]:
    return {name: value[rows] for name, value in columns.items()}


def _groups(result: Result, elapsed: Field | Constant) -> dict[str, dict[str, Field | Constant]]:
    facts = result.facts
    failed: Field | Constant = Constant(0, pa.int32())
    if result.checks:
        failed = np.sum(list(result.checks.values()), axis=0, dtype=np.int32)
    last_model: Field | Constant = Constant(facts.last_model, pa.string())
    if result.arms is not None:
        last_model = [facts.arms[place].last_model for place in result.arms.tolist()]
    return {
        "in": dict(result.inputs),
        "out": dict(result.outputs),
        **{f"{RECORDED}{label}": dict(made) for label, made in result.recorded.items()},
        "anomaly": {"count": failed, **result.checks},
        "metadata": {
            "last_model": last_model,
            "pipeline_version": Constant(facts.version, pa.string()),
            "elapsed": elapsed,
            "dropped": Constant(list(result.dropped), pa.list_(pa.string())),
            "partition": Constant(facts.partition, pa.string()),
        },
    }


def to_batch(rows: Rows) -> pa.RecordBatch:
    """The rows in the contract's Arrow shape. Inputs that Arrow cannot hold are named in `metadata.dropped` instead."""
    names, columns = ["time"], [arrow_time(rows)]
    for group, made in arrow_groups(rows).items():
        names.append(group)
        columns.append(_struct(made, rows.count))
    return pa.RecordBatch.from_arrays(columns, names=names)


def arrow_groups(rows: Rows) -> dict[str, dict[str, pa.Array]]:
    """All columns by group, `in` first. Inputs that Arrow cannot hold are named in `metadata.dropped` instead."""
    inputs, dropped = _arrow_inputs(rows)
    groups = dict(rows.groups)
    if dropped:
        names = [*_known(groups), *dropped]
        groups["metadata"] = {**groups["metadata"], "dropped": Constant(names, pa.list_(pa.string()))}
    made = {"in": inputs}
    for group, values in groups.items():
        if group != "in":
            made[group] = {name: arrow_column(value, rows.count) for name, value in values.items()}
    return made


def _known(groups: dict[str, dict[str, Field | Constant]]) -> list[object]:
    """What is named in `metadata.dropped` already."""
    value = groups["metadata"]["dropped"]
    return list(value.value) if isinstance(value, Constant) and isinstance(value.value, list) else []


def _arrow_inputs(rows: Rows) -> tuple[dict[str, pa.Array], list[str]]:
    made: dict[str, pa.Array] = {}
    dropped = []
    for name, value in rows.groups["in"].items():
        try:
            made[name] = arrow_column(value, rows.count)
        except (pa.ArrowException, OverflowError):  # uneven types in a column that no model reads
            dropped.append(name)
    return made, dropped


def arrow_time(rows: Rows) -> pa.Array:
    """The `time` column."""
    times = np.full(rows.count, rows.time, dtype=np.int64) if isinstance(rows.time, int) else rows.time
    return pa.array(times).view(ARROW_TIME)


def arrow_column(value: Field | Constant, count: int) -> pa.Array:
    """One column with `count` rows."""
    if not isinstance(value, Constant):
        return fields.to_arrow(value)
    if count <= MOST_KEPT and isinstance(value.value, str | int):
        return _repeated(value.value, value.arrow, count)
    if value.value == []:
        return _empty(value.arrow, count) if count <= MOST_KEPT else _empty.__wrapped__(value.arrow, count)
    return pa.repeat(pa.scalar(value.value, value.arrow), count)


@lru_cache(64)
def _repeated(value: str | int, kind: pa.DataType, count: int) -> pa.Array:
    """Kept, because making six of them takes a good part of a small answer."""
    return pa.repeat(pa.scalar(value, kind), count)


@lru_cache(64)
def _empty(kind: pa.DataType, count: int) -> pa.Array:
    """Not by repeating a list, which costs as much a row as everything else in it."""
    return pa.ListArray.from_arrays(np.zeros(count + 1, dtype=np.int32), pa.array([], kind.value_type), type=kind)


def _struct(columns: dict[str, pa.Array], count: int) -> pa.Array:
    if not columns:
        return pa.array([{}] * count, type=pa.struct([]))
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def from_batch(batch: pa.RecordBatch) -> Rows:
    """Rows of a stored page."""
    groups: dict[str, dict[str, Field | Constant]] = {}
    for group in batch.schema.names:
        if group == "time":
            continue
        struct = batch.column(group)
        names = [struct.type.field(index).name for index in range(struct.type.num_fields)]
        # flatten() honours the offset of a sliced batch, field() does not.
        groups[group] = {name: fields.from_arrow(column) for name, column in zip(names, struct.flatten(), strict=True)}
    return Rows(batch.num_rows, batch.column("time").view(pa.int64()).to_numpy(), groups)
