"""The shape that an Arrow column tells of its rows, where the rows themselves are flat lists (images).

Two ways are read: the type `arrow.fixed_shape_tensor` (Arrow's canonical extension; `fields` reads it), and the field
metadata `tensor_type` with the shape inside: `{"shape": [3, 480, 640]}`, or as Arrow prints its type,
`…[value_type=float, shape=[3,480,640]]`.
"""

import re
from math import prod

import numpy as np
import pyarrow as pa

from opsengine.errors import RequestError
from opsengine.fields import Field

METADATA = b"tensor_type"
LENGTHS = re.compile(rb"shape\"?'?\s*[=:]\s*[\[(]\s*([0-9]{1,9}(?:\s*,\s*[0-9]{1,9}){0,15})\s*,?\s*[\])]")


def told_shape(field: pa.Field) -> tuple[int, ...] | None:
    """The shape of a row that the field's metadata tells; None without."""
    text = (field.metadata or {}).get(METADATA)
    found = LENGTHS.search(text) if text else None
    return tuple(map(int, found[1].split(b","))) if found else None


def in_shape(column: Field, shape: tuple[int, ...] | None, name: str) -> Field:
    """The column with rows of `shape`. Raises RequestError where rows have another number of values."""
    if shape is None or not isinstance(column, np.ndarray) or column.shape[1:] == shape:
        return column
    if column.ndim != 2 or column.shape[1] != prod(shape):
        row = "x".join(map(str, column.shape[1:])) or "a single value"
        raise RequestError(f'Column "{name}" has rows of {row}, but its tensor_type tells {"x".join(map(str, shape))}.')
    return column.reshape(len(column), *shape)
