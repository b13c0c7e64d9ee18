"""Rows to answers: pandas-records JSON and Arrow files.

What results of one kind share (names, brackets, what the pipeline says of itself) is put together once, as a *form*. An
answer then costs the printing of its numbers, a column at a time, and one join.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from opsengine import arrowplaces, fields, layout
from opsengine.fields import Array, Field, Written
from opsengine.kept import Kept
from opsengine.layout import Cell, Layout, Part, Value
from opsengine.rows import RECORDED, Constant, Facts, Result, Rows, arrow_groups, arrow_time, of_result, to_batch
from opsengine.selection import Selection

JSON_TYPE = "application/json; format=pandas-records"
ARROW_TYPE = "application/vnd.apache.arrow.file"
# `original_data` repeats the input; beyond this many bytes a row it is null, as the documentation allows.
LONGEST_ORIGINAL = 2048
# The documented names of the value types of `outputs`.
VALUE_NAMES = {"float32": "Float", "float64": "Double", "bool": "Bool"}
LISTED_NAMES = {str: "String", float: "Double", bool: "Bool", int: "Int64"}

Make = Callable[[Result], Value]
Columns = Mapping[str, Field | Written | Constant]


class Form(NamedTuple):
    """How results of one kind are printed: `values` makes what differs, in the layouts' order."""

    facts: Facts  # held, because a kind tells them by their id
    values: tuple[Make, ...]
    short: Layout
    long: Layout  # without `original_data`, for inputs that are longer than that may be
    originals: tuple[tuple[int, int], ...]  # places of the inputs, and the bytes of their outer brackets


_forms = Kept[tuple[object, ...], Form]()


def answer_json(result: Result, selection: Selection | None) -> bytes:
    """An answer in pandas-records JSON: nested with both documented shapes, or flat with the columns asked for."""
    form = _form_of(result, selection)
    return _rendered(form, [make(result) for make in form.values], result.count)


def answers_json(result: Result, selection: Selection | None) -> list[bytes]:
    """Answers in JSON to requests that ran as one, each with its share of the rows."""
    form = _form_of(result, selection)
    values = [make(result) for make in form.values]
    answers, at = [], 0
    for count in result.shares:
        own = [value if isinstance(value, bytes) else _some(value, at, count) for value in values]
        answers.append(_rendered(form, own, count))
        at += count
    return answers


def _some(values: list[bytes], at: int, count: int) -> Value:
    return values[at] if count == 1 else values[at : at + count]


def _form_of(result: Result, selection: Selection | None) -> Form:
    key = (result.kind, tuple(map(type, result.sent.values())), selection)
    form = _forms.get(key)
    if form is None:
        form = _Draft(result).form(selection)
        _forms.keep(key, form, result.kind_bytes)
    return form


def _rendered(form: Form, values: list[Value], count: int) -> bytes:
    length = 0
    for place, brackets in form.originals:
        value = values[place]
        length += brackets + len(value if isinstance(value, bytes) else value[0])
    return (form.short if length <= LONGEST_ORIGINAL else form.long).render(values, count)


def answer_arrow(result: Result, selection: Selection | None) -> bytes:
    """An answer as an Arrow file: structs time/in/out/anomaly/metadata, or flat columns when asked for."""
    return arrowplaces.answer(result, selection, partial(_arrow_file, result, selection))


def _arrow_file(result: Result, selection: Selection | None) -> tuple[bytes, pa.Schema]:
    rows = of_result(result)
    batch = to_batch(rows) if selection is None else _flat_batch(rows, selection)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes(), batch.schema


def log_json(rows: Rows, selection: Selection | None) -> bytes:
    """Log rows as the inside of a JSON list (no brackets), so that several pages can be joined."""
    values: list[Value] = []

    def cell(value: Field | Written | Constant) -> Cell:
        if isinstance(value, Constant):
            return (orjson.dumps(value.value),)
        values.append(fields.printed(value))
        return layout.bracketed(len(values) - 1, fields.brackets(value))

    time: Cell = (b"%d" % rows.time,) if isinstance(rows.time, int) else cell(rows.time)
    groups = _chosen(rows.groups, selection)
    cells = {group: {name: cell(value) for name, value in columns.items()} for group, columns in groups.items()}
    parts = layout.nested(time, cells) if selection is None else layout.flat(time, cells, selection)
    return Layout(parts).render(values, rows.count)[1:-1]


def _chosen(groups: Mapping[str, Columns], selection: Selection | None) -> Mapping[str, Columns]:
    if selection is None:
        return groups
    return {
        group: {name: value for name, value in columns.items() if selection.wants(group, name)}
        for group, columns in groups.items()
    }


class _Draft:
    """Makes the form of a kind from the first result of it."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._places: dict[Make, int] = {}

    def form(self, selection: Selection | None) -> Form:
        """For answers with these columns (None: with all, in both documented shapes)."""
        facts = self._result.facts
        time = self._cell(_time)
        groups = _chosen({**of_result(self._result).groups, "in": _shown(self._result)}, selection)
        cells = {
            group: {name: self._column(group, name, value) for name, value in columns.items()}
            for group, columns in groups.items()
        }
        if selection is not None:
            flat = Layout(layout.flat(time, cells, selection))
            return Form(facts, tuple(self._places), flat, flat, ())
        nested = list(layout.nested(time, cells))
        parts = [list(self._classic(cells, original)) for original in (cells["in"], None)]
        short, long = (Layout([*nested, *classic]) for classic in parts)
        originals = tuple(_place(cell) for cell in cells["in"].values())
        return Form(facts, tuple(self._places), short, long, originals)

    def _cell(self, make: Make, axes: int = 0) -> Cell:
        """A place for a value; one that is there already is used again."""
        return layout.bracketed(self._places.setdefault(make, len(self._places)), axes)

    def _column(self, group: str, name: str, value: Field | Written | Constant) -> Cell:
        if name == "elapsed" and group == "metadata":
            return self._cell(_elapsed)
        if isinstance(value, Constant):
            return (orjson.dumps(value.value),)
        if group == "metadata":
            return self._cell(_last_models)
        if group == "anomaly":
            return self._cell(_failed if name == "count" else partial(_check, name))
        return self._cell(_column_of(group, name), fields.brackets(value))

    def _classic(self, cells: Mapping[str, Mapping[str, Cell]], original: Mapping[str, Cell] | None) -> Iterator[Part]:
        """The record of the documentation's tables: the same values under their older names."""
        result = self._result
        yield b',"check_failures":'
        yield from self._cell(_failures) if result.checks else (b"[]",)
        yield b',"elapsed":'
        yield from self._cell(_elapsed)
        yield b',"model_name":'
        yield from self._answering(_names, result.facts.model_name)
        yield b',"model_version":'
        yield from self._answering(_versions, result.facts.model_version)
        yield b',"pipeline_name":' + orjson.dumps(result.facts.pipeline) + b',"original_data":'
        yield from (b"null",) if original is None else layout.object_of(original)
        yield b',"outputs":'
        yield from self._outputs("out", result.outputs, cells["out"])
        yield b',"shadow_data":{'
        before = b""
        for label, made in result.recorded.items():
            yield before + orjson.dumps(label) + b":"
            yield from self._outputs(RECORDED + label, made, cells[RECORDED + label])
            before = b","
        yield b"}"

    def _answering(self, make: Make, one: str) -> Cell:
        return (orjson.dumps(one),) if self._result.arms is None else self._cell(make)

    def _outputs(self, group: str, outputs: Mapping[str, Field], cells: Mapping[str, Cell]) -> Iterator[Part]:
        before = b"["
        for name, value in outputs.items():
            yield before
            if isinstance(value, np.ndarray):
                yield from self._array(group, name, value, cells[name])
            else:
                yield from self._cell(_listed_of(group, name))
            before = b","
        yield b"]"

    def _array(self, group: str, name: str, value: Array, cell: Cell) -> Iterator[Part]:
        yield b'{"%b":{"data":' % _value_name(value.dtype).encode()
        if value.ndim > 2:  # `data` is flat
            yield from self._cell(_flat_of(group, name), 1)
        else:
            yield from cell if value.ndim == 2 else (b"[", *cell, b"]")
        yield b',"dim":' + orjson.dumps([1, *value.shape[1:]]) + b',"v":1}}'


def _shown(result: Result) -> Mapping[str, Field | Written]:
    """Inputs as an answer tells them: of JSON bodies as they were sent."""
    return result.sent or result.inputs


def _place(cell: Cell) -> tuple[int, int]:
    """The place of a cell's value, and how many bytes stand around it."""
    place = next(part for part in cell if isinstance(part, int))
    return place, sum(len(part) for part in cell if isinstance(part, bytes))


def _time(result: Result) -> Value:
    return b"%d" % result.time


def _elapsed(result: Result) -> Value:
    return orjson.dumps(result.elapsed)


def _column_of(group: str, name: str) -> Make:
    """Prints a column."""
    if group == "in":
        return lambda result: fields.printed(_shown(result)[name])
    if group == "out":
        return lambda result: fields.printed(result.outputs[name])
    label = group.removeprefix(RECORDED)
    return lambda result: fields.printed(result.recorded[label][name])


def _flat_of(group: str, name: str) -> Make:
    """Prints a column of tensors with the numbers of a row in one list."""
    label = group.removeprefix(RECORDED)

    def flat(result: Result) -> Value:
        value = (result.outputs if group == "out" else result.recorded[label])[name]
        assert isinstance(value, np.ndarray)  # lists have no axes
        return fields.printed(value.reshape(len(value), prod(value.shape[1:])))

    return flat


def _listed_of(group: str, name: str) -> Make:
    """Prints a column of `outputs` whose rows are Python's values: text, or what models of a split gave unevenly."""
    label = group.removeprefix(RECORDED)

    def listed(result: Result) -> Value:
        told = [_described(row) for row in (result.outputs if group == "out" else result.recorded[label])[name]]
        return told if len(told) > 1 else told[0]

    return listed


def _described(row: object) -> bytes:
    """A row with its type and shape."""
    flat: list[Any] = [row]
    shape = [1]
    while flat and isinstance(flat[0], list):
        shape.append(len(flat[0]))
        flat = [inner for outer in flat for inner in outer]
    kind = LISTED_NAMES[type(flat[0])] if flat else "String"
    return orjson.dumps({kind: {"data": flat, "dim": shape, "v": 1}})


def _failed(result: Result) -> Value:
    """How many validations were true."""
    return fields.printed(np.sum(list(result.checks.values()), axis=0, dtype=np.int32))


def _check(name: str, result: Result) -> Value:
    return fields.printed(result.checks[name])


def _failures(result: Result) -> Value:
    """The places of the validations that were true, in the order of the definition."""
    places = np.stack(list(result.checks.values()), axis=1)
    told = [orjson.dumps(np.flatnonzero(row).tolist()) for row in places]
    return told if len(told) > 1 else told[0]


def _of_arm(what: str, result: Result) -> Value:
    """What is told of the model that answered, a row."""
    assert result.arms is not None  # asked for after splits only
    told = [orjson.dumps(getattr(arm, what)) for arm in result.facts.arms]
    rows = [told[place] for place in result.arms.tolist()]
    return rows if len(rows) > 1 else rows[0]


_last_models: Make = partial(_of_arm, "last_model")
_names: Make = partial(_of_arm, "name")
_versions: Make = partial(_of_arm, "version")


@cache
def _value_name(dtype: np.dtype[np.generic]) -> str:
    return VALUE_NAMES.get(dtype.name, dtype.name.capitalize())


def _flat_batch(rows: Rows, selection: Selection) -> pa.RecordBatch:
    names, columns = ["time"], [arrow_time(rows)]
    for group, made in arrow_groups(rows).items():
        for name, column in made.items():
            if selection.wants(group, name):
                names.append(selection.name(group, name))
                columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=names)
