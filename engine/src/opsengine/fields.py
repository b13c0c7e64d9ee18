"""Columns of data between JSON, Arrow and models.

A *field* is one column: a numpy array whose first axis is the rows, or, where rows are text, uneven or partly empty,
a list with one value a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import starmap
from math import prod
from struct import Struct
from struct import error as StructError

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from opsengine.errors import RequestError

Array = npt.NDArray[np.generic]
Field = Array | list[object]


@dataclass(frozen=True, slots=True)
class Written:
    """A column of lists as its caller wrote it: the JSON text in each row, without its brackets."""

    texts: list[bytes]


Sent = list[object] | Written  # a column of a JSON body
Shape = tuple[int | None, ...]
# What pyarrow raises for types that it has no values of, and for damaged ones: digits of a decimal, say.
UNREADABLE = (pa.ArrowException, ValueError, KeyError, TypeError, ArithmeticError)

# How Python's numbers are packed as those of a model; what does not fit, or is no number, is refused by `struct`.
PACKED = {np.dtype(name): form for name, form in (("f4", "f"), ("f8", "d"), ("i4", "i"), ("i8", "q"))}
MANY_NUMBERS = 200  # fewer are as quick by numpy's own way
EXACT = 2.0**53  # beyond it whole numbers have no float of their own, and numpy knows how to round them


def from_values(values: Sequence[object], name: str, wanted: np.dtype[np.generic]) -> Array:
    """A JSON column as an array of numbers or booleans, to be cast: of the type `wanted` already where that is quicker.

    Raises RequestError naming the column.
    """
    quick = _packed(values, wanted)
    if quick is not None:
        return quick
    try:
        array: Array = np.array(values)
    except (ValueError, OverflowError):
        raise RequestError(f'Column "{name}" is ragged: all its rows must have the same shape.') from None
    if array.dtype.kind not in "biuf":
        raise RequestError(f'Column "{name}" {_why_no_numbers(values)}.')
    if wanted.kind in "iu" and array.dtype.kind == "f" and array.size and np.abs(array).max() >= EXACT:
        return _whole(values, wanted, array)
    return array


def _whole(values: Sequence[object], wanted: np.dtype[np.generic], rounded: Array) -> Array:
    """Whole numbers as they were sent, of which numpy makes floats: 2**64 - 1 and 0 have no type in common."""
    exact: Array = np.array(values, dtype=object)
    try:
        made: Array = np.array([int(value) for value in exact.reshape(-1).tolist()], dtype=wanted).reshape(exact.shape)
    except OverflowError:
        return rounded
    return made if (made == rounded).all() else rounded  # else there are fractions


def _packed(values: Sequence[object], wanted: np.dtype[np.generic]) -> Array | None:
    """Rows of numbers, or of as many numbers each, in a third of numpy's time; None where numpy has to look closer."""
    first = values[0]
    shape = (len(values), len(first)) if isinstance(first, list) else (len(values),)
    form = PACKED.get(wanted)
    if prod(shape) < MANY_NUMBERS or form is None:
        return None
    try:
        if isinstance(first, list):
            packed = b"".join(starmap(Struct(f"{len(first)}{form}").pack, values))  # type: ignore[arg-type]  # or TypeError
        else:
            packed = Struct(f"{len(values)}{form}").pack(*values)
    except (StructError, TypeError):
        return None
    array = np.frombuffer(packed, wanted).reshape(shape)
    return array if wanted.kind == "i" or np.abs(array).max() < EXACT else None


def text_from_values(values: Sequence[object], name: str) -> Array:
    """A column of text as an array of str objects. Raises RequestError naming the column."""
    array: Array = np.array(values, dtype=object)
    if not all(isinstance(value, str) for value in array.reshape(-1)):
        raise RequestError(f'Column "{name}" must hold text in every row.')
    return array


def _why_no_numbers(values: Sequence[object]) -> str:
    flat = list(values)
    while any(isinstance(value, list) for value in flat):
        flat = [inner for value in flat for inner in (value if isinstance(value, list) else [value])]
    if any(value is None for value in flat):
        return "has an empty value (null): every row needs a value"
    if any(isinstance(value, str) for value in flat):
        return "holds text, but the model takes numbers"
    return "does not hold numbers only"


def cast(array: Array, dtype: np.dtype[np.generic], name: str) -> Array:
    """The array in the model's number type, where no value changes its meaning. Raises RequestError naming the column.

    Rounding to a shorter float is accepted; text, lost fractions and numbers out of range are not.
    """
    if array.dtype == dtype:
        return array
    source, target = array.dtype.kind, dtype.kind
    if source not in "biuf" or (target == "b" and source != "b"):
        raise RequestError(f'Column "{name}" has type {array.dtype}, but the model takes {dtype}.')
    if target in "iu":
        _check_whole(array, dtype, name)
    with np.errstate(over="ignore", invalid="ignore"):
        made: Array = array.astype(dtype)
    if (
        target == "f"
        and array.dtype.itemsize > dtype.itemsize
        and not np.logical_and.reduce(np.isfinite(made), axis=None)  # what `all` comes to, in half the time
        and np.isfinite(array).sum() != np.isfinite(made).sum()
    ):
        raise RequestError(f'Column "{name}" has a number too large for the model\'s {dtype}.')
    return made


def _check_whole(array: Array, dtype: np.dtype[np.generic], name: str) -> None:
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            is_whole = bool(
                (np.isfinite(array.astype(np.float64)) & (np.trunc(array.astype(np.float64)) == array)).all()
            )
        if not is_whole:
            raise RequestError(f'Column "{name}" has fractions, but the model takes whole numbers ({dtype}).')
    if array.dtype.kind != "b" and array.size:
        limits = np.iinfo(dtype.name)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise RequestError(f'Column "{name}" has a number out of the range of the model\'s {dtype}.')


def fit(array: Array, shape: Shape, name: str) -> Array:
    """The array with rows of the model's `shape` (None: any length). Raises RequestError naming column and shapes.

    Taken: the very shape, a flat list of as many numbers, and shapes that differ only by axes of length one. Anything
    else of the same size (say, channels last) would be read in the wrong order and is refused.
    """
    row = array.shape[1:]
    if len(row) == len(shape) and all(want in (None, have) for want, have in zip(shape, row, strict=True)):
        return array
    known = [length for length in shape if length is not None]
    if len(known) == len(shape) and prod(row) == prod(known) and (len(row) <= 1 or _squeezed(row) == _squeezed(known)):
        return array.reshape(array.shape[0], *known)
    wanted = "x".join("any" if length is None else str(length) for length in shape) or "a single number"
    found = "x".join(map(str, row)) or "a single number"
    raise RequestError(f'Column "{name}" has rows of shape {found}, but the model takes {wanted}.')


def _squeezed(shape: Sequence[int]) -> list[int]:
    return [length for length in shape if length != 1]


def end_to_end(parts: Sequence[Field]) -> Field:
    """A column's rows of several requests in one. Raises RequestError where they differ in type or shape."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if not arrays:
        return [value for part in parts for value in part]
    if len(arrays) != len(parts) or len({(array.dtype.str, array.shape[1:]) for array in arrays}) != 1:
        raise RequestError("The rows of these requests differ in type or shape.")
    return np.concatenate(arrays)


def from_arrow(array: pa.Array, check: Callable[[pa.Array], None] = lambda array: None) -> Field:
    """An Arrow column as a field: not copied where rows are numbers of one shape, else a list of Python values.

    `check` is asked before Python values are made. Raises what it raises, and an exception of UNREADABLE for values
    that there is no Python value for.
    """
    if isinstance(array, pa.ExtensionArray):
        if (
            isinstance(array, pa.FixedShapeTensorArray)
            and not array.null_count
            and not array.storage.flatten().null_count
        ):
            return _tensors(array)
        array = array.storage
    elif pa.types.is_dictionary(array.type):
        check(array)
        try:
            array = array.dictionary_decode()
        except pa.ArrowNotImplementedError:  # of the newer views of text, which polars' categories are
            return _values(array)
    dense = _dense(array)
    if dense is not None:
        return dense
    check(array)
    return _values(array)


def _values(array: pa.Array) -> list[object]:
    """Python's values; as text the times that Python has none for: with nanoseconds, or far off."""
    try:
        return array.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError):
        return array.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _tensors(array: pa.FixedShapeTensorArray) -> Array:
    """Rows in the order of their axes that the type tells (`permutation`), not that of the memory."""
    dense = _dense(array.storage)
    if dense is None:
        return np.empty((0, *array.type.shape))
    order = array.type.permutation
    made = dense.reshape(len(array), *array.type.shape)
    return made if order is None else made.transpose(0, *(axis + 1 for axis in order))


def _dense(array: pa.Array) -> Array | None:
    kind = array.type
    if array.null_count:
        return None
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers: Array = array.to_numpy(zero_copy_only=not pa.types.is_boolean(kind))
        return numbers
    length = _even_length(array)
    if length is None:
        return None
    inner = _dense(array.flatten())
    return None if inner is None else inner.reshape(len(array), length, *inner.shape[1:])


def _even_length(array: pa.Array) -> int | None:
    """The common length of a list column's rows, None where there is none."""
    if pa.types.is_fixed_size_list(array.type):
        return int(array.type.list_size)
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)) or not len(array):
        return None
    lengths = np.diff(array.offsets.to_numpy())
    return int(lengths[0]) if (lengths == lengths[0]).all() else None


def to_arrow(field: Field) -> pa.Array:
    """A field as an Arrow column: rows of one axis or more become (nested) lists. Raises pa.ArrowException."""
    if isinstance(field, list):
        return pa.array(field)
    if field.dtype.kind == "O":
        return pa.array(field.tolist())
    column = pa.array(np.ascontiguousarray(field).reshape(-1))
    for axis in range(field.ndim - 1, 0, -1):
        count, length = prod(field.shape[:axis]), field.shape[axis]
        column = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(length)), column)
    return column


def printed(field: Field | Written) -> bytes | list[bytes]:
    """Each row's value as JSON text, without the brackets that all rows share; of a single row just its text.

    Numbers are printed as short as their type allows (float32 718013.7).
    """
    if not isinstance(field, np.ndarray) or not _is_even(field):
        texts = field.texts if isinstance(field, Written) else _printed_each(field)
        return texts if len(texts) > 1 else texts[0]
    if field.size == len(field) > 1:
        field = field.reshape(-1)  # a number a row, whatever its brackets: in half the time
    axes = field.ndim
    text = orjson.dumps(
        field if field.flags.c_contiguous else np.ascontiguousarray(field), option=orjson.OPT_SERIALIZE_NUMPY
    )
    if len(field) == 1:
        return text[axes:-axes]
    # The whole array is printed at once; between two rows stands `]],[[` with one bracket fewer than there are axes.
    texts = text.split(b"]" * (axes - 1) + b"," + b"[" * (axes - 1))
    texts[0], texts[-1] = texts[0][axes:], texts[-1][:-axes]
    return texts


def _printed_each(field: Field) -> list[bytes]:
    values = field.tolist() if isinstance(field, np.ndarray) else field
    if len(values) > 1 and isinstance(values[0], int | float | list):
        known = _printed_numbers(orjson.dumps(values, default=str, option=orjson.OPT_SERIALIZE_NUMPY), len(values))
        if known is not None:
            return known
    return [orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY) for value in values]


def _printed_numbers(text: bytes, count: int) -> list[bytes] | None:
    """The rows of a list that was printed at once, where all are numbers, or all are lists of numbers."""
    if b'"' in text or b"{" in text:  # text may hold what stands between rows
        return None
    opened = text.count(b"[")
    if opened == 1:
        return text[1:-1].split(b",")
    # Where a row is a number and another a list in a list, there are fewer of these.
    if opened == count + 1 and text.count(b"],[") == count - 1:
        return text[1:-1].replace(b"],[", b"]\n[").split(b"\n")
    return None


def brackets(field: Field | Written) -> int:
    """How many pairs of brackets stand around what `printed` gives of a row."""
    if isinstance(field, Written):
        return 1
    return field.ndim - 1 if isinstance(field, np.ndarray) and _is_even(field) else 0


def _is_even(field: Array) -> bool:
    """Whether all rows of an array are printed with the same outer brackets: none is text, or empty further out."""
    return field.dtype.kind != "O" and (field.ndim < 3 or 0 not in field.shape[1:-1])
