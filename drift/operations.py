"""What people do with assays. Each verb authorises its actor, is one short transaction, and refuses by raising."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

from django.db import IntegrityError, transaction
from django.db.models import RestrictedError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from catalog import queries as catalog
from catalog.models import Pipeline, Role, User
from common.errors import Invalid, NotFound
from drift import baselines, measures, queries
from drift.errors import BaselineInUse, NameTaken, NoBaseline, NotNow
from drift.measures import Aggregation, BinMode, Floats, Metric, Stats
from drift.models import Assay, Baseline
from logs import exact
from logs.filters import Filters
from logs.scans import Scope

LEAST_NUMBERS = 10  # of a baseline
MAX_WINDOWS_BACK = 10_000
DEFAULT_ALERT = {Metric.PSI: 0.25, Metric.MAX_DIFF: 0.2, Metric.SUM_DIFF: 0.4}


@dataclass(frozen=True)
class BaselineAsked:
    """A time range of the logs (of all the assay's edges), or a file that was uploaded before."""

    start: datetime | None = None
    end: datetime | None = None
    file: int | None = None


@dataclass(frozen=True)
class Comparison:
    """What is compared with what, and how."""

    model: str
    field: str
    baseline: BaselineAsked
    edges: tuple[str, ...] = ()
    bin_mode: BinMode = BinMode.QUANTILE
    bins: int = 5
    bin_edges: tuple[float, ...] = ()
    aggregation: Aggregation = Aggregation.DENSITY
    metric: Metric = Metric.PSI

    def __post_init__(self) -> None:
        if self.metric is Metric.PSI and self.aggregation is Aggregation.CUMULATIVE:
            raise Invalid(_("PSI compares densities: choose max_diff or sum_diff for cumulative parts."))


@dataclass(frozen=True)
class Schedule:
    """Windows of so many seconds, one each `interval` from `first_start` on; `wait` is for rows that come late."""

    width: int
    interval: int
    first_start: datetime | None = None
    run_until: datetime | None = None
    wait: int = 60


class Changes(TypedDict, total=False):
    """What may be changed of an assay whose scores stay comparable: not what is compared, nor the windows."""

    name: str
    alert: float
    warning: float | None
    min_records: int
    wait: int
    run_until: datetime | None


@dataclass(frozen=True)
class Prepared:
    """A baseline as assays have it: parts are of below the edges, of the bins, and of above."""

    stats: Stats
    edges: list[float]
    parts: list[float]


def upload_baseline(
    *, actor: User, pipeline_pk: int, body: bytes, field: str, column: str = "", name: str = ""
) -> Baseline:
    """Stores the numbers of a file (`baselines.read`) for assays of this pipeline. Collaborators only.

    Raises `NotFound`, `Forbidden`, `Invalid`, `TooLarge`, `NoBaseline`.
    """
    pipeline = catalog.pipeline_for(actor, pipeline_pk, Role.COLLABORATOR)
    values = _enough(baselines.read(body, field, column))
    return Baseline.objects.create(
        pipeline=pipeline, name=name, count=len(values), created_by=actor, numbers=baselines.packed(values)
    )


def preview(*, actor: User, pipeline_pk: int, comparison: Comparison) -> Prepared:
    """The baseline that an assay would have. Nothing is made. Raises as `create` does."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    return _prepared(pipeline, comparison)


def create(
    *,
    actor: User,
    pipeline_pk: int,
    name: str,
    comparison: Comparison,
    schedule: Schedule,
    alert: float | None = None,
    warning: float | None = None,
    min_records: int = 1,
    by_edge: bool = False,
    now: datetime | None = None,
) -> Assay:
    """An assay that runs from now on, over windows of the past too when `first_start` is there. Collaborators only.

    Without `first_start` the first window begins at the baseline's end, or now. Raises `NotFound`, `Forbidden`,
    `Invalid`, `NameTaken`, `NoBaseline`, and what a scan raises.
    """
    now = now or timezone.now()
    pipeline = catalog.pipeline_for(actor, pipeline_pk, Role.COLLABORATOR)
    _check_model(pipeline, comparison.model)
    limit = DEFAULT_ALERT[comparison.metric] if alert is None else alert
    _check_thresholds(warning, limit)
    first = schedule.first_start or comparison.baseline.end or now
    _check_schedule(schedule, first, now)
    prepared = _prepared(pipeline, comparison)
    baseline = comparison.baseline
    assay = Assay(
        pipeline=pipeline,
        name=name,
        model=comparison.model,
        field=comparison.field,
        edges=list(comparison.edges),
        by_edge=by_edge,
        baseline_start=queries.ms(baseline.start) if baseline.start else None,
        baseline_end=queries.ms(baseline.end) if baseline.end else None,
        baseline_file_id=baseline.file,
        baseline_stats=prepared.stats.as_json(),
        bin_mode=comparison.bin_mode,
        bin_edges=prepared.edges,
        aggregation=comparison.aggregation,
        baseline_parts=prepared.parts,
        metric=comparison.metric,
        warning=warning,
        alert=limit,
        min_records=min_records,
        width=schedule.width,
        interval=schedule.interval,
        wait=schedule.wait,
        next_start=queries.ms(first),
        run_until=schedule.run_until,
        watched_since=now,
        created_by=actor,
        created_at=now,
    )
    with _one_of_its_name(assay):
        assay.save(force_insert=True)
    return assay


def change(*, actor: User, assay_pk: int, **changes: Unpack[Changes]) -> Assay:
    """Changes what is given, for the windows that are not scored yet; results stay as they are. Collaborators only.

    One that has ended goes on when `run_until` leaves room for a window again. Raises `NotFound`, `Forbidden`,
    `Invalid`, `NameTaken`.
    """
    queries.assay_for(actor, assay_pk, Role.COLLABORATOR)
    with transaction.atomic():
        assay = Assay.objects.select_for_update(of=("self",)).select_related("pipeline").get(pk=assay_pk)
        for name, value in changes.items():
            setattr(assay, name, value)
        _check_thresholds(assay.warning, assay.alert)
        if "run_until" in changes:
            _check_end(assay)
        with _one_of_its_name(assay):
            assay.save(update_fields=[*changes, "status"])
    return queries.assay_for(actor, assay_pk)


def pause(*, actor: User, assay_pk: int, note: str = "") -> Assay:
    """No more windows until `resume`. Collaborators only. Raises `NotFound`, `Forbidden`, `NotNow`."""
    assay = queries.assay_for(actor, assay_pk, Role.COLLABORATOR)
    paused = Assay.objects.filter(pk=assay.pk, status=Assay.Status.ACTIVE)
    if not paused.update(status=Assay.Status.PAUSED, note=note):
        raise _not_now(assay, _("The assay is %(status)s: it cannot be paused."))
    return queries.assay_for(actor, assay_pk)


def resume(*, actor: User, assay_pk: int, now: datetime | None = None) -> Assay:
    """Goes on with the first window that has not ended; those missed stay missed. Replacements until now are forgiven.

    Collaborators only. Raises `NotFound`, `Forbidden`, `NotNow`.
    """
    now = now or timezone.now()
    assay = queries.assay_for(actor, assay_pk, Role.COLLABORATOR)
    step, missed = assay.interval * 1000, queries.ms(now) - assay.width * 1000 - assay.next_start
    skipped = max(0, -(-missed // step))
    resumed = Assay.objects.filter(pk=assay.pk, status=Assay.Status.PAUSED, next_start=assay.next_start)
    changes = {"status": Assay.Status.ACTIVE, "note": "", "watched_since": now}
    if not resumed.update(**changes, next_start=assay.next_start + skipped * step):
        raise _not_now(assay, _("The assay is %(status)s: it cannot be resumed."))
    return queries.assay_for(actor, assay_pk)


def delete_baseline(*, actor: User, baseline_pk: int) -> None:
    """Deletes an upload that no assay has. Collaborators only. Raises `NotFound`, `Forbidden`, `BaselineInUse`."""
    baseline = queries.baseline_for(actor, baseline_pk, Role.COLLABORATOR)
    try:
        with transaction.atomic():
            baseline.delete()
    except RestrictedError as exc:
        names = ", ".join(baseline.assays.order_by("name").values_list("name", flat=True)[:5])
        raise BaselineInUse(
            _("The baseline is in use by %(names)s: delete these assays first.") % {"names": names}
        ) from exc


def delete(*, actor: User, assay_pk: int) -> None:
    """Deletes an assay with its results. Collaborators only. Raises `NotFound`, `Forbidden`."""
    queries.assay_for(actor, assay_pk, Role.COLLABORATOR).delete()


def _not_now(assay: Assay, words: str) -> NotNow:
    return NotNow(words % {"status": _called(assay)}, status=assay.status)


def _called(assay: Assay) -> str:
    return str(Assay.Status(assay.status).label).lower()


@contextmanager
def _one_of_its_name(assay: Assay) -> Iterator[None]:
    """Saves inside, or raises `NameTaken`."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as exc:
        pipeline = assay.pipeline
        if not Assay.objects.filter(pipeline=pipeline, name=assay.name).exclude(pk=assay.pk).exists():
            raise
        raise NameTaken(
            _("Pipeline %(pipeline)s has an assay %(assay)s already: choose another name.")
            % {"pipeline": pipeline.name, "assay": assay.name}
        ) from exc


def _check_thresholds(warning: float | None, alert: float) -> None:
    if warning is not None and warning > alert:
        raise Invalid(_("The warning threshold must not be above the alert threshold."))


def _check_end(assay: Assay) -> None:
    """No window may end after `run_until`; an assay that had ended goes on when there is one again."""
    has_window = assay.run_until is None or assay.next_start + assay.width * 1000 <= queries.ms(assay.run_until)
    if not has_window and assay.status != Assay.Status.ENDED:
        raise Invalid(_("run_until is before the end of the next window: pause the assay if it is to stop now."))
    if has_window and assay.status == Assay.Status.ENDED:
        assay.status = Assay.Status.ACTIVE


def _check_model(pipeline: Pipeline, model: str) -> None:
    definitions = pipeline.versions.values_list("definition", flat=True)
    names = {one["name"] for definition in definitions for one in catalog.models_in(definition)}
    if model not in names:
        known = ", ".join(sorted(names)) or _("none")
        raise Invalid(
            _("Pipeline %(pipeline)s has no model %(model)s; it has %(known)s.")
            % {"pipeline": pipeline.name, "model": model, "known": known}
        )


def _check_schedule(schedule: Schedule, first: datetime, now: datetime) -> None:
    if schedule.run_until and schedule.run_until < first + timedelta(seconds=schedule.width):
        raise Invalid(_("run_until is before the end of the first window: no window would ever run."))
    if (now - first).total_seconds() / schedule.interval > MAX_WINDOWS_BACK:
        raise Invalid(
            _(
                "There would be more than %(max_windows_back)s windows in the past: begin later, or with a "
                "longer interval."
            )
            % {"max_windows_back": MAX_WINDOWS_BACK}
        )


def _prepared(pipeline: Pipeline, comparison: Comparison) -> Prepared:
    values = _enough(_values(pipeline, comparison))
    edges = measures.edges_of(values, comparison.bin_mode, comparison.bins, comparison.bin_edges)
    parts = measures.parts_of(values, edges, comparison.aggregation)
    return Prepared(measures.stats_of(values), edges, parts)


def _values(pipeline: Pipeline, comparison: Comparison) -> Floats:
    baseline = comparison.baseline
    if baseline.file is not None:
        found = Baseline.objects.filter(pk=baseline.file, pipeline=pipeline).first()
        if found is None:
            raise NotFound(
                _("Pipeline %(pipeline)s has no uploaded baseline %(file)s.")
                % {"pipeline": pipeline.name, "file": baseline.file}
            )
        return baselines.unpacked(found.numbers)
    if baseline.start is None or baseline.end is None or baseline.end <= baseline.start:
        raise Invalid(_("A baseline is a time range, start before end, or an uploaded file."))
    scope = Scope(
        pipeline=pipeline,
        start=queries.ms(baseline.start),
        end=queries.ms(baseline.end),
        filters=Filters(edges=comparison.edges, models=(comparison.model,)),
    )
    return exact.together(exact.values(scope, comparison.field))


def _enough(values: Floats) -> Floats:
    if len(values) < LEAST_NUMBERS:
        raise NoBaseline(
            ngettext(
                "The baseline has %(count)s numbers; it needs at least %(least)s.",
                "The baseline has %(count)s numbers; it needs at least %(least)s.",
                len(values),
            )
            % {"count": len(values), "least": LEAST_NUMBERS}
        )
    return values
