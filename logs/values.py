"""Values of a column, and how they compare with what a person wrote.

A condition is true, false or unknown (null) for a row, as in SQL: unknown where the row has no such column, no value
or one of another kind. A number is compared in the column's own type, so that what is shown as 0.1 equals 0.1.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Literal = bool | int | float | str
Bounds = tuple[Literal, Literal]
Places = npt.NDArray[np.int64]

_COMPUTED: dict[str, Callable[..., pa.Array]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
OPERATORS = tuple(_COMPUTED)
_PLAIN: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare(array: pa.Array, sign: str, literal: Literal) -> pa.Array:
    """For each value (no lists) whether it compares so; null where it is null or of another kind than the literal."""
    kind = array.type
    if isinstance(literal, bool):
        return _same(array, sign, literal) if pa.types.is_boolean(kind) and sign in ("=", "!=") else _unknown(array)
    if isinstance(literal, str):
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return _same(array, sign, literal) if is_text else _unknown(array)
    if pa.types.is_floating(kind):
        return _floating(array, sign, literal)
    return _whole(array, sign, literal) if pa.types.is_integer(kind) else _unknown(array)


def leaves(array: pa.Array, steps: Sequence[str | int]) -> tuple[pa.Array, Places] | None:
    """The values at the end of a path, and for each the row that it is of; None where the path leads nowhere.

    A name is a field of a struct, a number an element (from the end when negative). Lists that no number chose from
    give all their elements.
    """
    rows = np.arange(len(array))
    for step in steps:
        if isinstance(step, int):
            if not _is_list(array.type):
                return None
            array = _element(array, step)
            continue
        array, rows = _flat(array, rows)
        if not pa.types.is_struct(array.type) or array.type.get_field_index(step) < 0:
            return None
        array = pc.struct_field(array, step)
    return _flat(array, rows)


def flat(array: pa.Array) -> tuple[pa.Array, Places]:
    """The elements of lists at every depth, and for each the row that it is of."""
    return _flat(array, np.arange(len(array)))


def any_of_row(found: pa.Array, rows: Places, count: int) -> pa.Array:
    """For each of `count` rows whether any of its values is true; null where no value is known."""
    known, true = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    known[rows[found.is_valid().to_numpy(zero_copy_only=False)]] = True
    true[rows[found.fill_null(False).to_numpy(zero_copy_only=False)]] = True
    return pa.array(true, mask=~known)


def may_hold(bounds: Bounds, sign: str, literal: Literal) -> bool:
    """Whether a value between two others (both included) may compare so."""
    low, high = bounds
    if sign == "!=" or isinstance(literal, str) != isinstance(low, str):
        return True
    if isinstance(literal, str):
        least: Literal = literal
        most: Literal = literal
    else:
        least, most = _rounded(literal)
    try:
        if sign == "=":
            return bool(_PLAIN["<="](low, most) and _PLAIN[">="](high, least))
        return _PLAIN[sign](low, most) if sign in ("<", "<=") else _PLAIN[sign](high, least)
    except TypeError:
        return True


def _rounded(literal: float) -> tuple[float, float]:
    """The least and the most that a number is as float16, float32 and float64, which columns may be."""
    with np.errstate(over="ignore"):
        every = [literal, float(np.float32(_double(literal))), float(np.float16(_double(literal)))]
    return min(every), max(every)


def _double(literal: float) -> float:
    try:
        return float(literal)
    except OverflowError:
        return float("inf") if literal > 0 else float("-inf")


def _same(array: pa.Array, sign: str, literal: Literal) -> pa.Array:
    return _COMPUTED[sign](array, pa.scalar(literal, array.type))


def _floating(array: pa.Array, sign: str, literal: float) -> pa.Array:
    value = _double(literal)
    if pa.types.is_float16(array.type):
        # There are no kernels for it; what a float16 shows is what the number is as float16.
        with np.errstate(over="ignore"):
            return _same(array.cast(pa.float32()), sign, float(np.float16(value)))
    if pa.types.is_float32(array.type):
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
    return _same(array, sign, value)


def _whole(array: pa.Array, sign: str, literal: float) -> pa.Array:
    """Without rounding: a whole number may be larger than what a float can tell apart."""
    if isinstance(literal, float) and not literal.is_integer():
        if sign in ("=", "!="):
            return _constant(array, sign == "!=")
        # Between two whole numbers: below it means up to the lower one.
        sign, literal = ("<=", np.floor(literal)) if sign in ("<", "<=") else (">=", np.ceil(literal))
    number = int(literal)
    limits = np.iinfo(array.type.to_pandas_dtype())
    if not limits.min <= number <= limits.max:
        return _constant(array, _PLAIN[sign](0, number))
    return _same(array, sign, number)


def _constant(array: pa.Array, value: bool) -> pa.Array:
    return pa.array(np.full(len(array), value), mask=array.is_null().to_numpy(zero_copy_only=False))


def _unknown(array: pa.Array) -> pa.Array:
    return pa.nulls(len(array), pa.bool_())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _flat(array: pa.Array, rows: Places) -> tuple[pa.Array, Places]:
    while _is_list(array.type):
        plain = _plain_list(array)
        # Not `list_parent_indices`: it counts what lies below a null, `list_flatten` does not.
        rows = np.repeat(rows, _lengths(plain))
        array = pc.list_flatten(plain)
    return array, rows


def _plain_list(array: pa.Array) -> pa.Array:
    """A fixed-size list as one of any size."""
    return array.cast(pa.list_(array.type.value_type)) if pa.types.is_fixed_size_list(array.type) else array


def _lengths(lists: pa.Array) -> Places:
    lengths: Places = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return lengths


def _element(array: pa.Array, index: int) -> pa.Array:
    """That element of each list; null where a list is shorter."""
    plain = _plain_list(array)
    lengths = _lengths(plain)
    places = index if index >= 0 else lengths + index
    is_there = (places < lengths) & (places >= 0)
    begins = plain.offsets.to_numpy()[:-1]
    return plain.values.take(pa.array(np.where(is_there, begins + places, 0), mask=~is_there))
