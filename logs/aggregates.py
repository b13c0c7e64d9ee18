"""What charts, lists and alerts ask of a pipeline's logs, answered from rollups and the pages that are not in them yet.

What is read is bounded by the number of points and groups, never by the number of rows that were inferred. Times are
epoch milliseconds of edge time, latency is milliseconds; a number that there is not is None.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from django.utils.translation import gettext

from catalog import queries as catalog
from common.errors import Invalid
from logs import buckets, sketches, summaries
from logs.buckets import Asked, Part, Rank, Span
from logs.sketches import Floats, Sketch
from logs.summaries import Summary

MAX_BINS = 200


@dataclass(frozen=True)
class Latency:
    """Milliseconds. Quantiles are off by 2 % at most, unless they lie decades apart."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class Counts:
    """`anomalous` rows failed a validation, `anomalies` counts all failures, `failures` the rows that failed each."""

    rows: int
    anomalous: int
    anomalies: int
    failures: Mapping[str, int]
    latency: Latency | None


@dataclass(frozen=True)
class Point:
    """A step that begins at `start` (epoch ms)."""

    start: int
    counts: Counts


@dataclass(frozen=True)
class Series:
    """One line of a chart. Every step of the span has a point. `group` is empty when nothing was grouped."""

    group: str
    total: Counts
    points: tuple[Point, ...]


@dataclass(frozen=True)
class TimeSeries:
    """Requests, failed validations and latency over time, the group with most rows first."""

    span: Span
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Spread:
    """How a field's numbers are distributed: `count` finite ones, `nulls`, and `odd` (NaN, infinity)."""

    count: int
    nulls: int
    odd: int
    min: float | None
    max: float | None
    mean: float | None
    deviation: float | None
    p01: float | None
    p10: float | None
    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True)
class SpreadPoint:
    """A step that begins at `start` (epoch ms)."""

    start: int
    spread: Spread


@dataclass(frozen=True)
class SpreadSeries:
    """A field of one group over time and in the whole span. `histogram` counts between each two of the edges."""

    group: str
    total: Spread
    histogram: tuple[float, ...]
    points: tuple[SpreadPoint, ...]


@dataclass(frozen=True)
class Distribution:
    """A field's values; all groups have the histogram's edges in common. No edges: there are no numbers."""

    span: Span
    field: str
    edges: tuple[float, ...]
    series: tuple[SpreadSeries, ...]


@dataclass(frozen=True)
class GroupRows:
    group: str
    rows: int


def time_series(actor: catalog.Actor, pipeline_pk: int, asked: Asked) -> TimeSeries:
    """Requests, failed validations and latency of a pipeline over time. Raises `NotFound`."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    span, parts = buckets.Reading(pipeline, asked).parts()
    found = [_series(group, given, span) for group, given in _groups(parts, asked).items()]
    return TimeSeries(span, tuple(sorted(found, key=lambda one: (-one.total.rows, one.group))))


def failures(actor: catalog.Actor, pipeline_pk: int, asked: Asked) -> TimeSeries:
    """As `time_series`, of the groups with failed validations only, the one with most such rows first."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    span, parts = buckets.Reading(pipeline, asked, rank=Rank.FAILED).parts()
    found = [_series(group, given, span) for group, given in _groups(parts, asked).items()]
    return TimeSeries(span, tuple(sorted(found, key=lambda one: (-one.total.anomalous, one.group))))


def distribution(actor: catalog.Actor, pipeline_pk: int, asked: Asked, field: str, bins: int = 40) -> Distribution:
    """A numeric field as `fields` names it, over time and as histograms. Raises `NotFound`, `Invalid`."""
    if not 1 <= bins <= MAX_BINS:
        raise Invalid(gettext("bins must be from 1 to %(max_bins)s.") % {"max_bins": MAX_BINS})
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    span, parts = buckets.Reading(pipeline, asked, only=field).parts()
    groups = _groups(parts, asked)
    wholes = {group: _sketch(field, given) for group, given in groups.items()}
    edges = _edges(wholes.values(), bins)
    found = [
        SpreadSeries(
            group,
            _spread(wholes[group]),
            tuple(float(count) for count in wholes[group].histogram(edges)),
            tuple(SpreadPoint(start, _spread(_sketch(field, step))) for start, step in _steps(given, span).items()),
        )
        for group, given in groups.items()
    ]
    found.sort(key=lambda one: (-one.total.count, one.group))
    return Distribution(span, field, tuple(float(edge) for edge in edges), tuple(found))


def fields(actor: catalog.Actor, pipeline_pk: int, asked: Asked) -> list[str]:
    """The numeric fields of the rows in the range, outputs first (`logs.summaries` says how they are named). Raises
    `NotFound`."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    # Of all groups as one, because no group has other fields than all of them.
    asked = replace(asked, group_by=None)
    _, parts = buckets.Reading(pipeline, asked, only=buckets.ALL_FIELDS).parts()
    return sorted({name for part in parts for name in part.summary.fields}, key=summaries.field_order)


def rows_by_group(actor: catalog.Actor, pipeline_pk: int, asked: Asked) -> tuple[Span, list[GroupRows]]:
    """The rows of every group, the largest first, in the range widened to whole hours or days. Raises `NotFound`."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    span, rows = buckets.Reading(pipeline, asked).rows()
    return span, [GroupRows(group, rows[group]) for group in sorted(rows, key=lambda group: (-rows[group], group))]


def _groups(parts: Iterable[Part], asked: Asked) -> dict[str, list[Part]]:
    groups: dict[str, list[Part]] = {} if asked.group_by else {"": []}
    for part in parts:
        groups.setdefault(part.group, []).append(part)
    return groups


def _steps(parts: Iterable[Part], span: Span) -> dict[int, list[Part]]:
    steps: dict[int, list[Part]] = {start: [] for start in span.starts}
    for part in parts:
        steps[part.start].append(part)
    return steps


def _series(group: str, parts: list[Part], span: Span) -> Series:
    merged = {start: _merged(step) for start, step in _steps(parts, span).items()}
    points = tuple(Point(start, _counts(summary)) for start, summary in merged.items())
    return Series(group, _counts(summaries.merged(merged.values())), points)


def _merged(parts: Iterable[Part]) -> Summary:
    return summaries.merged(part.summary for part in parts)


def _counts(summary: Summary) -> Counts:
    return Counts(summary.rows, summary.anomalous, summary.anomalies, summary.failures, _latency(summary.latency))


def _latency(sketch: Sketch) -> Latency | None:
    if not sketch.count:
        return None
    p50, p90, p99 = sketch.quantiles((0.5, 0.9, 0.99))
    return Latency(sketch.mean, p50, p90, p99, sketch.high)


def _sketch(field: str, parts: Iterable[Part]) -> Sketch:
    return sketches.merged(part.summary.fields[field] for part in parts if field in part.summary.fields)


def _spread(sketch: Sketch) -> Spread:
    numbers = (sketch.low, sketch.high, sketch.mean, sketch.deviation)
    quantiles = sketch.quantiles((0.01, 0.1, 0.5, 0.9, 0.99))
    values = [value if sketch.count and math.isfinite(value) else None for value in (*numbers, *quantiles)]
    return Spread(sketch.count, sketch.nulls, sketch.odd, *values)


def _edges(wholes: Iterable[Sketch], bins: int) -> Floats:
    """Of bins of the same width from the lowest to the highest number of all."""
    filled = [sketch for sketch in wholes if sketch.count]
    if not filled:
        return np.empty(0)
    low, high = min(sketch.low for sketch in filled), max(sketch.high for sketch in filled)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # Halves, because the difference of the largest numbers is beyond the largest number.
    return 2 * np.linspace(low / 2, high / 2, bins + 1)
