"""What becomes of an answered request: it is counted, and logged without the inputs that are too long for the log."""

from collections.abc import Callable, Sized
from dataclasses import replace

import numpy as np

from opsengine import rows
from opsengine.fields import Field
from opsengine.rows import Result

NUMBER_BYTES = 8


class Recorder:
    """Takes each result of the data plane. `limit`: bytes that one row of an input may take in the log."""

    def __init__(self, log: Callable[[Result], None], count: Callable[[Result], None], limit: int) -> None:
        self._log = log
        self._count = count
        self._limit = limit

    def __call__(self, result: Result) -> None:
        """Count and log."""
        self._count(result)
        logged = trimmed(result, self._limit)
        if logged is result or not result.shares:
            self._log(logged)
            return
        for one in rows.apart(result):  # what is too long of one request is there of the others
            self._log(trimmed(one, self._limit))


def trimmed(result: Result, limit: int) -> Result:
    """The result as it is logged: inputs with rows over `limit` bytes are gone, and named in `dropped`."""
    kept = {name: value for name, value in result.inputs.items() if _is_short(value, limit)}
    if len(kept) == len(result.inputs):
        return result
    long = (name for name in result.inputs if name not in kept)
    return replace(result, inputs=kept, dropped=(*result.dropped, *long))


def _is_short(field: Field, limit: int) -> bool:
    if isinstance(field, np.ndarray) and field.nbytes <= limit and not field.dtype.hasobject:
        return True  # all rows together are: the case of most requests
    return _longest(field, limit) <= limit


def _longest(field: Field, limit: int) -> int:
    """Bytes of the longest row; for lists the search ends where `limit` is passed."""
    if isinstance(field, np.ndarray):
        if field.dtype.kind != "O":
            return field.nbytes // max(1, len(field))
        return max((_size(value, limit) for value in field.reshape(len(field), -1).tolist()), default=0)
    return max((_size(value, limit) for value in field), default=0)


def _size(value: object, limit: int) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, dict)):
        total = 0
        for inner in value.values() if isinstance(value, dict) else value:
            total += _size(inner, limit)
            if total > limit:
                break
        return total
    return len(value) if isinstance(value, Sized) else NUMBER_BYTES
