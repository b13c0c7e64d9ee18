"""Rows to answers: pandas-records JSON and Arrow files.

JSON is made column by column: each column is printed at once, then the rows are filled into one template, so the cost
of a row is that of its numbers.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import orjson
import pyarrow as pa

from opsengine import fields
from opsengine.fields import Field
from opsengine.rows import RECORDED, Constant, Result, Rows, arrow_column, arrow_time, of_result, to_batch
from opsengine.selection import Selection

JSON_TYPE = "application/json; format=pandas-records"
ARROW_TYPE = "application/vnd.apache.arrow.file"
# `original_data` repeats the input; beyond this many bytes a row it is null, as the documentation allows.
LONGEST_ORIGINAL = 2048
# The documented names of the value types of `outputs`.
VALUE_NAMES = {"float32": "Float", "float64": "Double", "bool": "Bool", "object": "String"}

Piece = bytes | list[bytes]  # the same for all rows, or one a row


def answer_json(result: Result, selection: Selection | None) -> bytes:
    """An answer in pandas-records JSON: nested with both documented shapes, or flat with the columns asked for."""
    rows = of_result(result)
    if selection is not None:
        return _render(_flat(rows, selection), rows.count)
    texts = {group: _texts(columns) for group, columns in rows.groups.items()}
    return _render([*_nested(rows, texts), *_classic(result, texts)], rows.count)


def answer_arrow(result: Result, selection: Selection | None) -> bytes:
    """An answer as an Arrow file: structs time/in/out/anomaly/metadata, or flat columns when asked for."""
    rows = of_result(result)
    batch = to_batch(rows) if selection is None else _flat_batch(rows, selection)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    answer: bytes = sink.getvalue().to_pybytes()
    return answer


def log_json(rows: Rows, selection: Selection | None) -> bytes:
    """Log rows as the inside of a JSON list (no brackets), so that several pages can be joined."""
    if selection is not None:
        return _render(_flat(rows, selection), rows.count)[1:-1]
    return _render(_nested(rows, {group: _texts(columns) for group, columns in rows.groups.items()}), rows.count)[1:-1]


def _texts(columns: dict[str, Field | Constant]) -> dict[str, Piece]:
    return {name: _text(value) for name, value in columns.items()}


def _text(value: Field | Constant) -> Piece:
    return orjson.dumps(value.value) if isinstance(value, Constant) else fields.to_json(value)


def _time(rows: Rows) -> Piece:
    return b"%d" % rows.time if isinstance(rows.time, int) else fields.to_json(rows.time)


def _nested(rows: Rows, texts: dict[str, dict[str, Piece]]) -> list[Piece]:
    pieces: list[Piece] = [b'"time":', _time(rows)]
    for group, columns in texts.items():
        pieces += [b',"%b":' % group.encode(), *_object(columns)]
    return pieces


def _object(columns: dict[str, Piece]) -> Iterator[Piece]:
    before = b"{"
    for name, text in columns.items():
        yield before + orjson.dumps(name) + b":"
        yield text
        before = b","
    yield b"}" if columns else b"{}"


def _flat(rows: Rows, selection: Selection) -> list[Piece]:
    pieces: list[Piece] = [b'"time":', _time(rows)]
    for group, columns in rows.groups.items():
        for name, value in columns.items():
            if selection.wants(group, name):
                pieces += [b"," + orjson.dumps(selection.name(group, name)) + b":", _text(value)]
    return pieces


def _classic(result: Result, texts: dict[str, dict[str, Piece]]) -> Iterator[Piece]:
    """The record of the documentation's tables: the same values under their older names."""
    yield b',"check_failures":'
    yield _failures(result)
    yield b',"elapsed":' + orjson.dumps(result.elapsed) + b',"model_name":'
    yield _answering(result, "name", result.facts.model_name)
    yield b',"model_version":'
    yield _answering(result, "version", result.facts.model_version)
    yield b',"pipeline_name":' + orjson.dumps(result.facts.pipeline) + b',"original_data":'
    originals = texts["in"].values()
    is_short = sum(len(text[0]) for text in originals if isinstance(text, list)) <= LONGEST_ORIGINAL
    yield from _object(texts["in"]) if is_short else (b"null",)
    yield b',"outputs":'
    yield from _classic_outputs(result.outputs, texts["out"])
    yield b',"shadow_data":{'
    before = b""
    for label, made in result.recorded.items():
        yield before + orjson.dumps(label) + b":"
        yield from _classic_outputs(made, texts[RECORDED + label])
        before = b","
    yield b"}"


def _failures(result: Result) -> Piece:
    """The places of the validations that were true, in the order of the definition."""
    if not result.checks:
        return b"[]"
    places = np.stack(list(result.checks.values()), axis=1)
    return [orjson.dumps(np.flatnonzero(row).tolist()) for row in places]


def _answering(result: Result, what: str, one: str) -> Piece:
    if result.arms is None:
        return orjson.dumps(one)
    told = [orjson.dumps(getattr(arm, what)) for arm in result.facts.arms]
    return [told[place] for place in result.arms.tolist()]


def _classic_outputs(outputs: dict[str, Field], texts: dict[str, Piece]) -> Iterator[Piece]:
    before = b"["
    for name, value in outputs.items():
        yield from _classic_output(before, value, texts[name])
        before = b","
    yield b"]"


@cache
def _value_name(dtype: np.dtype[np.generic]) -> str:
    """Kept, because numpy makes a type's name anew each time it is asked."""
    return VALUE_NAMES.get(dtype.name, dtype.name.capitalize())


def _classic_output(before: bytes, value: Field, text: Piece) -> Iterator[Piece]:
    axes, kind = (1, "String") if isinstance(value, list) else (value.ndim, _value_name(value.dtype))
    shape = value.shape[1:] if isinstance(value, np.ndarray) else ()
    if isinstance(value, np.ndarray) and axes > 2:
        text = fields.to_json(value.reshape(len(value), -1))
    opened, closed = (b"[", b"]") if axes == 1 else (b"", b"")
    yield b'%b{"%b":{"data":%b' % (before, kind.encode(), opened)
    yield text
    yield closed + b',"dim":' + orjson.dumps([1, *shape]) + b',"v":1}}'


def _render(pieces: list[Piece], count: int) -> bytes:
    """`[{row},{row},...]` from pieces in order: constants become the template, columns are filled in."""
    if count == 1:
        return b"[{" + b"".join([piece if isinstance(piece, bytes) else piece[0] for piece in pieces]) + b"}]"
    template = b"".join([piece.replace(b"%", b"%%") if isinstance(piece, bytes) else b"%b" for piece in pieces])
    columns = [piece for piece in pieces if not isinstance(piece, bytes)]
    if not columns:
        return b"[" + b",".join([b"{" + template % () + b"}"] * count) + b"]"
    template = b"{" + template + b"}"
    return b"[" + b",".join([template % row for row in zip(*columns, strict=True)]) + b"]"


def _flat_batch(rows: Rows, selection: Selection) -> pa.RecordBatch:
    names, columns = ["time"], [arrow_time(rows)]
    for group, values in rows.groups.items():
        for name, value in values.items():
            if selection.wants(group, name):
                names.append(selection.name(group, name))
                columns.append(arrow_column(value, rows.count))
    return pa.RecordBatch.from_arrays(columns, names=names)
