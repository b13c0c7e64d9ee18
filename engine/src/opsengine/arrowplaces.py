"""Arrow bodies and answers of a form that was met before, without opening them.

What stands in an Arrow file beside the values (schema, lengths, places) is the same for all requests of one form, and
for all answers of one kind with the same number of rows. Opening or writing a file takes pyarrow longer than a small
model runs; comparing that part with what was met before, and taking the values from, or putting them to, their known
places takes a few microseconds. What is not known, or not quite the same, goes the long way.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from opsengine import arrowsize
from opsengine.fields import Field
from opsengine.kept import Kept
from opsengine.rows import RECORDED, Facts, Result
from opsengine.selection import Selection

HEAD = struct.Struct("<Ii")  # before a message: the mark, and the length of its metadata
MARK = 0xFFFFFFFF
END = HEAD.pack(MARK, 0)
LARGEST = 2**14  # bytes of a body or an answer that is kept: of larger ones the values take the time

Value = Callable[[Result], bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """A buffer of a record batch: where it stands, and what it is of: group, column; `values` or `offsets`."""

    group: str
    column: str
    is_values: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Form:
    """A request's: columns with number type, place, count and shape, and what else must stand where."""

    columns: tuple[tuple[str, np.dtype[np.generic], int, int, tuple[int, ...]], ...]
    fixed: tuple[tuple[int, bytes], ...]
    count: int
    end: int


_forms = Kept[bytes, Form]()
# The facts are held, because a kind tells them by their id.
_kinds = Kept[tuple[object, ...], tuple[Facts, "Template | None"]]()


def read(body: bytes, begin: int, limit: int) -> tuple[int, dict[str, Field]] | None:
    """Rows and columns of a body whose stream starts at `begin`; None where its form is not known."""
    start = _values_start(body, begin)
    form = _forms.get(body[begin:start]) if start else None
    if form is None or form.end - start > limit or body[form.end : form.end + HEAD.size] != END:
        return None
    for at, expected in form.fixed:
        if body[at : at + len(expected)] != expected:
            return None
    columns: dict[str, Field] = {
        name: np.frombuffer(body, dtype, length, at).reshape(shape) for name, dtype, at, length, shape in form.columns
    }
    return form.count, columns


def learn(body: bytes, begin: int, schema: pa.Schema, columns: Mapping[str, Field], count: int) -> None:
    """Keep the form of a body that was read the long way, if its values lie in it as they were read."""
    start = _values_start(body, begin)
    if not start or len(body) > LARGEST:
        return
    fields = [("", field.name, field.type) for field in schema]
    places = _places(fields, body, begin, start)
    if places is None:
        return
    found = {place.column: place for place in places if place.is_values}
    made = []
    for name, value in columns.items():
        place = found.get(name)
        if place is None or not _lies_in(body, place, value):
            return
        assert isinstance(value, np.ndarray)
        made.append((name, value.dtype, place.start, value.size, value.shape))
    fixed = tuple((place.start, body[place.start : place.end]) for place in places if not place.is_values)
    end = start + _body_length(body, begin)
    if body[end : end + HEAD.size] == END:
        _forms.keep(body[begin:start], Form(tuple(made), fixed, count, end), 2 * len(body))


def _is_plain(value: Field) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iuf"


def _lies_in(body: bytes, place: Place, value: Field) -> bool:
    return (
        isinstance(value, np.ndarray)
        and _is_plain(value)
        and value.flags.c_contiguous
        and value.nbytes == place.end - place.start
        and value.tobytes() == body[place.start : place.end]
    )


def _values_start(data: bytes, begin: int) -> int:
    """Where the values of the first record batch start, if that is the second message; 0 otherwise."""
    for _ in range(2):
        if len(data) < begin + HEAD.size:
            return 0
        mark, length = HEAD.unpack_from(data, begin)
        if mark != MARK or length <= 0:
            return 0
        begin += HEAD.size + length
    return begin if begin <= len(data) else 0


def _metadata(data: bytes, begin: int) -> bytes:
    """That of the second message, the record batch."""
    begin += HEAD.size + int(HEAD.unpack_from(data, begin)[1])
    length = int(HEAD.unpack_from(data, begin)[1])
    return data[begin + HEAD.size : begin + HEAD.size + length]


def _body_length(data: bytes, begin: int) -> int:
    return arrowsize.body_length(_metadata(data, begin))


def _places(fields: list[tuple[str, str, pa.DataType]], data: bytes, begin: int, start: int) -> list[Place] | None:
    """The buffers of these columns; None where there are others, or nulls."""
    spans = arrowsize.spans(_metadata(data, begin))
    if spans is None:
        return None
    left = iter(spans)
    places: list[Place] = []
    for group, name, kind in fields:
        for role in _roles(kind):
            offset, length = next(left, (0, -1))
            if length < 0 or role == "" or (role == "nulls" and length):
                return None
            if role != "nulls":
                places.append(Place(group, name, role == "values", start + offset, start + offset + length))
    return places if next(left, None) is None else None


def _roles(kind: pa.DataType | None) -> Iterator[str]:
    """What the buffers of a column are, in order; an empty role for types that are not taken. None: a struct's own."""
    yield "nulls"
    if kind is None:
        return
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    while pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if not pa.types.is_fixed_size_list(kind):
            yield "offsets"
        kind = kind.value_type
        yield "nulls"
    if pa.types.is_string(kind):
        yield "offsets"
        yield "offsets"  # of constants: the text is no value of the result
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_timestamp(kind):
        yield "values"
    else:
        yield ""


class Template:
    """An answer with gaps for what differs."""

    def __init__(self, answer: bytes, gaps: list[tuple[int, int, Value]]) -> None:
        self._values = [value for _, _, value in gaps]
        bounds = [0, *(bound for start, end, _ in gaps for bound in (start, end)), len(answer)]
        self._texts = [answer[bounds[at] : bounds[at + 1]] for at in range(0, len(bounds), 2)]
        self._sizes = [end - start for start, end, _ in gaps]

    def fill(self, result: Result) -> bytes | None:
        """The answer of a result; None where a value does not have the size of its gap."""
        values = [value(result) for value in self._values]
        if list(map(len, values)) != self._sizes:
            return None
        pieces = [b""] * (2 * len(values) + 1)
        pieces[0::2], pieces[1::2] = self._texts, values
        return b"".join(pieces)


def answer(result: Result, selection: Selection | None, write: Callable[[], tuple[bytes, pa.Schema]]) -> bytes:
    """An Arrow file: from what is known of the result's kind, or as `write` makes it, with its schema."""
    key = (result.kind, result.count, selection)
    known = _kinds.get(key)
    if known is not None:
        filled = known[1].fill(result) if known[1] else None
        return write()[0] if filled is None else filled
    made, schema = write()
    if len(made) <= LARGEST:
        told = result.facts, _template(result, selection, made, schema)
        _kinds.keep(key, told, 2 * len(made) + result.kind_bytes)
    return made


def _template(result: Result, selection: Selection | None, made: bytes, schema: pa.Schema) -> Template | None:
    """None for kinds with more that differs than numbers, times and elapsed."""
    if result.checks or result.arms is not None or len(set(schema.names)) != len(schema.names):
        return None
    groups = (result.inputs, result.outputs, *result.recorded.values())
    if not all(_is_plain(value) for group in groups for value in group.values()):
        return None
    start = _values_start(made, len(arrowsize.FILE_HEAD))
    places = _places(_columns(result, selection, schema), made, len(arrowsize.FILE_HEAD), start) if start else None
    if places is None:
        return None
    gaps = [
        (place.start, place.end, value)
        for place in places
        if place.is_values and (value := _value(place.group, place.column)) is not None
    ]
    template = Template(made, sorted(gaps, key=lambda gap: gap[0]))
    return template if template.fill(result) == made else None


def _columns(
    result: Result, selection: Selection | None, schema: pa.Schema
) -> list[tuple[str, str, pa.DataType | None]]:
    """Group, column and type of all columns, structs opened: as the buffers of a record batch follow one another."""
    found: list[tuple[str, str, pa.DataType | None]] = []
    if selection is None:
        for field in schema:
            if not pa.types.is_struct(field.type):
                found.append(("", field.name, field.type))
                continue
            found.append((field.name, "", None))
            found += [
                (field.name, field.type.field(at).name, field.type.field(at).type)
                for at in range(field.type.num_fields)
            ]
        return found
    groups = {"in": result.inputs, "out": result.outputs}
    groups |= {RECORDED + label: made for label, made in result.recorded.items()}
    known = {selection.name(group, name): (group, name) for group, made in groups.items() for name in made}
    known[selection.name("metadata", "elapsed")] = ("metadata", "elapsed")
    return [(*known.get(field.name, ("", field.name)), field.type) for field in schema]


def _value(group: str, column: str) -> Value | None:
    """What of a result stands in a column; None for what is the same in all results of the kind."""
    if group == "" and column == "time":
        return lambda result: struct.pack("<q", result.time) * result.count
    if group == "metadata":
        return _elapsed if column == "elapsed" else None
    if group == "in":
        return lambda result: _bytes(result.inputs[column])
    if group == "out":
        return lambda result: _bytes(result.outputs[column])
    if group.startswith(RECORDED):
        label = group.removeprefix(RECORDED)
        return lambda result: _bytes(result.recorded[label][column])
    return None


def _elapsed(result: Result) -> bytes:
    return struct.pack(f"<{len(result.elapsed)}q", *result.elapsed) * result.count


def _bytes(value: Field) -> bytes:
    assert isinstance(value, np.ndarray)  # a list's values are text, or uneven: such columns have other buffers
    made: bytes = value.tobytes()
    return made
