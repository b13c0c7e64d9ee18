"""Exact aggregates of any numeric field, by any groups and conditions, from the rows themselves."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from django.utils import timezone
from django.utils.translation import gettext as _

from catalog import queries as catalog
from common.errors import Invalid, TooLarge
from logs import queries, scans
from logs.filters import Filters
from logs.scans import Scope
from logs.sketches import Floats

DEFAULT_PERIOD = timedelta(days=1)
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


def scope_for(actor: catalog.Actor, pipeline_pk: int, filters: Filters) -> Scope:
    """The rows of a pipeline that the actor may see; of a day until now where no time is given. Both ends are included.

    Raises `NotFound`, `Invalid`.
    """
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    catalog.version_pks(pipeline, filters.pipeline_versions)
    until = filters.end or timezone.now()
    start, end = queries.first_at(filters.start or until - DEFAULT_PERIOD), queries.last_at(until)
    if start is None or end is None or end < start:
        raise Invalid(_("The time range is empty: end must not be before start."))
    return Scope(pipeline, start, end + 1, filters)


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
            _("There are more than %(max_groups)s groups: ask for longer steps or fewer groups.")
            % {"max_groups": MAX_GROUPS},
            limit=MAX_GROUPS,
        )
    return [_exact(row, question) for row in rows]


def _keys(question: Question) -> list[str]:
    keys, at = [], 1 if question.field else 0
    if question.step is not None:
        if question.step < 1:
            raise Invalid(_("step must be at least 1 second."))
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
            raise TooLarge(
                _("There are more than %(max_values)s values: ask for a shorter time.") % {"max_values": MAX_VALUES},
                limit=MAX_VALUES,
            )
        found.setdefault(edge, []).append(numbers)
    return {edge: np.concatenate(parts) for edge, parts in found.items()}


def together(found: Mapping[str, Floats]) -> Floats:
    """The numbers of all edges."""
    return np.concatenate([np.empty(0), *found.values()])


def _streamed(scope: Scope, field: str, seconds: float) -> Iterator[tuple[str, Floats]]:
    with scans.scan(scope, [field], seconds) as scan:
        for batch in scan.sql(FINITE).to_arrow_reader(BATCH_ROWS):
            edges = batch.column(0).dictionary_encode()
            which, numbers = edges.indices.to_numpy(), batch.column(1).to_numpy()
            for at, edge in enumerate(edges.dictionary.to_pylist()):
                yield edge, numbers[which == at]
