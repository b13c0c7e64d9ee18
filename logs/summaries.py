"""What rollups hold of rows: counts, failed checks, and sketches of latency and of every numeric field.

A field is named by its group and path: `in.age`, `out.box.width`. A list is summarised element by element,
`out.variable[0]`, where a row's list has at most `LIST_ELEMENTS`; the elements of a longer one go together into
`in.tensor[*]`, at most `POOLED_ELEMENTS` of a row, evenly spaced. Nested lists are one flat list, a boolean is 0 or 1.
Text is not summarised. Of more than `MAX_FIELDS` fields the first are kept, outputs before inputs.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logs import sketches
from logs import values as nested
from logs.sketches import Floats, Integers, Sketch

LIST_ELEMENTS = 32
POOLED_ELEMENTS = 256
MAX_FIELDS = 64
MAX_CHECKS = 64
MINUTE_MS = 60_000


@dataclass(frozen=True)
class Summary:
    """`anomalous` rows have a failed validation, `anomalies` counts all failures, `failures` each validation's rows.

    `latency` is of milliseconds, the sum of a row's `metadata.elapsed`.
    """

    rows: int = 0
    anomalous: int = 0
    anomalies: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    latency: Sketch = field(default_factory=Sketch)
    fields: Mapping[str, Sketch] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Key:
    """Rows that are summarised together: those of one edge (a partition), model and minute (epoch ms)."""

    partition: str
    model: str
    sha: str
    start: int


def of_table(table: pa.Table, partitions: pa.Array, *, with_fields: bool = True) -> dict[Key, Summary]:
    """The summaries of decoded rows of one schema. `partitions` is the edge's name of each row."""
    keys, groups = _grouped(table, partitions)
    count = len(keys)
    rows = np.bincount(groups, minlength=count)
    anomalies = _anomalies(table)
    anomalous = np.bincount(groups[anomalies > 0], minlength=count)
    sums = np.bincount(groups, weights=anomalies, minlength=count)
    failures = _failures(table, groups, count)
    latencies = _latencies(table, groups, count)
    fields: list[dict[str, Sketch]] = [{} for _ in keys]
    for name, values, owners, nulls in _columns(table, groups, count) if with_fields else ():
        for at, sketch in enumerate(sketches.of_groups(values, owners, count, nulls)):
            if sketch.count or sketch.odd or sketch.nulls:
                fields[at][name] = sketch
    return {
        key: Summary(
            rows=int(rows[at]),
            anomalous=int(anomalous[at]),
            anomalies=int(sums[at]),
            failures={name: int(per_group[at]) for name, per_group in failures.items() if per_group[at]},
            latency=latencies[at],
            fields=_kept(fields[at]),
        )
        for at, key in enumerate(keys)
    }


def merged(summaries: Iterable[Summary]) -> Summary:
    """One summary of all their rows."""
    given = list(summaries)
    if len(given) == 1:
        return given[0]
    failures: dict[str, int] = {}
    fields: dict[str, list[Sketch]] = {}
    for summary in given:
        for name, count in summary.failures.items():
            failures[name] = failures.get(name, 0) + count
        for name, sketch in summary.fields.items():
            fields.setdefault(name, []).append(sketch)
    return Summary(
        rows=sum(summary.rows for summary in given),
        anomalous=sum(summary.anomalous for summary in given),
        anomalies=sum(summary.anomalies for summary in given),
        failures={name: failures[name] for name in sorted(failures)[:MAX_CHECKS]},
        latency=sketches.merged(summary.latency for summary in given),
        fields=_kept({name: sketches.merged(parts) for name, parts in fields.items()}),
    )


def folded(found: Mapping[Key, Summary], span: int) -> dict[Key, Summary]:
    """The summaries of wider buckets: `span` is in ms."""
    parts: dict[Key, list[Summary]] = {}
    for key, summary in found.items():
        parts.setdefault(replace(key, start=key.start - key.start % span), []).append(summary)
    return {key: merged(group) for key, group in parts.items()}


def of_all_edges(found: Mapping[Key, Summary]) -> dict[Key, Summary]:
    """The same with all edges as one, whose name is empty."""
    parts: dict[Key, list[Summary]] = {}
    for key, summary in found.items():
        parts.setdefault(replace(key, partition=""), []).append(summary)
    return {key: merged(group) for key, group in parts.items()}


def field_order(name: str) -> tuple[bool, str, int]:
    """Outputs first, then by name, elements by their index."""
    base, index = re.fullmatch(r"(.*?)(?:\[(\d+|\*)\])?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return not name.startswith("out"), base, int(index) if index and index != "*" else -1


def _kept(fields: dict[str, Sketch]) -> dict[str, Sketch]:
    """The first by order, so that whatever is merged in whatever order, the same are kept."""
    return {name: fields[name] for name in sorted(fields, key=field_order)[:MAX_FIELDS]}


def _grouped(table: pa.Table, partitions: pa.Array) -> tuple[list[Key], Integers]:
    """The keys of the rows' groups, and of each row the number of its group."""
    minutes = table.column("time").cast(pa.int64()).combine_chunks().to_numpy() // MINUTE_MS
    texts = _child(_struct(table.column("metadata")), "last_model").dictionary_encode()
    told = [_model(text) for text in texts.dictionary.to_pylist()] + [("", "")]
    models = sorted(set(told))  # several texts may tell of the same model
    numbers_of = {model: number for number, model in enumerate(models)}
    places = np.array([numbers_of[model] for model in told])
    which = places[texts.indices.fill_null(len(told) - 1).to_numpy()]
    edges = partitions.dictionary_encode()
    names, edge = edges.dictionary.to_pylist(), edges.indices.to_numpy()
    starts, minute = np.unique(minutes, return_inverse=True)
    numbers = (edge.astype(np.int64) * len(models) + which) * len(starts) + minute
    found, groups = np.unique(numbers, return_inverse=True)
    keys = []
    for number in found.tolist():
        rest, at = divmod(number, len(starts))
        name, model = divmod(rest, len(models))
        keys.append(Key(names[name], models[model][0], models[model][1], int(starts[at]) * MINUTE_MS))
    return keys, groups.astype(np.int64)


def _model(text: str | None) -> tuple[str, str]:
    """Name and SHA-256 in `metadata.last_model`, a JSON text that an engine wrote."""
    try:
        told = json.loads(text or "")
        return str(told["model_name"])[:128], str(told["model_sha"])[:64]
    except (TypeError, ValueError, KeyError, RecursionError):
        return "", ""


def _anomalies(table: pa.Table) -> Integers:
    counts = _child(_struct(table.column("anomaly")), "count")
    return np.asarray(counts.cast(pa.int64()).fill_null(0), dtype=np.int64)


def _failures(table: pa.Table, groups: Integers, count: int) -> dict[str, Integers]:
    """Of each validation the rows that failed it, by group."""
    anomaly = _struct(table.column("anomaly"))
    found: dict[str, Integers] = {}
    for child in sorted(anomaly.type, key=lambda part: part.name):
        if pa.types.is_boolean(child.type) and len(found) < MAX_CHECKS:
            failed = _child(anomaly, child.name).fill_null(False).to_numpy(zero_copy_only=False)
            found[child.name] = np.bincount(groups[failed], minlength=count)
    return found


def _latencies(table: pa.Table, groups: Integers, count: int) -> list[Sketch]:
    elapsed = _child(_struct(table.column("metadata")), "elapsed")
    steps, owners = nested.flat(elapsed)
    total = np.bincount(owners, weights=steps.cast(pa.float64()).fill_null(0.0), minlength=len(table)) / 1e6
    is_told = pc.greater(pc.list_value_length(elapsed).fill_null(0), 0).to_numpy(zero_copy_only=False)
    return sketches.of_groups(total[is_told], groups[is_told], count)


Column = tuple[str, Floats, Integers, Integers]


def _columns(table: pa.Table, groups: Integers, count: int) -> Iterator[Column]:
    """Every numeric field: its name, its values, the group of each, and how many are null in each group."""
    names = [name for name in table.column_names if name in ("in", "out") or name.startswith("out_")]
    everyone = np.arange(len(table), dtype=np.int64)
    for name in sorted(names, key=lambda name: name == "in"):  # outputs first
        for path, values, owners in _leaves(name, _struct(table.column(name)), everyone):
            at = groups[owners]
            if values.null_count:
                is_null = values.is_null().to_numpy(zero_copy_only=False)
                nulls = np.bincount(at[is_null], minlength=count)
                values, at = values.drop_null(), at[~is_null]
            else:
                nulls = np.zeros(count, dtype=np.int64)
            yield path, values.cast(pa.float64(), safe=False).to_numpy(), at, nulls


def _leaves(path: str, values: pa.Array, owners: Integers) -> Iterator[tuple[str, pa.Array, Integers]]:
    """The numeric arrays below a value, with the row of each element. At most `MAX_FIELDS` of one name's lists."""
    kind = values.type
    if pa.types.is_struct(kind):
        for child in sorted(kind, key=lambda part: part.name):
            yield from _leaves(f"{path}.{child.name}", _child(values, child.name), owners)
    elif is_list(kind):
        elements, rows = nested.flat(values)
        yield from _elements(path, elements, owners[rows])
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        yield path, values.cast(pa.int8()) if pa.types.is_boolean(kind) else values, owners


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _elements(path: str, values: pa.Array, owners: Integers) -> Iterator[tuple[str, pa.Array, Integers]]:
    """Short lists element by element, long ones pooled. Elements of a row stand together, in their order."""
    if not len(values) or not (pa.types.is_boolean(values.type) or _is_number(values.type)):
        return
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    begins = np.flatnonzero(np.diff(owners, prepend=owners[0] - 1))
    lengths = np.diff(begins, append=len(owners))
    length, position = np.repeat(lengths, lengths), np.arange(len(owners)) - np.repeat(begins, lengths)
    for index in range(min(LIST_ELEMENTS, int(lengths.max()))):
        chosen = np.flatnonzero((length <= LIST_ELEMENTS) & (position == index))
        if len(chosen):
            yield f"{path}[{index}]", values.take(pa.array(chosen)), owners[chosen]
    step = -(-length // POOLED_ELEMENTS)
    pooled = np.flatnonzero((length > LIST_ELEMENTS) & (position % step == 0))
    if len(pooled):
        yield f"{path}[*]", values.take(pa.array(pooled)), owners[pooled]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _struct(column: pa.ChunkedArray) -> pa.StructArray:
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


def _child(values: pa.StructArray, name: str) -> pa.Array:
    """A field of a struct, null where the struct is."""
    return values.flatten()[values.type.get_field_index(name)]
