"""Scores the windows that are due, each once, and pauses assays whose rows go elsewhere since a replacement."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from django.db import transaction

from catalog import queries as catalog
from catalog.models import PipelineVersion
from common.errors import DomainError
from drift import measures
from drift.measures import Aggregation, Floats, Metric
from drift.models import Assay, Result
from drift.queries import ms
from edges.models import Assignment, Edge
from logs import exact
from logs.filters import Filters, is_pattern
from logs.scans import Scope

logger = logging.getLogger(__name__)

WINDOWS_AT_ONCE = 50  # of an assay before the next one has its turn
SCAN_SECONDS = 120.0


def run_due(clock: Callable[[], datetime]) -> int:
    """Scores every window that is due and answers how many. An assay that cannot be scored holds up no other."""
    done = 0
    active = Assay.objects.filter(status=Assay.Status.ACTIVE).order_by("next_start")
    for pk in active.values_list("pk", flat=True):
        try:
            done += _run(pk, clock)
        except Exception:
            logger.exception("assay %d could not be run; tried again in a while", pk)
    return done


def _run(pk: int, clock: Callable[[], datetime]) -> int:
    for number in range(WINDOWS_AT_ONCE):
        assay = Assay.objects.select_related("pipeline").filter(pk=pk, status=Assay.Status.ACTIVE).first()
        if assay is None or _is_ended(assay) or not _is_due(assay, clock()):
            return number
        run_window(assay, clock())
    return WINDOWS_AT_ONCE


def run_window(assay: Assay, now: datetime) -> bool:
    """Scores an assay's next window, if nobody did meanwhile. Killed anywhere, it did nothing."""
    start = assay.next_start
    results = _results(assay, start, start + assay.width * 1000, now)
    with transaction.atomic():
        mine = Assay.objects.filter(pk=assay.pk, next_start=start, status=Assay.Status.ACTIVE)
        if not mine.update(next_start=start + assay.interval * 1000):
            return False
        Result.objects.bulk_create(results)
    return True


def pause_replaced() -> int:
    """Pauses assays all of whose edges were moved to where rows have another pipeline's or model's name."""
    paused = 0
    for assay in Assay.objects.select_related("pipeline").filter(status=Assay.Status.ACTIVE):
        if note := _replaced(assay):
            mine = Assay.objects.filter(pk=assay.pk, status=Assay.Status.ACTIVE, watched_since=assay.watched_since)
            paused += mine.update(status=Assay.Status.PAUSED, note=note)
    return paused


def _is_due(assay: Assay, now: datetime) -> bool:
    return assay.next_start + (assay.width + assay.wait) * 1000 <= ms(now)


def _is_ended(assay: Assay) -> bool:
    """No window is left until `run_until`."""
    if assay.run_until is None or assay.next_start + assay.width * 1000 <= ms(assay.run_until):
        return False
    Assay.objects.filter(pk=assay.pk, status=Assay.Status.ACTIVE).update(status=Assay.Status.ENDED)
    return True


def _results(assay: Assay, start: int, end: int, now: datetime) -> list[Result]:
    scope = Scope(assay.pipeline, start, end, Filters(edges=tuple(assay.edges), models=(assay.model,)))
    try:
        found = exact.values(scope, assay.field, SCAN_SECONDS)
    except DomainError as exc:
        failed = Result(assay=assay, start=start, end=end, computed_at=now)
        failed.status, failed.reason = Result.Status.FAILED, exc.message
        return [failed]
    by_edge: Mapping[str, Floats]
    if assay.by_edge:
        nothing = exact.together({})
        named = [name for name in assay.edges if not is_pattern(name)]
        by_edge = dict.fromkeys(named, nothing) | found
    else:
        by_edge = {"": exact.together(found)}
    return [_result(assay, edge, by_edge[edge], start, end, now) for edge in sorted(by_edge)]


def _result(assay: Assay, edge: str, values: Floats, start: int, end: int, now: datetime) -> Result:
    result = Result(assay=assay, edge=edge, start=start, end=end, computed_at=now)
    result.stats = measures.stats_of(values).as_json()
    if len(values):
        result.parts = measures.parts_of(values, assay.bin_edges, Aggregation(assay.aggregation))
    if len(values) < max(assay.min_records, 1):
        result.status = Result.Status.TOO_FEW
        return result
    result.score = measures.score(Metric(assay.metric), assay.baseline_parts, result.parts)
    if result.score > assay.alert:
        result.status = Result.Status.ALERT
    elif assay.warning is not None and result.score > assay.warning:
        result.status = Result.Status.WARNING
    else:
        result.status = Result.Status.OK
    return result


def _replaced(assay: Assay) -> str:
    """Why no edge makes rows of the assay any more, since it is watched; empty when one does or none ever did."""
    versions = PipelineVersion.objects.filter(pipeline=assay.pipeline).values_list("pk", "definition")
    own = [pk for pk, given in versions if assay.model in {model["name"] for model in catalog.models_in(given)}]
    edges = Edge.objects.filter(Filters(edges=tuple(assay.edges)).partitions("name"), removed_at=None)
    if edges.filter(publish__pipeline_version__in=own).exists():
        return ""
    ran = edges.filter(assignments__publish__pipeline_version__in=own)
    moved = Assignment.objects.filter(edge__in=ran, since__gte=assay.watched_since)
    moved = moved.exclude(publish__pipeline_version__in=own).select_related("publish__pipeline_version__pipeline")
    last = moved.order_by("-pk").first()
    if last is None or assay.next_start + assay.width * 1000 <= ms(last.since):
        return ""  # or windows that were over before are still to be scored
    now = last.publish.pipeline_version
    if now.pipeline_id != assay.pipeline_id:
        what = f"its pipeline is {now.pipeline.name}, not {assay.pipeline.name}"
    else:
        names = ", ".join(sorted({model["name"] for model in catalog.models_in(now.definition)}))
        what = f"its models are {names}, without {assay.model}"
    return (
        f"Publish {last.publish_id} replaced what the edges ran ({last.since:%Y-%m-%d %H:%M} UTC), and {what}: "
        "there are no more rows to compare. Make a new assay for what runs now."
    )
