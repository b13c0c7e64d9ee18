"""Assays as charts. Pure."""

from collections.abc import Sequence
from itertools import pairwise

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from drift.measures import Metric
from drift.queries import AssayChart, ScorePoint
from logs.charts import Chart, Limit, Line

METRIC_NAMES = {
    Metric.PSI: gettext_lazy("population stability index"),
    Metric.MAX_DIFF: gettext_lazy("largest difference of a bin"),
    Metric.SUM_DIFF: gettext_lazy("sum of the differences"),
}
EDGES = 8  # lines of a chart: more cannot be told apart


def scores(found: AssayChart) -> Chart:
    """Scores over time, a line for each edge that is scored by itself, with the thresholds."""
    starts = sorted({point.start for point in found.points})
    edges = sorted({point.edge for point in found.points})[:EDGES]
    by_place = {(point.start, point.edge): point.score for point in found.points}
    lines = [Line(edge or _("score"), [by_place.get((start, edge)) for start in starts]) for edge in edges]
    warning = (Limit(_("warning"), found.warning),) if found.warning is not None else ()
    limits = (Limit(_("alert"), found.alert), *warning)  # the first limit looks the same in every chart
    note = "" if lines else _("No window has been scored yet.")
    x = [start / 1000 for start in starts]
    return Chart("scores", _("Scores"), "time", str(METRIC_NAMES[Metric(found.assay.metric)]), x, lines, note, limits)


def histogram(edges: Sequence[float], baseline: Sequence[float], window: ScorePoint | None = None) -> Chart:
    """The parts of the baseline, beside those of a window when there is one, bin by bin."""
    lines = [Line(_("baseline"), list(baseline))]
    if window is not None and window.parts:
        lines.append(Line(_("window"), list(window.parts)))
    labels = bin_labels(edges)
    x = [float(place) for place in range(len(labels))]
    return Chart("bins", _("Parts by bin"), "bars", _("part of all numbers"), x, lines, labels=labels)


def bin_labels(edges: Sequence[float]) -> tuple[str, ...]:
    """Below the edges, between each two, above."""
    if not edges:
        return ()
    between = [f"{short(low)} … {short(high)}" for low, high in pairwise(edges)]
    return (f"< {short(edges[0])}", *between, f"> {short(edges[-1])}")


def short(value: float) -> str:
    """As many digits as one compares by: neither a thousandth of a price nor a zero for a small share."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
