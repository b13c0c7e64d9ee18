"""Exact aggregates of any numeric field, by any groups and conditions, from the rows themselves."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np

from catalog import queries as catalog
from common.errors import Invalid, TooLarge
from logs import scans
from logs.scans import Condition, Scope
from logs.sketches import Floats

MAX_GROUPS = 1000
MAX_VALUES = 10_000_000
BATCH_ROWS = 100_000
FINITE = "SELECT edge, f0 FROM found WHERE isfinite(f0)"
GROUPS = {"edge": "edge", "model": "model", "pipeline_version": "version"}


@dataclass(frozen=True)
class Question:
    """What to sum up and by what: `edge`, `model`, `pipeline_version`, a `step` in seconds, or the text of a field."""

    field: str = ""
    by: tuple[str, ...] = ()
    step: int | None = None


@dataclass(frozen=True)
class Exact:
    """A group's rows, and the numbers of the field in them: `count` finite ones, `nulls`, and `odd` (NaN, infinity).

    `groups` are in the order asked for; `start` (epoch ms) is the step's.
    """

    groups: tuple[str | None, ...]
    start: int | None
    rows: int
    count: int
    nulls: int
    odd: int
    min: float | None
    max: float | None
    mean: float | None
    deviation: float | None
    sum: float | None
    p50: float | None
    p90: float | None
    p99: float | None


def condition(text: str) -> Condition:
    """`out.variable[0] >= 250.5`, or with text in double quotes. Raises `Invalid`."""
    found = re.fullmatch(r"\s*(.+?)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*", text, re.DOTALL)
    if not found:
        raise Invalid(f"{text} is no condition: write a field, a comparison and a value, as in out.variable[0] >= 250.")
    path, operator, value = found.groups()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return Condition(path, operator, value[1:-1])
    try:
        number = float({"true": "1", "false": "0"}.get(value, value))
    except ValueError as exc:
        raise Invalid(f"{value} is no number: write text in double quotes.") from exc
    return Condition(path, operator, number)


def scope_for(
    actor: catalog.Actor,
    pipeline_pk: int,
    *,
    start: datetime,
    end: datetime,
    edges: Iterable[str] = (),
    pipeline_version: UUID | None = None,
    model: str = "",
    where: Iterable[Condition] = (),
) -> Scope:
    """Rows of a pipeline that the actor may see, from `start` until before `end`. Raises `NotFound`, `Invalid`."""
    if end <= start:
        raise Invalid("The time range is empty: end must be after start.")
    return Scope(
        pipeline=catalog.pipeline_for(actor, pipeline_pk),
        start=int(start.timestamp() * 1000),
        end=math.ceil(end.timestamp() * 1000),
        edges=tuple(edges),
        pipeline_version=pipeline_version,
        model=model,
        where=tuple(where),
    )


def summed(scope: Scope, question: Question) -> list[Exact]:
    """The groups in their order, by step first. Raises `Invalid` and what `scans.scan` raises."""
    fields = ([question.field] if question.field else []) + [name for name in question.by if name not in GROUPS]
    keys = _keys(question)
    value = "f0" if question.field else "NULL::DOUBLE"
    number = f"CASE WHEN isfinite({value}) THEN {value} END"
    columns = [
        "count(*)",
        f"count({number})",
        f"count(*) - count({value})",
        f"count({value}) - count({number})",
        *(f"{name}({number})" for name in ("min", "max", "avg", "stddev_pop", "sum")),
        *(f"quantile_cont({number}, {part})" for part in (0.5, 0.9, 0.99)),
    ]
    grouping = f"GROUP BY {', '.join(keys)} ORDER BY {', '.join(f'{key} NULLS LAST' for key in keys)}" if keys else ""
    with scans.scan(scope, fields) as scan:
        rows = scan.execute(
            f"SELECT {', '.join([*keys, *columns])} FROM found {grouping} LIMIT {MAX_GROUPS + 1}"
        ).fetchall()
    if len(rows) > MAX_GROUPS:
        raise TooLarge(
            f"There are more than {MAX_GROUPS} groups: ask for longer steps or fewer groups.", limit=MAX_GROUPS
        )
    return [_exact(row, question) for row in rows]


def _keys(question: Question) -> list[str]:
    keys, at = [], 1 if question.field else 0
    if question.step is not None:
        if question.step < 1:
            raise Invalid("step must be at least 1 second.")
        keys.append(f"t - t % {question.step * 1000}")
    for name in question.by:
        if name in GROUPS:
            keys.append(GROUPS[name])
        else:
            keys.append(f"s{at}")
            at += 1
    return keys


def _exact(row: tuple[object, ...], question: Question) -> Exact:
    values: list[object] = list(row)
    start = values.pop(0) if question.step is not None else None
    groups = tuple(values[: len(question.by)])
    rows, count, nulls, odd, *numbers = values[len(question.by) :]
    return Exact(groups, start, rows, count, nulls, odd, *map(_finite, numbers))  # type: ignore[arg-type]


def _finite(value: object) -> float | None:
    return value if isinstance(value, float) and math.isfinite(value) else None


def values(scope: Scope, field: str, seconds: float = scans.SECONDS) -> dict[str, Floats]:
    """The finite numbers of a field by edge, all in memory. Raises `TooLarge` for more than `MAX_VALUES`."""
    found: dict[str, list[Floats]] = {}
    total = 0
    for edge, numbers in _streamed(scope, field, seconds):
        total += len(numbers)
        if total > MAX_VALUES:
            raise TooLarge(f"There are more than {MAX_VALUES} values: ask for a shorter time.", limit=MAX_VALUES)
        found.setdefault(edge, []).append(numbers)
    return {edge: np.concatenate(parts) for edge, parts in found.items()}


def together(found: Mapping[str, Floats]) -> Floats:
    """The numbers of all edges."""
    return np.concatenate([np.empty(0), *found.values()])


def _streamed(scope: Scope, field: str, seconds: float) -> Iterator[tuple[str, Floats]]:
    with scans.scan(scope, [field], seconds) as scan:
        for batch in scan.batches(FINITE, BATCH_ROWS):
            edges = batch.column(0).dictionary_encode()
            which, numbers = edges.indices.to_numpy(), batch.column(1).to_numpy()
            for at, edge in enumerate(edges.dictionary.to_pylist()):
                yield edge, numbers[which == at]
