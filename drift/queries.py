"""Reads of assays for an actor, and what a chart of one shows."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import F, OuterRef, QuerySet, Subquery
from django.utils.translation import gettext as _

from catalog import queries as catalog
from catalog.models import Pipeline, Role
from common.errors import NotFound
from drift.models import Assay, Baseline, Result

CHART_RESULTS = 500
NEWEST = ("-start", F("score").desc(nulls_last=True))  # the last window, of its worst edge


@dataclass(frozen=True)
class ScorePoint:
    """A window: `score` is None when it had too few numbers or failed. `parts` are of below, the bins, above."""

    start: int
    end: int
    edge: str
    status: str
    score: float | None
    count: int
    mean: float | None
    parts: tuple[float, ...]


@dataclass(frozen=True)
class AssayChart:
    """Numbers of a chart: scores over time with the thresholds, and the baseline's parts by bin.

    `bin_edges` are the inner bins'; `baseline_parts` has one part more at either end.
    """

    assay: Assay
    warning: float | None
    alert: float
    bin_edges: tuple[float, ...]
    baseline_parts: tuple[float, ...]
    points: tuple[ScorePoint, ...]


def assays_for(actor: catalog.Actor, pipeline_pk: int) -> QuerySet[Assay]:
    """A pipeline's assays by name. Raises `NotFound`."""
    return _whole().filter(pipeline=catalog.pipeline_for(actor, pipeline_pk))


def with_newest(assays: QuerySet[Assay]) -> QuerySet[Assay]:
    """With `newest_status`, `newest_score` and `newest_start` of the last window, of its worst edge."""
    newest = Result.objects.filter(assay=OuterRef("pk")).order_by(*NEWEST)
    return assays.annotate(
        newest_status=Subquery(newest.values("status")[:1]),
        newest_score=Subquery(newest.values("score")[:1]),
        newest_start=Subquery(newest.values("start")[:1]),
    )


def newest_of(assay: Assay) -> Result | None:
    """The last window, of its worst edge; None before the first one."""
    return assay.results.order_by(*NEWEST).first()


def window_of(assay: Assay, start: int, edge: str) -> ScorePoint | None:
    """The window that begins at `start` (epoch ms) of that edge, or of all together (""); None when there is none."""
    result = results_of(assay, edge=edge).filter(start=start).first()
    return _point(result) if result else None


def models_of(pipeline: Pipeline) -> list[str]:
    """The names of all models that a version of the pipeline has or had."""
    definitions = pipeline.versions.values_list("definition", flat=True)
    return sorted({one["name"] for definition in definitions for one in catalog.models_in(definition)})


def assay_for(actor: catalog.Actor, pk: int, at_least: Role = Role.VIEWER) -> Assay:
    """The assay with this id. Raises `NotFound`, `Forbidden`."""
    assay = _whole().filter(pk=pk).first()
    absent = _("There is no assay %(id)s for you.") % {"id": pk}
    if assay is None:
        raise NotFound(absent)
    catalog.require_role(actor, assay.pipeline.workspace, at_least, absent)
    return assay


def results_of(
    assay: Assay, *, edge: str | None = None, status: str = "", start: int | None = None, end: int | None = None
) -> QuerySet[Result]:
    """An assay's results, the newest window first; of windows that begin from `start` until before `end` (epoch ms)."""
    found = assay.results.all()
    if edge is not None:
        found = found.filter(edge=edge)
    if status:
        found = found.filter(status=status)
    if start is not None:
        found = found.filter(start__gte=start)
    return found if end is None else found.filter(start__lt=end)


def chart_for(
    actor: catalog.Actor, assay_pk: int, *, edge: str | None = None, limit: int = CHART_RESULTS
) -> AssayChart:
    """The newest results of an assay (of one edge when it is given), the oldest of them first. Raises `NotFound`."""
    assay = assay_for(actor, assay_pk)
    newest = list(results_of(assay, edge=edge)[:limit])
    return AssayChart(
        assay=assay,
        warning=assay.warning,
        alert=assay.alert,
        bin_edges=tuple(assay.bin_edges),
        baseline_parts=tuple(assay.baseline_parts),
        points=tuple(_point(result) for result in reversed(newest)),
    )


def baselines_for(actor: catalog.Actor, pipeline_pk: int) -> QuerySet[Baseline]:
    """The uploaded baselines of a pipeline, newest first, without their numbers. Raises `NotFound`."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    return Baseline.objects.filter(pipeline=pipeline).select_related("created_by").defer("numbers")


def baseline_for(actor: catalog.Actor, pk: int, at_least: Role = Role.VIEWER) -> Baseline:
    """The upload with this id, without its numbers. Raises `NotFound`, `Forbidden`."""
    found = Baseline.objects.select_related("pipeline__workspace").defer("numbers").filter(pk=pk).first()
    absent = _("There is no uploaded baseline %(id)s for you.") % {"id": pk}
    if found is None:
        raise NotFound(absent)
    catalog.require_role(actor, found.pipeline.workspace, at_least, absent)
    return found


def ms(moment: datetime) -> int:
    """Epoch milliseconds."""
    return int(moment.timestamp() * 1000)


def _point(result: Result) -> ScorePoint:
    return ScorePoint(
        start=result.start,
        end=result.end,
        edge=result.edge,
        status=result.status,
        score=result.score,
        count=result.stats.get("count") or 0,
        mean=result.stats.get("mean"),
        parts=tuple(result.parts),
    )


def _whole() -> QuerySet[Assay]:
    return Assay.objects.select_related("pipeline__workspace", "created_by")
