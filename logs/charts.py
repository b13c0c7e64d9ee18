"""Aggregates as charts: what is drawn, in which unit. Pure but for the aggregates, which authorise."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

from catalog import queries as catalog
from logs import aggregates
from logs.aggregates import Counts, Distribution, Point, Series, TimeSeries
from logs.buckets import Asked, Group, Span

LINES = 8  # more cannot be told apart
BINS = 40
UNITS = (
    (86_400, ngettext_lazy("rows per day", "rows per %d days")),
    (3600, ngettext_lazy("rows per hour", "rows per %d hours")),
    (60, ngettext_lazy("rows per minute", "rows per %d minutes")),
)


@dataclass(frozen=True)
class Line:
    """A value for each x; None where there is none."""

    label: str
    values: list[float | None]


@dataclass(frozen=True)
class Limit:
    """A value that is drawn over the whole width."""

    label: str
    value: float


@dataclass(frozen=True)
class Chart:
    """`kind` is `time` (x in seconds since 1970) or `bars` (x the middles of bins, or places named by `labels`).

    `note` is what people must know.
    """

    key: str
    title: str
    kind: str
    unit: str
    x: list[float]
    lines: list[Line]
    note: str = ""
    limits: tuple[Limit, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def data(self) -> dict[str, object]:
        """What the page's script draws."""
        return {name: value for name, value in asdict(self).items() if name != "note"}


@dataclass(frozen=True)
class Board:
    """The charts of a range, with its totals. `fields` can be chosen for the distribution."""

    span: Span
    total: Counts
    charts: list[Chart]
    fields: list[str]
    field: str


def board(actor: catalog.Actor, pipeline_pk: int, asked: Asked, field: str = "") -> Board:
    """Everything that the page of charts shows. Raises `NotFound`, `Invalid`."""
    whole = aggregates.time_series(actor, pipeline_pk, replace(asked, group_by=None))
    grouped = aggregates.time_series(actor, pipeline_pk, asked) if asked.group_by else whole
    failures = aggregates.failures(actor, pipeline_pk, replace(asked, group_by=Group.EDGE))
    fields = aggregates.fields(actor, pipeline_pk, asked)
    chosen = field or (fields[0] if fields else "")
    charts = [_requests(grouped), _latency(grouped if asked.group_by else whole), _anomalies(failures)]
    if chosen:
        found = aggregates.distribution(actor, pipeline_pk, asked, chosen, BINS)
        charts += [_histogram(found), _over_time(found)]
    return Board(whole.span, whole.series[0].total, charts, fields, chosen)


def _requests(found: TimeSeries) -> Chart:
    lines = [_line(one, lambda point: float(point.counts.rows)) for one in found.series[:LINES]]
    return _in_time("requests", _("Requests"), _rows_per(found.span), found.span, lines, _left_out(found))


def _latency(found: TimeSeries) -> Chart:
    if len(found.series) == 1:
        only = found.series[0]
        lines = [replace(_line(only, _quantile(name)), label=name) for name in ("p50", "p90", "p99")]
        return _in_time("latency", _("Latency"), "ms", found.span, lines)
    lines = [_line(one, _quantile("p99")) for one in found.series[:LINES]]
    return _in_time("latency", _("Latency, p99"), "ms", found.span, lines, _left_out(found))


def _quantile(name: str) -> Callable[[Point], float | None]:
    return lambda point: getattr(point.counts.latency, name) if point.counts.latency else None


def _anomalies(found: TimeSeries) -> Chart:
    lines = [_line(one, lambda point: float(point.counts.anomalous)) for one in found.series[:LINES]]
    left_out = _left_out(found, _("The %(lines)s with most failed rows; %(more)s more are not drawn."))
    note = left_out if lines else _("No row failed a validation in this time.")
    return _in_time("anomalies", _("Failed validations by edge"), _rows_per(found.span), found.span, lines, note)


def _histogram(found: Distribution) -> Chart:
    middles = [(low + high) / 2 for low, high in zip(found.edges, found.edges[1:], strict=False)]
    lines = [Line(one.group or found.field, list(one.histogram)) for one in found.series[:LINES] if middles]
    note = "" if middles else _("No row of this time has a number in %(field)s.") % {"field": found.field}
    title = _("Distribution of %(field)s") % {"field": found.field}
    return Chart("histogram", title, "bars", _("rows"), middles, lines, note)


def _over_time(found: Distribution) -> Chart:
    lines: list[Line] = []
    for one in found.series[:LINES]:
        names = ("p10", "p50", "p90") if len(found.series) == 1 else ("p50",)
        for name in names:
            values = [getattr(point.spread, name) for point in one.points]
            lines.append(Line(f"{one.group} {name}".strip(), values))
    return _in_time("field", _("%(field)s over time") % {"field": found.field}, "", found.span, lines)


def _line(series: Series, value: Callable[[Point], float | None]) -> Line:
    return Line(series.group or _("all"), [value(point) for point in series.points])


def _in_time(key: str, title: str, unit: str, span: Span, lines: Sequence[Line], note: str = "") -> Chart:
    x: Iterable[float] = (start / 1000 for start in span.starts)
    return Chart(key, title, "time", unit, list(x), list(lines), note)


def _left_out(found: TimeSeries, text: str = "") -> str:
    more = max(0, len(found.series) - LINES) + found.span.groups_left_out
    text = text or _("The %(lines)s with most rows; %(more)s more are not drawn.")
    return text % {"lines": LINES, "more": more} if more else ""


def _rows_per(span: Span) -> str:
    for length, unit in UNITS:
        if span.step % length == 0:
            return str(unit % (span.step // length))
    return _("rows per %(seconds)s s") % {"seconds": span.step}
