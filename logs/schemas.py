"""Which columns a page must have (`contract/README.md`, section Logs), and what makes two schemas one."""

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from logs.envelope import CONTINUATION, remembered
from logs.errors import InvalidPage

TIME = pa.timestamp("ms")
COLUMNS = ("time", "in", "out", "anomaly", "metadata")
RESERVED = ("_page", "_row", "_arrived")  # what segments write beside the columns of rows


@remembered
def checked_id(message: bytes) -> str:
    """SHA-256 (hex) of the schema that an IPC schema message describes, metadata left out.

    Raises `InvalidPage`, and pyarrow's errors for a message that it cannot read.
    """
    framed = struct.pack("<II", CONTINUATION, len(message)) + message
    schema = pa.ipc.read_schema(pa.py_buffer(framed))
    if len(set(schema.names)) != len(schema.names):
        raise InvalidPage("The page has two columns of the same name.")
    for name in RESERVED:
        if name in schema.names:
            raise InvalidPage(f"The page has a column {name}: that name is the center's own.")
    for name in COLUMNS:
        if name not in schema.names:
            raise InvalidPage(f"The page has no column {name}.")
        needed, is_right = _RULES[name]
        if not is_right(schema.field(name).type):
            raise InvalidPage(f"The page's column {name} is {schema.field(name).type}; it must be {needed}.")
    described = [_describe(field) for field in schema]
    return hashlib.sha256(json.dumps(described, separators=(",", ":")).encode()).hexdigest()


def _describe(field: pa.Field) -> list[Any]:
    """Name, type, nullability and children, without metadata: what makes two schemas one. Raises `InvalidPage`."""
    value_type = field.type
    children = [value_type.field(index) for index in range(value_type.num_fields)]
    names = [child.name for child in children]
    if pa.types.is_struct(value_type) and len(set(names)) != len(names):
        raise InvalidPage(f"The page's {field.name} has two fields of the same name.")
    _check_readable(field, children)
    own = f"{value_type.id}:{getattr(value_type, 'list_size', '')}" if children else str(value_type)
    return [field.name, own, field.nullable, [_describe(child) for child in children]]


def _check_readable(field: pa.Field, children: list[pa.Field]) -> None:
    """Refuses what is valid Arrow and cannot be written as JSON: the writer would break off with a panic."""
    if "\0" in field.name:
        raise InvalidPage("A column of the page has a NUL character in its name.")
    if pa.types.is_fixed_size_list(field.type) and field.type.list_size == 0:
        raise InvalidPage(f"The page's {field.name} is a list of the fixed size 0.")
    if any(pa.types.is_timestamp(child.type) for child in children):
        raise InvalidPage(f"The page's {field.name} holds a timestamp: send it as a whole number or as text.")


def _is_text(value_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(value_type) or pa.types.is_large_string(value_type))


def _is_time(value_type: pa.DataType) -> bool:
    return bool(value_type == TIME or pa.types.is_int64(value_type))


def _is_list_of(value_type: pa.DataType, is_right: Callable[[pa.DataType], bool]) -> bool:
    is_list = pa.types.is_list(value_type) or pa.types.is_large_list(value_type)
    return bool(is_list and is_right(value_type.value_type))


def _is_anomaly(value_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_struct(value_type)
        and value_type.get_field_index("count") >= 0
        and pa.types.is_integer(value_type.field("count").type)
    )


_METADATA: dict[str, Callable[[pa.DataType], bool]] = {
    "last_model": _is_text,
    "pipeline_version": _is_text,
    "elapsed": lambda value_type: _is_list_of(value_type, pa.types.is_integer),
    "dropped": lambda value_type: _is_list_of(value_type, _is_text),
    "partition": _is_text,
}


def _is_metadata(value_type: pa.DataType) -> bool:
    return bool(pa.types.is_struct(value_type)) and all(
        value_type.get_field_index(name) >= 0 and is_right(value_type.field(name).type)
        for name, is_right in _METADATA.items()
    )


_RULES: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "time": ("timestamp[ms] or int64", _is_time),
    "in": ("a struct of the inputs", pa.types.is_struct),
    "out": ("a struct of the outputs", pa.types.is_struct),
    "anomaly": ("a struct with a whole number count", _is_anomaly),
    "metadata": (
        "a struct with the strings last_model, pipeline_version and partition, elapsed (list<int64>) and "
        "dropped (list<string>)",
        _is_metadata,
    ),
}
