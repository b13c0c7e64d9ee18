"""Evaluates validations on columns. A validation whose value is empty (null) for a row counts as false there."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from opsengine.errors import RequestError
from opsengine.expressions import Expression
from opsengine.fields import Array, Field


class _Value(NamedTuple):
    """Rows of scalars, or of lists. `valid` is False where a row is empty, None when none is."""

    data: Any
    valid: Array | None = None


def evaluate(rules: tuple[tuple[str, Expression], ...], columns: Mapping[str, Field], count: int) -> dict[str, Array]:
    """Each validation as a boolean a row. Raises RequestError naming the validation that cannot be computed."""
    made = {}
    for name, expression in rules:
        try:
            with np.errstate(all="ignore"):
                made[name] = _truth(_value(expression, columns, count), count)
        except KeyError as error:
            raise RequestError(f'Validation "{name}" reads column {error}, which the request does not have.') from None
        except (TypeError, ValueError, OverflowError) as error:
            raise RequestError(f'Validation "{name}" cannot be computed on these values: {error}.') from None
    return made


def _truth(value: _Value, count: int) -> Array:
    data = _scalars(value)
    if data.data.dtype.kind != "b":
        raise TypeError("it is not true or false but a value")
    truth = np.broadcast_to(data.data, (count,))
    return np.array(truth if data.valid is None else truth & data.valid)


def _value(node: Expression, columns: Mapping[str, Field], count: int) -> _Value:
    if node.op == "column":
        return _of_field(columns[node.value])
    if node.op == "literal":
        return (
            _Value(np.asarray(False), np.zeros(count, bool)) if node.value is None else _Value(np.asarray(node.value))
        )
    inputs = [_value(part, columns, count) for part in node.inputs]
    if node.op == "ListExpr.Get":
        return _get(inputs[0], int(node.inputs[1].value))
    if node.op.startswith("ListExpr."):
        return _of_lists(node.op, inputs[0])
    if node.op in ("Boolean.IsNull", "Boolean.IsNotNull"):
        return _emptiness(inputs[0], count, wants_empty=node.op == "Boolean.IsNull")
    scalars = [_scalars(value) for value in inputs]
    data = [_weak(value.data, node.inputs[place]) for place, value in enumerate(scalars)]
    masks = [value.valid for value in scalars if value.valid is not None]
    valid = np.logical_and.reduce(masks) if masks else None
    if node.op == "Boolean.IsBetween":
        return _Value(_between(data, str(node.value or "Both")), valid)
    return _Value(np.asarray(_checked(node.op, data)), valid)


def _weak(data: Array, node: Expression) -> Any:
    """Literals take the type of the column: float32 718013.7 equals the literal 718013.7."""
    return node.value if node.op == "literal" and node.value is not None else data


_OPERATORS: dict[str, Callable[..., Any]] = {
    "Eq": np.equal,
    "NotEq": np.not_equal,
    "Lt": np.less,
    "LtEq": np.less_equal,
    "Gt": np.greater,
    "GtEq": np.greater_equal,
    "Plus": np.add,
    "Minus": np.subtract,
    "Multiply": np.multiply,
    "Divide": np.true_divide,
    "TrueDivide": np.true_divide,
    "FloorDivide": np.floor_divide,
    "Modulus": np.mod,
    "And": np.logical_and,
    "LogicalAnd": np.logical_and,
    "Or": np.logical_or,
    "LogicalOr": np.logical_or,
    "Xor": np.logical_xor,
    "Abs": np.abs,
    "Negate": np.negative,
    "Boolean.Not": np.logical_not,
    "Boolean.IsNot": np.logical_not,
    "Boolean.IsNan": np.isnan,
}


def _checked(op: str, data: list[Any]) -> Any:
    kinds = {"text" if np.asarray(part).dtype.kind in "OU" else "number" for part in data}
    if len(kinds) > 1 or (kinds == {"text"} and op not in ("Eq", "NotEq", "Lt", "LtEq", "Gt", "GtEq")):
        raise TypeError("text and numbers do not go together")
    made = _OPERATORS[op](*data)
    return made.astype(bool) if np.asarray(made).dtype.kind == "O" else made


def _between(data: list[Any], closed: str) -> Any:
    value, low, high = data
    above = _checked("GtEq" if closed in ("Both", "Left") else "Gt", [value, low])
    below = _checked("LtEq" if closed in ("Both", "Right") else "Lt", [value, high])
    return np.logical_and(above, below)


def _of_field(field: Field) -> _Value:
    if isinstance(field, np.ndarray):
        return _Value(field)
    if any(isinstance(value, list | dict) for value in field):
        return _Value(field)
    valid = np.array([value is not None for value in field])
    filler = next((value for value in field if value is not None), 0)
    values = [filler if value is None else value for value in field]
    if isinstance(filler, str):
        return _Value(np.array(values, dtype=object), valid)
    return _Value(np.array(values), valid)


def _scalars(value: _Value) -> _Value:
    """Rows of one value; lists of one value are taken as that value."""
    if isinstance(value.data, list):
        value = _get(value, 0) if all(isinstance(row, list) and len(row) == 1 for row in value.data) else value
    if isinstance(value.data, list) or value.data.ndim > 1:
        if isinstance(value.data, np.ndarray) and value.data[0].size == 1:
            return _Value(value.data.reshape(len(value.data)), value.valid)
        raise TypeError("a list is not a single value: take one with list.get, or [0]")
    return value


def _get(value: _Value, index: int) -> _Value:
    data = value.data
    if isinstance(data, list):
        return _of_field(
            [row[index] if isinstance(row, list) and -len(row) <= index < len(row) else None for row in data]
        )
    if data.ndim < 2:
        raise TypeError("a single value has no places")
    if not -data.shape[1] <= index < data.shape[1]:
        return _Value(np.zeros(len(data), data.dtype), np.zeros(len(data), bool))
    return _Value(data[:, index], value.valid)


def _of_lists(op: str, value: _Value) -> _Value:
    rows = value.data
    if isinstance(rows, list):
        if not all(isinstance(row, list) and row for row in rows) and op != "ListExpr.Length":
            raise TypeError("a row has no list, or an empty one")
        makes: dict[str, Callable[[Any], Any]] = {
            "Length": len,
            "Max": max,
            "Min": min,
            "Sum": sum,
            "Mean": lambda row: sum(row) / len(row),
        }
        return _Value(np.array([makes[op.removeprefix("ListExpr.")](row) for row in rows]))
    if rows.ndim != 2:
        raise TypeError("it is not a list")
    if op == "ListExpr.Length":
        return _Value(np.full(len(rows), rows.shape[1]))
    if not rows.shape[1]:
        return _Value(np.zeros(len(rows)), np.zeros(len(rows), bool))
    return _Value(getattr(rows, op.removeprefix("ListExpr.").lower())(axis=1))


def _emptiness(value: _Value, count: int, *, wants_empty: bool) -> _Value:
    if isinstance(value.data, list):
        is_empty = np.array([row is None for row in value.data])
    else:
        is_empty = np.zeros(count, bool) if value.valid is None else ~np.asarray(value.valid, bool)
    return _Value(is_empty if wants_empty else ~is_empty)
