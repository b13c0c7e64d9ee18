"""Arrow bodies that claim more than they hold: refused before memory is spent, and values that Python has not."""

import io

import numpy as np
import orjson
import pyarrow as pa
import pytest

from engine.tests.conftest import ARROW
from engine.tests.fakes import models
from opsengine import arrowsize
from opsengine.errors import RequestError
from opsengine.plane import DataPlane

LIMIT = 2**16
TENSOR = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
BY_TWO = ("by-two", "00000000-0000-4000-8000-000000000002", models.scale(2.0), ["tensor"])


def views(count, word):
    """`count` texts that are all the same bytes."""
    made = pa.array([word], pa.string_view())
    return pa.Array.from_buffers(
        pa.string_view(), count, [None, pa.py_buffer(made.buffers()[1].to_pybytes() * count), made.buffers()[2]]
    )


def nulls(count):
    """As Arrow reads them: no bytes at all."""
    return pa.Array.from_buffers(pa.null(), count, [None])


def decimals():
    """A number of a thousand million digits."""
    return pa.Array.from_buffers(pa.decimal128(9, -(2**30)), 1, [None, pa.py_buffer(b"\1" + b"\0" * 15)])


def lists(length):
    return pa.ListArray.from_arrays([0, length], nulls(length))


@pytest.fixture
def answer(load_pipeline):
    """What a column is answered with, next to a good one."""
    plane = DataPlane(lambda result: None, LIMIT)
    plane.swap(load_pipeline(BY_TWO))

    def call(column, metadata=None):
        tensor = TENSOR.take(pa.array(np.zeros(len(column), np.int64)))
        schema = pa.schema([pa.field("tensor", tensor.type), pa.field("x", column.type, metadata=metadata)])
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(pa.table([tensor, column], schema))
        return orjson.loads(plane.infer(sink.getvalue(), ARROW, as_arrow=False))

    return call


def refused(answer, column, metadata=None):
    with pytest.raises(RequestError) as error:
        answer(column, metadata)
    return error.value.status, str(error.value)


@pytest.mark.parametrize(
    "column",
    [
        lists(2**30),
        pa.StructArray.from_arrays([lists(2**30)], ["a"]),
        pa.array(["a" * 30_000]).dictionary_encode().take(pa.array([0] * 100)),
        pa.array([b"a" * 30_000], pa.binary(30_000)).dictionary_encode().take(pa.array([0] * 100)),
        views(100, "a" * 30_000),
        pa.MapArray.from_arrays([0, 1], ["a"], lists(2**30)),
    ],
    ids=["nulls in a list", "in a struct", "a word", "a word of bytes", "views", "in a map"],
)
def test_values_that_take_no_bytes_are_413(answer, column):
    assert refused(answer, column) == (
        413,
        f'Column "x" unpacks to more than {LIMIT} bytes: send fewer rows at a time.',
    )


def test_rows_of_nothing_are_413(load_pipeline):
    plane = DataPlane(lambda result: None, LIMIT)
    plane.swap(load_pipeline(BY_TWO))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.schema([("tensor", pa.null())])) as writer:
        writer.write_batch(pa.record_batch([nulls(2**31 - 1)], ["tensor"]))
    with pytest.raises(RequestError, match=r"holds more than 8192 rows") as error:
        plane.infer(sink.getvalue(), ARROW, as_arrow=False)
    assert error.value.status == 413


def test_lists_of_nothing_are_413(answer):
    empty = pa.array([[]], pa.list_(pa.float32(), 0))
    shape = {b"tensor_type": b'{"shape": [999999999, 0]}'}
    assert refused(answer, empty, shape) == (413, 'Column "x" holds too many empty lists: send fewer rows at a time.')


@pytest.mark.parametrize(
    "column", [decimals(), pa.array([[86_400_000 * 2**35]], pa.list_(pa.date64()))], ids=lambda column: str(column.type)
)
def test_values_that_python_has_not_are_400(answer, column):
    status, said = refused(answer, column)
    assert status == 400 and said.startswith('Column "x" of type ') and "cannot be read: " in said


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2]], pa.list_view(pa.int8())),
        pa.RunEndEncodedArray.from_arrays([1], ["a"]),
        pa.array([[[1]]], pa.list_(pa.list_view(pa.int8()))),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
    ],
    ids=lambda column: str(column.type),
)
def test_types_whose_values_lie_over_one_another_are_400(answer, column):
    status, said = refused(answer, column)
    assert status == 400 and said.startswith('Column "x" has the type ') and said.endswith("send plain lists.")


@pytest.mark.parametrize(
    ("column", "read"),
    [
        (pa.array(["a", None, "é" * 20], pa.string_view()), ["a", None, "é" * 20]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([["a"], None, []], pa.list_(pa.large_string())), [["a"], None, []]),
        (pa.array([{"a": [1]}, None], pa.struct([("a", pa.list_(pa.int8()))])), [{"a": [1]}, None]),
        (pa.nulls(2), [None, None]),
    ],
    ids=lambda case: str(getattr(case, "type", "")),
)
def test_what_fits_is_answered(answer, column, read):
    assert [row["in"]["x"] for row in answer(column)] == read


def test_offsets_of_no_rows_are_not_followed():
    """Arrow would end the process."""
    kind = pa.list_(pa.int8())
    none = pa.Array.from_buffers(kind, 0, [None, pa.py_buffer(b"\x25\0\0\0")], children=[pa.array([], pa.int8())])
    empty = pa.FixedSizeListArray.from_buffers(pa.list_(kind, 0), 2, [None], children=[none])
    arrowsize.check_values(none, 0, "x")
    arrowsize.check_values(empty, 2 * arrowsize.VALUE_BYTES, "x")
