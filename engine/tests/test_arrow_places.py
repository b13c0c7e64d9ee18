"""Arrow requests and answers that take the short way: the same as the long way gives, or not taken."""

import struct

import numpy as np
import pyarrow as pa
import pytest

from opsengine import arrowplaces, decode, encode, kept
from opsengine.errors import RequestError
from opsengine.rows import Facts, Result
from opsengine.selection import parse

FACTS = Facts("p", "3b49fba8-94d8-4fca-aecc-c75257fd16c6", '{"model_name":"m"}', "m", "m1", "edge-1")
LIMIT = 2**20


@pytest.fixture(autouse=True)
def nothing_known():
    arrowplaces._forms.clear()
    arrowplaces._kinds.clear()


def file_of(columns, schema=None, batches=1, options=None, stream=False):
    table = pa.table(columns, schema=schema)
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema, options=options) as writer:
        for _ in range(batches):
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def fixed(values):
    return pa.array(values, pa.list_(pa.float32(), len(values[0])))


def told(body):
    batch = decode.read(body, decode.ARROW, LIMIT)
    return batch.count, {
        name: (value.dtype, value.shape, value.tolist()) if isinstance(value, np.ndarray) else value
        for name, value in batch.columns.items()
    }


def tensors(values):
    kind = pa.fixed_shape_tensor(pa.float32(), [2, 1])
    return pa.ExtensionArray.from_storage(kind, pa.array(values, pa.list_(pa.float32(), 2)))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"x": fixed([[1, 2], [3, 4]])}, {"x": fixed([[5, 6], [7, float("nan")]])}),
        ({"x": pa.array([[1.0, 2.0]])}, {"x": pa.array([[3.0, 4.0]])}),
        ({"x": pa.array([[[1], [2]]], pa.large_list(pa.list_(pa.int8())))},) * 2,
        ({"a": pa.array([1, 2]), "b": pa.array([0.5, 1.5])}, {"a": pa.array([3, 4]), "b": pa.array([2.5, 3.5])}),
        ({"x": tensors([[1, 2]])}, {"x": tensors([[3, 4]])}),
    ],
)
def test_request_of_a_known_form_is_read_as_the_long_way_reads_it(first, second, stream):
    expected = told(file_of(second, stream=stream))
    arrowplaces._forms.clear()
    told(file_of(first, stream=stream))
    body = file_of(second, stream=stream)
    assert arrowplaces.read(body, 0 if stream else decode.FILE_HEAD, LIMIT) is not None, "it was not learned"
    assert repr(told(body)) == repr(expected)


@pytest.mark.parametrize(
    "columns",
    [
        {"x": pa.array(["a", "b"])},
        {"x": pa.array([True, False])},
        {"x": pa.array([1, None])},
        {"x": pa.array([[1.0], [2.0, 3.0]])},
        {"x": pa.array(["a", "b"]).dictionary_encode()},
        {"x": pa.array([[1.0, 2.0], [3.0, 4.0]]), "y": pa.array(["a", "b"])},
        {"x": pa.array([{"a": 1}, {"a": 2}])},
        {"x": pa.array([1, 2], pa.timestamp("ms"))},
    ],
)
def test_other_columns_go_the_long_way(columns):
    told(file_of(columns))
    assert arrowplaces.read(file_of(columns), decode.FILE_HEAD, LIMIT) is None


def test_uneven_rows_with_the_lengths_of_a_known_form_are_not_taken_for_it():
    told(file_of({"x": pa.array([[1.0, 2.0], [3.0, 4.0]])}))
    _, columns = told(file_of({"x": pa.array([[1.0], [2.0, 3.0, 4.0]])}))
    assert columns == {"x": [[1.0], [2.0, 3.0, 4.0]]}


def test_second_batch_behind_a_known_form_is_read():
    told(file_of({"x": fixed([[1, 2]])}))
    count, columns = told(file_of({"x": fixed([[1, 2]])}, batches=3))
    assert (count, columns["x"][1]) == (3, (3, 2))


def test_known_form_that_was_cut_short_is_refused():
    body = file_of({"x": fixed([[1, 2]])}, stream=True)
    told(body)
    for length in range(1, len(body) - 8):
        with pytest.raises(RequestError):
            decode.read(body[:length], decode.ARROW, LIMIT)


def test_compressed_body_goes_the_long_way():
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    body = file_of({"x": fixed([[1.0] * 64] * 8)}, options=options)
    told(body)
    assert arrowplaces.read(body, decode.FILE_HEAD, LIMIT) is None


def test_nonsense_lengths_are_not_followed():
    for length in (-1, 0, 2**31 - 1):
        body = struct.pack("<Ii", arrowplaces.MARK, length) + b"\0" * 64
        assert arrowplaces.read(body, 0, LIMIT) is None


def made(value, moment, count=1, elapsed=(7, 8), **more):
    numbers = np.full((count, 3), value, dtype=np.float32)
    return Result(FACTS, moment, count, {"x": numbers}, {"y": numbers[:, 0].astype(np.float64)}, elapsed, **more)


def shadowed(value, moment):
    return made(value, moment, recorded={"shadow": {"y": np.full((1, 2, 2), value, dtype=np.int64)}})


@pytest.mark.parametrize("query", ["", "dataset[]=out&dataset[]=in", "dataset[]=*&dataset.separator=_"])
@pytest.mark.parametrize("make", [made, shadowed, lambda value, moment: made(value, moment, 5)])
def test_answer_of_a_known_kind_is_to_the_byte_that_of_the_long_way(make, query):
    selection = parse(query)
    encode.answer_arrow(make(1, 1000), selection)
    second = make(2, 2000)
    second.elapsed = (10**9, 3)
    (template,) = [template for _, template in arrowplaces._kinds.values()]
    assert template is not None, "it was not learned"
    short = template.fill(second)
    arrowplaces._kinds.clear()
    assert short == encode.answer_arrow(second, selection)
    with pa.ipc.open_file(short) as reader:
        assert reader.read_all().column("time").cast("int64").to_pylist()[0] == 2000


@pytest.mark.parametrize(
    "vary",
    [
        lambda value: {"inputs": {"x": [f"text {value}"]}},
        lambda value: {"inputs": {"x": [[value, value]]}},
        lambda value: {"inputs": {"x": np.array([bool(value % 2)])}},
        lambda value: {"outputs": {"y": [f"text {value}"]}},
        lambda value: {"checks": {"low": np.array([bool(value % 2)])}},
    ],
)
def test_what_differs_in_more_than_numbers_goes_the_long_way(vary):
    for value in (1, 2, 3):
        result = made(value, value)
        for name, columns in vary(value).items():
            setattr(result, name, columns)
        answer = encode.answer_arrow(result, None)
        assert answer == encode._arrow_file(result, None)[0]


def test_kinds_and_forms_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(kept, "MOST", 5)
    for count in range(1, 20):
        told(file_of({"x": fixed([[1, 2]] * count)}))
        encode.answer_arrow(made(1, 1000, count), None)
    assert len(arrowplaces._forms) <= 5 and len(arrowplaces._kinds) <= 5
