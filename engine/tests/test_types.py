"""Every element type and shape that engines exchange, in JSON and in Arrow; and whatever else may be sent."""

import io
import itertools

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from engine.tests.conftest import ARROW, JSON, Shelf
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from opsengine import chunks, encode, fields, logpages, pipeline, rows
from opsengine.errors import PipelineError, RequestError
from opsengine.plane import DataPlane
from opsengine.store import ContentStore

TYPES = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}
SOME = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def echo(kind, shape):
    """y is x."""
    value = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "echo", [value("x", kind, ["N", *shape])], [value("y", kind, ["N", *shape])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.fixture(scope="module")
def plane_of(tmp_path_factory):
    """A data plane on one model, made once for each model."""
    store = ContentStore(tmp_path_factory.mktemp("store"))
    made = {}

    def make(name, *parts, **changes):
        if name not in made:
            logged = []
            plane = DataPlane(logged.append, 2**20)
            _, digest = publish(Shelf(store), name, "3b49fba8-94d8-4fca-aecc-c75257fd16c6", parts, **changes)
            plane.swap(pipeline.load(digest, store, 1, "edge-1"))
            made[name] = plane, logged
        return made[name]

    return make


def arrow_file(table):
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def asked(plane_and_log, body, kind):
    """The answer's rows (None for a refusal); every answer can be logged, and given in Arrow as well."""
    plane, logged = plane_and_log
    logged.clear()
    try:
        answer = orjson.loads(plane.infer(body, kind, as_arrow=False))
    except RequestError as refused:
        assert refused.status in (400, 413, 415), refused
        assert len(str(refused)) > 10
        return None
    (result,) = logged
    (page,) = logpages.of_chunks(list(chunks.pack([result, result])))
    batch = logpages.batch_of(page.described, page.body, page.size, page.count)
    assert batch.num_rows == 2 * len(answer)
    orjson.loads(b"[" + encode.log_json(rows.from_batch(batch), None) + b"]")
    pa.ipc.open_file(encode.answer_arrow(result, None)).read_all().validate(full=True)
    return answer


@pytest.mark.parametrize(("name", "shape"), list(itertools.product(TYPES, [(), (3,), (2, 2)])))
def test_every_type_comes_back_as_it_was_sent(plane_of, name, shape):
    dtype = np.dtype(object if name == "string" else name)
    values = [["", "é", '"'] * 4, [True, False, True] * 4] if name in ("string", "bool") else None
    flat = np.array((values[name == "bool"] if values else [0, 1, 100] * 4)[: 2 * int(np.prod(shape))], dtype=dtype)
    sent = flat.reshape(2, *shape)
    plane = plane_of(f"echo-{name}-{len(shape)}", ("echo", "m1", echo(TYPES[name], shape), None))
    answer = asked(plane, orjson.dumps([{"x": row} for row in sent.tolist()]), JSON)
    assert [row["out"]["y"] for row in answer] == sent.tolist()
    kind = pa.string() if name == "string" else pa.from_numpy_dtype(dtype)
    for _ in shape:
        kind = pa.list_(kind)
    column = pa.array(sent.tolist(), type=kind)
    answer = asked(plane, arrow_file(pa.table({"x": column})), ARROW)
    assert [row["out"]["y"] for row in answer] == sent.tolist()


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("uint64", [0, 2**64 - 1]),
        ("uint64", [1.0, 2**53 + 1]),
        ("int64", [1.0, 2**53 + 1]),
        ("int64", [True, -(2**63)]),
    ],
)
def test_large_whole_numbers_come_as_they_were_sent_whatever_is_beside_them(plane_of, name, row):
    plane, logged = plane_of(f"echo-{name}-pair", ("echo", "m1", echo(TYPES[name], (2,)), None))
    (answer,) = asked((plane, logged), orjson.dumps([{"x": row}]), JSON)
    assert answer["out"]["y"] == row


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("uint64", [0, 2e19], "a number out of the range of the model's uint64"),
        ("uint64", [-1, 2**64 - 1], "a number out of the range of the model's uint64"),
        ("int64", [0, 2**63], "a number out of the range of the model's int64"),
        ("int64", [0.5, 2**60], "fractions, but the model takes whole numbers"),
    ],
)
def test_large_whole_numbers_that_do_not_fit_are_a_400(plane_of, name, row, said):
    plane, _ = plane_of(f"echo-{name}-pair", ("echo", "m1", echo(TYPES[name], (2,)), None))
    with pytest.raises(RequestError, match=f'Column "x" has {said}'):
        plane.infer(orjson.dumps([{"x": row}]), JSON, as_arrow=False)


def test_a_type_that_engines_do_not_exchange_is_named_with_those_that_they_do(plane_of):
    said = (
        r"input x of type tensor\(bfloat16\): cast it in the model, engines take tensors of float16 to float64, whole"
    )
    with pytest.raises(PipelineError, match=said):
        plane_of("echo-bfloat16", ("echo", "m1", echo(TensorProto.BFLOAT16, (2,)), None))


NUMBERS = (
    0,
    -1,
    1.5,
    True,
    -0.0,
    1e-46,
    1e39,
    -1e300,
    2**31,
    -(2**31) - 1,
    2**53,
    2**53 + 1,
    9007199791611905,
    2**63,
    2**64,
)
ODD = (None, "1", "", "abc", [], {}, {"a": 1}, [1], [[1.0]], [None])


def read(column, dtype):
    """What the model gets, or why it gets nothing."""
    try:
        array = fields.cast(fields.from_values(column, "x", dtype), dtype, "x")
    except RequestError as refused:
        return str(refused)
    return array.dtype, array.shape, array.tobytes()


@pytest.mark.parametrize("name", [name for name in TYPES if name != "string"])
def test_many_numbers_are_read_as_numpy_reads_them(monkeypatch, name):
    columns = [[value] * 9 for value in (*NUMBERS, *ODD, [True, 2.5], [1, 2])]
    columns += [[1.5] * 8 + [value] for value in (*NUMBERS, *ODD)]
    columns += [[[1, 2, 3]] * 8 + [row] for row in ([7, value, 9] for value in (*NUMBERS, *ODD))]
    columns += [[[1.5, 2.5, 3.5]] * 8 + [row] for row in (*ODD, [1, 2], [1, 2, 3, 4], [7, True, 9])]
    columns += [[[[1, 2], [3, 4]]] * 9, [[[1, 2], [3, 4]]] * 8 + [[[1, 2], [3]]]]
    made = []
    for least in (1, 2**62):
        monkeypatch.setattr(fields, "MANY_NUMBERS", least)
        made.append([read(column, np.dtype(name)) for column in columns])
    assert made[0] == made[1]


IMAGE = ("image", "m1", echo(TensorProto.FLOAT, ("C", "H", "W")), None)


@pytest.mark.parametrize(
    "told",
    [
        '{"shape": [3, 2, 4]}',
        "extension<arrow.fixed_shape_tensor[value_type=float, shape=[3,2,4]]>",
        "{'shape': (3, 2, 4)}",
    ],
)
@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 24), pa.large_list(pa.float64())])
def test_flat_rows_take_the_shape_of_their_tensor_type(plane_of, told, kind):
    images = np.arange(48, dtype=np.float32).reshape(2, 3, 2, 4)
    field = pa.field("x", kind, metadata={"tensor_type": told})
    table = pa.table([pa.array(images.reshape(2, 24).tolist(), type=kind)], schema=pa.schema([field]))
    answer = asked(plane_of("image", IMAGE), arrow_file(table), ARROW)
    assert [row["out"]["y"] for row in answer] == images.tolist()


@pytest.mark.parametrize("order", [None, [2, 0, 1]])
def test_fixed_shape_tensors_are_read(plane_of, order):
    images = np.arange(48, dtype=np.float32).reshape(2, 3, 2, 4)
    kind = pa.fixed_shape_tensor(pa.float32(), [3, 2, 4], permutation=order)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 24)
    table = pa.table({"x": pa.ExtensionArray.from_storage(kind, flat)})
    answer = asked(plane_of("image", IMAGE), arrow_file(table), ARROW)
    wanted = images if order is None else images.transpose(0, 3, 1, 2)
    assert [row["out"]["y"] for row in answer] == wanted.tolist()


def test_tensor_type_that_does_not_fit_is_a_400(plane_of):
    field = pa.field("x", pa.list_(pa.float32()), metadata={"tensor_type": '{"shape": [3, 3]}'})
    table = pa.table([pa.array([[1.0, 2.0]])], schema=pa.schema([field.with_type(pa.list_(pa.float64()))]))
    plane, _ = plane_of("image", IMAGE)
    with pytest.raises(RequestError, match='Column "x" has rows of 2, but its tensor_type tells 3x3'):
        plane.infer(arrow_file(table), ARROW, as_arrow=False)


def anything():
    leaf = (
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5)
    )
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=12,
    )


def records():
    names = st.sampled_from(["tensor", "x", "key", "", "é", "%s", "a.b"])
    fair = st.fixed_dictionaries({"tensor": st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2)})
    return st.lists(fair | st.dictionaries(names, anything(), max_size=4), max_size=4)


def tiny(name, plane_of):
    """A pipeline with everything that reads columns: a sticky split, a shadow and validations."""
    two = ("two", "00000000-0000-4000-8000-000000000001", models.scale(2.0), ["tensor"])
    three = ("three", "00000000-0000-4000-8000-000000000002", models.scale(3.0), ["tensor"])
    refs = [{"name": part[0], "version": part[1]} for part in (two, three)]
    steps = {
        "plain": [{"ModelInference": {"models": refs[:1]}}],
        "shadow": [
            {"ModelInference": {"models": refs}},
            {"Check": {"rules": {"a": {"field": "in.tensor[1]", "op": ">", "value": 1}}}},
        ],
        "split": [{"MetaValueSplit": {"split_key": "key", "control": refs[0], "routes": {"a": refs[1], "1": refs[1]}}}],
    }[name]
    return plane_of(name, two, three, steps=steps)


@pytest.mark.parametrize("name", ["plain", "shadow", "split"])
@SOME
@given(sent=records())
def test_any_records_are_answered_or_refused(plane_of, name, sent):
    answer = asked(tiny(name, plane_of), orjson.dumps(sent), JSON)
    assert answer is None or len(answer) == len(sent)


@SOME
@given(sent=anything())
def test_any_json_is_answered_or_refused(plane_of, sent):
    asked(tiny("plain", plane_of), orjson.dumps(sent), JSON)


def arrow_types():
    plain = [
        pa.float32(),
        pa.float64(),
        pa.float16(),
        pa.int8(),
        pa.uint64(),
        pa.bool_(),
        pa.string(),
        pa.large_string(),
    ]
    odd = [
        pa.binary(),
        pa.date32(),
        pa.timestamp("us", "UTC"),
        pa.decimal128(9, 2),
        pa.null(),
        pa.duration("s"),
        pa.time64("us"),
    ]
    leaf = st.sampled_from(plain + odd)
    return st.recursive(
        leaf,
        lambda inner: (
            st.builds(pa.list_, inner)
            | st.builds(pa.list_, inner, st.integers(0, 3))
            | st.builds(lambda kind: pa.struct([("a", kind)]), inner)
            | st.builds(lambda kind: pa.dictionary(pa.int8(), kind), st.sampled_from([*plain[:2], pa.string()]))
        ),
        max_leaves=3,
    )


@st.composite
def tables(draw):
    count = draw(st.integers(0, 4))
    columns = {}
    for name in draw(st.lists(st.sampled_from(["tensor", "key", "x", ""]), min_size=1, max_size=3, unique=True)):
        kind = draw(arrow_types())
        columns[name] = draw(arrow_column(kind, count))
    return pa.table(columns)


@st.composite
def arrow_column(draw, kind, count):
    fair = draw(st.booleans())
    if fair:
        return pa.array(draw(hnp.arrays(np.float32, (count, 2))).tolist(), type=pa.list_(pa.float32()))
    try:
        return pa.array([draw(st.none() | st.just(_example(kind))) for _ in range(count)], type=kind)
    except (pa.ArrowException, TypeError, ValueError):
        return pa.nulls(count, kind)


def _example(kind):
    if pa.types.is_fixed_size_list(kind):
        return [_example(kind.value_type)] * kind.list_size
    if pa.types.is_list(kind):
        return [_example(kind.value_type)] * 2
    if pa.types.is_struct(kind):
        return {"a": _example(kind.field(0).type)}
    if pa.types.is_dictionary(kind):
        return _example(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return b"b" if pa.types.is_binary(kind) else 1


@pytest.mark.parametrize("name", ["plain", "shadow", "split"])
@SOME
@given(table=tables())
def test_any_table_is_answered_or_refused(plane_of, name, table):
    answer = asked(tiny(name, plane_of), arrow_file(table), ARROW)
    assert answer is None or len(answer) == table.num_rows


def bodies():
    table = pa.table({"tensor": pa.array([[1.0, 2.0], [3.0, 4.0]], type=pa.list_(pa.float32())), "key": ["a", "b"]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return [arrow_file(table), sink.getvalue(), orjson.dumps([{"tensor": [1.0, 2.0], "key": "a"}] * 2)]


@SOME
@given(data=st.data(), which=st.sampled_from(range(3)), kind=st.sampled_from([ARROW, JSON, ""]))
def test_damaged_bodies_are_answered_or_refused(plane_of, data, which, kind):
    body = bytearray(bodies()[which])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body)))]
    asked(tiny("split", plane_of), bytes(body), kind)
