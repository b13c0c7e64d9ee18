from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from catalog.onnx_files import Tensor, UnusableModel, read_schema

MakeOnnx = Callable[..., bytes]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


def test_inputs_and_outputs_are_read(tmp_path: Path, make_onnx: MakeOnnx) -> None:
    schema = read_schema(written(tmp_path, make_onnx()))
    assert schema.inputs == [Tensor("x", "float32", [None, 18])]
    assert schema.outputs == [Tensor("y", "float32", [None, 1])]


def test_weights_listed_among_inputs_are_not_inputs(tmp_path: Path, make_onnx: MakeOnnx) -> None:
    schema = read_schema(written(tmp_path, make_onnx(weights_among_inputs=True)))
    assert [tensor.name for tensor in schema.inputs] == ["x"]


@pytest.mark.parametrize("name", ["rf_model", "xgb_model", "gbr_model"])
def test_real_models_are_read(real_models: Path, name: str) -> None:
    schema = read_schema(real_models / f"houseprice/{name}.onnx")
    assert [tensor.shape for tensor in schema.inputs] == [[None, 18]]
    assert [tensor.name for tensor in schema.outputs] == ["variable"]


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 a zip", b"\x00" * 64, b"\xff" * 64])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnusableModel, match="not an ONNX model"):
        read_schema(written(tmp_path, content))


def test_a_cut_model_is_refused(tmp_path: Path, make_onnx: MakeOnnx) -> None:
    with pytest.raises(UnusableModel, match="cut short"):
        read_schema(written(tmp_path, make_onnx()[:-20]))


def test_a_newer_opset_is_refused_with_the_newest_known(tmp_path: Path, make_onnx: MakeOnnx) -> None:
    with pytest.raises(UnusableModel, match=rf"up to {onnx.defs.onnx_opset_version()}"):
        read_schema(written(tmp_path, make_onnx(opset=999)))


def test_an_unknown_operator_is_refused(tmp_path: Path, make_onnx: MakeOnnx) -> None:
    with pytest.raises(UnusableModel, match="NoSuchOperator"):
        read_schema(written(tmp_path, make_onnx(op_type="NoSuchOperator")))


def test_complex_elements_are_refused(tmp_path: Path, make_onnx: MakeOnnx) -> None:
    with pytest.raises(UnusableModel, match="complex64"):
        read_schema(written(tmp_path, make_onnx(elem_type=TensorProto.COMPLEX64)))


def test_weights_in_other_files_are_refused(tmp_path: Path, make_onnx: MakeOnnx) -> None:
    model = onnx.load_from_string(make_onnx())
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(UnusableModel, match="one file"):
        read_schema(written(tmp_path, model.SerializeToString()))


def test_a_map_output_is_refused_with_what_to_do(tmp_path: Path, make_onnx: MakeOnnx) -> None:
    model = onnx.load_from_string(make_onnx())
    model.graph.output[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    with pytest.raises(UnusableModel, match="zipmap=False"):
        read_schema(written(tmp_path, model.SerializeToString()))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_read_or_refused_but_never_crashes(
    tmp_path: Path, make_onnx: MakeOnnx, data: st.DataObject
) -> None:
    content = bytearray(make_onnx())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_schema(written(tmp_path, bytes(content)))
    except UnusableModel as refusal:
        assert str(refusal)


def test_memory_does_not_grow_with_the_weights(tmp_path: Path) -> None:
    """A sparse 3 GiB file whose weight is one hole: were it loaded, this would need 3 GiB."""

    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    def varint(value: int) -> bytes:
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    weight_size = 3 << 30
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4]).SerializeToString()
    tail = field(11, info) + field(12, info)
    weight_head = field(8, b"w") + varint(9 << 3 | 2) + varint(weight_size)
    weight = varint(5 << 3 | 2) + varint(len(weight_head) + weight_size) + weight_head
    opset = field(8, helper.make_opsetid("", 17).SerializeToString())
    graph_size = len(weight) + weight_size + len(tail)
    head = opset + varint(7 << 3 | 2) + varint(graph_size) + weight
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        file.write(head)
        file.seek(weight_size, 1)
        file.write(tail)
    assert path.stat().st_size > 3 << 30
    assert read_schema(path).inputs[0].shape == [None, 4]
