"""Requests of one turn of the loop as one: decoded each for itself, run together, answered each with its own rows.

A small request costs little but Python's way through the steps, which is the same for one row and for many. Where all
models of a pipeline are batched, requests that wait for the loop at the same moment go that way together, and none
waits for another. Whatever could make the common answer differ from the single one is left to run one by one.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from opsengine import decode
from opsengine.decode import Batch
from opsengine.fields import Field
from opsengine.rows import Result

EXACT = 2**53  # whole numbers below it are the same as double floats, which numbers of several callers may meet as


def batches(bodies: Iterable[bytes], most: int) -> Iterator[tuple[Batch, list[int]]]:
    """The rows of bodies in JSON, at most `most` in a batch (a body that has more is one), and how many are whose.

    Raises RequestError where a body is at fault, or has other columns than the first.
    """
    rows: list[Any] = []
    counts: list[int] = []
    for body in bodies:
        own = decode.records(body)  # each for itself: no text of one caller may reach into another's
        if rows and len(rows) + len(own) > most:
            yield decode.of_records(rows), counts
            rows, counts = [], []
        rows += own
        counts.append(len(own))
    yield decode.of_records(rows), counts


def is_as_alone(result: Result) -> bool:
    """Whether the inputs of the common run are for certain those that each request alone would have had.

    Numbers that meet in one array take a type that holds them all. Below 2**53 that loses nothing; rows that hold
    anything but numbers have no size in common, by which what is too long for the log is told.
    """
    return all(map(_is_exact, result.inputs.values()))


def _is_exact(value: Field) -> bool:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return False
    return not value.size or (value.min().item() > -EXACT and value.max().item() < EXACT)
