"""Reads what an ONNX file takes and gives, in constant memory: weights are skipped over, never loaded.

The file is a protobuf `ModelProto` (onnx.proto); its wire format is walked with seeks, and only the small messages that
describe inputs, outputs and operator sets are parsed, by the onnx package.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import onnx
from google.protobuf.message import DecodeError

# The element types that engines exchange, by TensorProto.DataType.
ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
DESCRIPTION_LIMIT = 1 << 20  # a message that describes one input is some bytes; more is not one of ours
CHECKED_WHOLE = 64 << 20  # below this a file is small enough to check every operator in memory

MODEL_GRAPH, MODEL_OPSETS = 7, 8
GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 5, 11, 12
TENSOR_NAME, TENSOR_LOCATION, LOCATION_EXTERNAL = 8, 14, 1
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class UnusableModel(Exception):
    """The file is not a model that an engine could serve. The message says why, and what to do."""


@dataclass(frozen=True)
class Tensor:
    """One input or output: `shape` holds None where the size is free."""

    name: str
    type: str
    shape: list[int | None]


@dataclass(frozen=True)
class Schema:
    """What a model takes and gives."""

    inputs: list[Tensor]
    outputs: list[Tensor]


@dataclass(frozen=True)
class _Field:
    number: int
    kind: int
    value: int  # of a varint
    start: int  # of the content of a length-delimited field
    size: int


def read_schema(path: Path) -> Schema:
    """Inputs (weights excepted) and outputs of the ONNX model in `path`. Raises `UnusableModel`."""
    try:
        with path.open("rb") as file:
            schema = _walk(file, path.stat().st_size)
    except (DecodeError, EOFError, UnicodeDecodeError) as exc:
        raise UnusableModel("This is not an ONNX model, or it is cut short: export it again with ONNX.") from exc
    if path.stat().st_size <= CHECKED_WHOLE:
        _check_operators(path)
    return schema


def _walk(file: BinaryIO, size: int) -> Schema:
    graph: _Field | None = None
    opsets: dict[str, int] = {}
    for field in _fields(file, 0, size):
        if field.number == MODEL_GRAPH and field.kind == BYTES:
            graph = field
        elif field.number == MODEL_OPSETS and field.kind == BYTES:
            opset = onnx.OperatorSetIdProto.FromString(_content(file, field))
            opsets[opset.domain] = opset.version
    if graph is None or not opsets:
        raise EOFError
    newest = onnx.defs.onnx_opset_version()
    if opsets.get("", 0) > newest:
        raise UnusableModel(
            f"The model uses ONNX opset {opsets['']}, engines know up to {newest}: export with that one."
        )
    return _walk_graph(file, graph)


def _walk_graph(file: BinaryIO, graph: _Field) -> Schema:
    weights: set[str] = set()
    inputs: list[Any] = []
    outputs: list[Any] = []
    for field in _fields(file, graph.start, graph.start + graph.size):
        if field.kind != BYTES:
            continue
        if field.number == GRAPH_INITIALIZER:
            weights.add(_weight_name(file, field))
        elif field.number == GRAPH_INPUT:
            inputs.append(onnx.ValueInfoProto.FromString(_content(file, field)))
        elif field.number == GRAPH_OUTPUT:
            outputs.append(onnx.ValueInfoProto.FromString(_content(file, field)))
    # Before IR version 4 every weight was listed among the inputs too.
    schema = Schema([_tensor(i) for i in inputs if i.name not in weights], [_tensor(o) for o in outputs])
    if not schema.inputs or not schema.outputs:
        raise UnusableModel("The model has no input or no output: export it with both.")
    return schema


def _weight_name(file: BinaryIO, tensor: _Field) -> str:
    name = ""
    for field in _fields(file, tensor.start, tensor.start + tensor.size):
        if field.number == TENSOR_NAME and field.kind == BYTES:
            name = _content(file, field).decode()
        elif field.number == TENSOR_LOCATION and field.value == LOCATION_EXTERNAL:
            raise UnusableModel("The model keeps weights in other files: save it as one file and upload that.")
    return name


def _tensor(info: Any) -> Tensor:
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnusableModel(
            f"{info.name!r} is a {(kind or 'value without type').replace('_type', '')}, not a tensor"
            " (for scikit-learn classifiers: export with zipmap=False)."
        )
    tensor = info.type.tensor_type
    if tensor.elem_type not in ELEMENT_TYPES:
        names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
        name = names.get(tensor.elem_type, f"number {tensor.elem_type}")
        raise UnusableModel(f"{info.name!r} has elements of type {name}, which engines do not exchange.")
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    return Tensor(info.name, ELEMENT_TYPES[tensor.elem_type], shape)


def _check_operators(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as exc:
        raise UnusableModel(f"ONNX finds a fault in the model: {str(exc).strip().splitlines()[0]}") from exc
    except UnicodeDecodeError as exc:
        raise UnusableModel("ONNX finds text in the model that is not UTF-8: export it again.") from exc


def _content(file: BinaryIO, field: _Field) -> bytes:
    if field.size > DESCRIPTION_LIMIT:
        raise EOFError
    file.seek(field.start)
    return file.read(field.size)


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message between two offsets. Raises `EOFError` when they do not fit in."""
    while start < end:
        file.seek(start)
        key = _varint(file)
        number, kind = key >> 3, key & 7
        value = size = 0
        if kind == VARINT:
            value = _varint(file)
        elif kind == BYTES:
            size = _varint(file)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise EOFError
        content = file.tell()
        if number == 0 or content + size > end:
            raise EOFError
        yield _Field(number, kind, value, content, size)
        start = content + size


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise EOFError
