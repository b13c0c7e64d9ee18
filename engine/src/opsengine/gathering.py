"""Requests of one turn of the loop as one: decoded each for itself, run together, answered each with its own rows.

A small request costs little but Python's way through the steps, which is the same for one row and for many. So requests
that wait for the loop at the same moment go that way together, and none waits for another. Models without batching
still run for each alone. Whatever could make an answer differ from that to a single request is left to run one by one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from opsengine import decode, fields
from opsengine.decode import Batch
from opsengine.errors import RequestError
from opsengine.fields import Field, Written
from opsengine.rows import Result
from opsengine.vectors import Column


def joined(bodies: Sequence[bytes], kind: str, limit: int) -> tuple[Batch, tuple[int, ...]]:
    """The rows of bodies of one kind as one batch, and how many are whose. `limit` as in decode.read, for each.

    Raises RequestError where a body is at fault, or has other columns than the first.
    """
    if kind == decode.JSON:
        return _joined_records(bodies)
    batches = [decode.read(body, kind, limit) for body in bodies]
    names = list(batches[0].columns)
    if any(list(batch.columns) != names for batch in batches):
        raise RequestError("The columns of these requests differ.")
    shares = tuple(batch.count for batch in batches)
    columns = {name: fields.end_to_end([batch.columns[name] for batch in batches]) for name in names}
    return Batch(sum(shares), columns, {}), shares


def _joined_records(bodies: Sequence[bytes]) -> tuple[Batch, tuple[int, ...]]:
    vectors = [decode.vector(body) for body in bodies]
    if any(vector is not None for vector in vectors):
        return _joined_vectors(vectors)
    rows: list[Any] = []
    shares: list[int] = []
    for body in bodies:
        own = decode.records(body)  # each for itself: no text of one caller may reach into another's
        if rows and list(own[0]) != list(rows[0]):  # the answer has the caller's own order
            raise RequestError("The columns of these requests differ.")
        rows += own
        shares.append(len(own))
    return decode.of_records(rows), tuple(shares)


def _joined_vectors(vectors: Sequence[Column | None]) -> tuple[Batch, tuple[int, ...]]:
    alike = [vector for vector in vectors if vector is not None]
    # The answer has the caller's own texts, 1.50 or -0, where it would have had them alone, and only there.
    if len(alike) < len(vectors) or len({(name, numbers.shape[1]) for name, numbers, _ in alike}) > 1:
        raise RequestError("The columns of these requests differ.")
    numbers = np.concatenate([vector.numbers for vector in alike])
    sent = Written([text for vector in alike for text in vector.sent.texts])
    whole = Column(alike[0].name, numbers, sent)
    return decode.of_vector(whole), tuple(len(vector.numbers) for vector in alike)


def is_as_alone(result: Result) -> bool:
    """Whether the inputs of the common run are for certain those that each request alone would have had.

    Numbers that meet in one array take a type that holds them all; below 2**53 that loses nothing.
    """
    return all(map(_is_exact, result.inputs.values()))


def _is_exact(value: Field) -> bool:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return True  # rows as they were sent
    return not value.size or (value.min().item() > -fields.EXACT and value.max().item() < fields.EXACT)
