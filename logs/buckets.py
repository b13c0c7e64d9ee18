"""Reads rollups and pending pages of a pipeline as one: which rows were asked for, in which steps, by which groups.

Rollups are written while they are read. A pipeline's rollups count their changes: when the count moved in between, a
page may have been seen twice or not at all, and all is read again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery, Sum
from django.utils import timezone
from django.utils.translation import gettext

from catalog import queries as catalog
from catalog.models import Pipeline
from common.errors import Invalid
from logs import rollups, sketches
from logs.models import LogPage, LogRollup, LogRollupState, LogSeries
from logs.rollups import DAY, GRAINS, HOUR, MINUTE
from logs.summaries import Summary

T = TypeVar("T")

MAX_POINTS = 1000
MAX_GROUPS = 20
MAX_ROLLUPS = 6000  # to read for one answer
PENDING_PAGES = 256
PENDING_BYTES = 32 * 1024**2
TRIES = 4
FINE = timedelta(days=3)
STEPS = (
    *(MINUTE * count for count in (1, 2, 5, 10, 15, 30)),
    *(HOUR * count for count in (1, 2, 3, 6, 12)),
    *(DAY * count for count in (1, 2, 7, 14, 28)),
)
ALL_FIELDS = "*"


class Group(StrEnum):
    """What an answer has one series of each. A model's version is told by its name and the begin of its SHA-256."""

    EDGE = "edge"
    MODEL = "model"
    MODEL_VERSION = "model_version"
    VERSION = "pipeline_version"


class Rank(StrEnum):
    """Which groups come first, and which are left out when there are too many: what is counted of their rows."""

    ROWS = "rows"
    FAILED = "anomalous"  # groups of which no row failed a validation are left out as well


@dataclass(frozen=True)
class Asked:
    """Which rows, in at most how many points. No edges: all.

    The range is from `start` until before `end`, both widened to whole steps.
    """

    start: datetime
    end: datetime
    points: int = 120
    edges: tuple[str, ...] = ()
    pipeline_version: UUID | None = None
    model: str = ""
    group_by: Group | None = None

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise Invalid(gettext("The time range is empty: end must be after start."))
        if not 1 <= self.points <= MAX_POINTS:
            raise Invalid(gettext("points must be from 1 to %(max_points)s.") % {"max_points": MAX_POINTS})


@dataclass(frozen=True)
class Span:
    """The range that an answer covers: from `start` until before `end` (epoch ms), in steps of so many seconds.

    `pending_rows` had arrived and are not counted, because the job that sums rows up is far behind; usually 0.
    `groups_left_out` had fewer rows than those that are there.
    """

    start: int
    end: int
    step: int
    pending_rows: int = 0
    groups_left_out: int = 0

    @property
    def starts(self) -> range:
        """When each step begins, epoch ms."""
        return range(self.start, self.end, self.step * 1000)

    def step_of(self, time: int) -> int:
        """The begin of the step that a time is in."""
        return time - (time - self.start) % (self.step * 1000)


@dataclass(frozen=True)
class Part:
    """What a group's rows within a step amount to; a group may have several parts a step."""

    group: str
    start: int
    summary: Summary


def whole(pipeline_pk: int, read: Callable[[], T]) -> T:
    """What `read` answers when no page moves from pending into the rollups meanwhile."""
    changes = LogRollupState.objects.filter(pipeline=pipeline_pk).values_list("changes", flat=True)
    for _ in range(TRIES):
        before = changes.first()
        found = read()
        if changes.first() == before:
            return found
    with transaction.atomic():  # makes the writers wait
        LogRollupState.objects.select_for_update().filter(pipeline=pipeline_pk).first()
        return read()


@dataclass(frozen=True)
class _Owner:
    """Whose rows: `version` is the pipeline version's UUID where rows are grouped by it, and empty elsewhere."""

    version: str
    partition: str
    model: str
    sha: str


@dataclass(frozen=True)
class Reading:
    """How to read what was asked for. `only` is the field to read as well, or `ALL_FIELDS`, `rank` who comes first."""

    pipeline: Pipeline
    asked: Asked
    now: datetime = field(default_factory=timezone.now)
    only: str | None = None
    rank: Rank = Rank.ROWS

    def parts(self) -> tuple[Span, list[Part]]:
        """The span that is answered, and the parts of the groups that come first in it. Raises `NotFound`."""
        return whole(self.pipeline.pk, self._parts)

    def rows(self) -> tuple[Span, dict[str, int]]:
        """The rows of every group in a range of whole hours, of whole days when it is longer than `FINE`."""
        return whole(self.pipeline.pk, self._rows)

    def _parts(self) -> tuple[Span, list[Part]]:
        version = self._version()
        active, others = self._first(version)
        span = self._span(len(active))
        fresh, rows_left = self._fresh(span, version)
        if others:
            late = {part.group for part in fresh} - {self._group(owner) for owner, _ in active.values()}
            found = self._active(version, late)
            active |= found
            others -= len({self._group(owner) for owner, _ in found.values()})
        groups = {pk: self._group(owner) for pk, (owner, _) in active.items()}
        counted: dict[str, int] = {}
        for group, count in [
            *((groups[pk], count) for pk, (_, count) in active.items()),
            *((part.group, getattr(part.summary, self.rank)) for part in fresh),
        ]:
            counted[group] = counted.get(group, 0) + count
        ranked = [group for group, count in counted.items() if count or self.rank is Rank.ROWS]
        chosen = set(sorted(ranked, key=lambda group: (-counted[group], group))[:MAX_GROUPS])
        wanted = {pk: group for pk, group in groups.items() if group in chosen}
        parts = [*self._rolled(span, wanted), *(part for part in fresh if part.group in chosen)]
        left_out = len(ranked) - len(chosen) + others
        return replace(span, pending_rows=rows_left, groups_left_out=left_out), parts

    def _rows(self) -> tuple[Span, dict[str, int]]:
        version = self._version()
        span = _span(self.asked, self._coarse())
        fresh, rows_left = self._fresh(span, version)
        rows: dict[str, int] = {}
        for owner, count in self._active(version).values():
            group = self._group(owner)
            rows[group] = rows.get(group, 0) + count
        for part in fresh:
            rows[part.group] = rows.get(part.group, 0) + part.summary.rows
        return replace(span, pending_rows=rows_left), rows

    def _is_by_edge(self) -> bool:
        return bool(self.asked.edges) or self.asked.group_by is Group.EDGE

    def _version(self) -> int | None:
        """The id of the pipeline version that is asked for, if one is. Raises `NotFound`."""
        uuid = self.asked.pipeline_version
        return None if uuid is None else catalog.version_pks(self.pipeline, [uuid])[uuid]

    def _uuids(self, versions: Iterable[int]) -> dict[int, str]:
        """The UUIDs of pipeline versions by id, where rows are grouped by them: a pipeline may have thousands."""
        if self.asked.group_by is not Group.VERSION:
            return {}
        found = self.pipeline.versions.filter(pk__in=set(versions)).order_by().values_list("pk", "uuid")
        return {pk: str(uuid) for pk, uuid in found}

    def _asked_for(self, version: int | None, at: str = "") -> Q:
        """The series that are asked for: those of single edges only where these matter. `at` is the way to them."""
        found = Q((f"{at}pipeline", self.pipeline.pk))
        found &= ~Q((f"{at}partition", "")) if self._is_by_edge() else Q((f"{at}partition", ""))
        if self.asked.edges:
            found &= Q((f"{at}partition__in", self.asked.edges))
        if version is not None:
            found &= Q((f"{at}pipeline_version", version))
        if self.asked.model:
            found &= Q((f"{at}model", self.asked.model))
        return found

    def _owners(self, version: int | None, **among: Any) -> dict[int, _Owner]:
        """Whose the series are that are asked for, by id; `among` limits it to some."""
        found = LogSeries.objects.filter(self._asked_for(version), **among)
        listed = list(found.values_list("pk", "pipeline_version", "partition", "model", "model_sha"))
        uuids = self._uuids(row[1] for row in listed)
        return {pk: _Owner(uuids.get(of, ""), partition, model, sha) for pk, of, partition, model, sha in listed}

    def _group(self, owner: _Owner) -> str:
        match self.asked.group_by:
            case Group.EDGE:
                return owner.partition
            case Group.MODEL:
                return owner.model
            case Group.MODEL_VERSION:
                return f"{owner.model}:{owner.sha[:8]}" if owner.model else ""
            case Group.VERSION:
                return owner.version
        return ""

    def _coarse(self) -> int:
        """The grain in which it is found out who has rows at all: seconds."""
        is_short = self.asked.end - self.asked.start <= FINE
        return HOUR if is_short and _ms(self.asked.start) >= rollups.oldest_kept(HOUR, self.now) else DAY

    def _first(self, version: int | None) -> tuple[dict[int, tuple[_Owner, int]], int]:
        """What is counted of series in the range, those with nothing left out, and of how many groups it is not told.

        Edges are ranked by the database: a pipeline may have ten thousand, of which few are answered.
        """
        if self.rank is Rank.FAILED:
            return self._failing(version), 0
        if self.asked.group_by is not Group.EDGE:
            return self._active(version), 0
        name = "series__partition"
        edges = self._ranked().filter(self._asked_for(version, "series__")).values_list(name)
        first = edges.annotate(total=Sum("rows")).order_by("-total", name)[:MAX_GROUPS]
        names = [edge for edge, _ in first]
        others = edges.distinct().count() - len(names) if len(names) == MAX_GROUPS else 0
        return self._active(version, names), others

    def _active(self, version: int | None, edges: Iterable[str] | None = None) -> dict[int, tuple[_Owner, int]]:
        """How many rows each of the series has in the range, those with none left out; only of some edges if told."""
        owners = self._owners(version) if edges is None else self._owners(version, partition__in=list(edges))
        found = self._ranked().filter(series__in=list(owners)).values_list("series").annotate(Sum("rows"))
        return {pk: (owners[pk], rows) for pk, rows in found}

    def _failing(self, version: int | None) -> dict[int, tuple[_Owner, int]]:
        """How many rows of each of the series failed a validation in the range, those with none left out.

        These are looked for among what failed at all, which has an index: most of ten thousand edges do not fail.
        """
        of = LogSeries.objects.filter(pk=OuterRef("series")).values("pipeline")
        found = self._ranked().alias(of=Subquery(of)).filter(anomalous__gt=0, of=self.pipeline.pk)
        failed = dict(found.values_list("series").annotate(failed=Sum("anomalous")).order_by("-failed")[:MAX_ROLLUPS])
        return {pk: (owner, failed[pk]) for pk, owner in self._owners(version, pk__in=list(failed)).items()}

    def _ranked(self) -> QuerySet[LogRollup]:
        """The rollups by which it is found out who has rows at all."""
        span = _span(self.asked, self._coarse())
        return LogRollup.objects.filter(grain=span.step, start__gte=span.start, start__lt=span.end).order_by()

    def _span(self, series: int) -> Span:
        """The range in the smallest steps that make neither too many points nor too many rollups to read."""
        step, oldest = 0, _ms(self.asked.start)
        finest = HOUR if self.only is not None and self._is_by_edge() else MINUTE
        for wider in STEPS:
            span, grain = _span(self.asked, wider), _grain(wider)
            is_kept = grain >= finest and oldest >= rollups.oldest_kept(grain, self.now)
            rollups_read = series * len(span.starts) * (wider // grain)
            if len(span.starts) <= self.asked.points + 1 and is_kept and (grain == DAY or rollups_read <= MAX_ROLLUPS):
                return span
            step = wider
        while len(_span(self.asked, step).starts) > self.asked.points + 1:
            step *= 2
        return _span(self.asked, step)

    def _rolled(self, span: Span, wanted: Mapping[int, str]) -> Iterator[Part]:
        found = LogRollup.objects.filter(
            series__in=list(wanted), grain=_grain(span.step), start__gte=span.start, start__lt=span.end
        )
        if self.only is None:
            found = found.defer("fields")
        for row in found.iterator(chunk_size=500):
            yield Part(wanted[row.series_id], span.step_of(row.start), self._summary(row))

    def _summary(self, row: LogRollup) -> Summary:
        only = None if self.only == ALL_FIELDS else self.only
        return Summary(
            rows=row.rows,
            anomalous=row.anomalous,
            anomalies=row.anomalies,
            failures=row.failures,
            latency=sketches.unpacked(row.latency)[""],
            fields=sketches.unpacked(row.fields, only) if self.only is not None else {},
        )

    def _fresh(self, span: Span, version: int | None) -> tuple[list[Part], int]:
        """Parts of pages that are not rolled up, and how many rows such pages have beyond what can be read at once."""
        found = LogPage.objects.filter(pipeline=self.pipeline, time_max__gte=span.start, time_min__lt=span.end)
        if self.asked.edges:
            found = found.filter(partition__in=self.asked.edges)
        if version is not None:
            found = found.filter(pipeline_version=version)
        listed = rollups.list_pending(found, PENDING_PAGES + 1)
        pages = rollups.bounded(listed[:PENDING_PAGES], PENDING_BYTES)
        rows_left = 0
        if len(pages) < len(listed):
            later = rollups.pending(found).filter(pk__gt=pages[-1].pk)
            rows_left = later.order_by().aggregate(rows=Sum("rows"))["rows"] or 0
        parts = []
        summarised = rollups.summarised(pages, with_fields=self.only is not None)
        uuids = self._uuids(summarised)
        for of, minutes in summarised.items():
            for key, summary in minutes.items():
                if span.start <= key.start < span.end and self.asked.model in ("", key.model):
                    owner = _Owner(uuids.get(of, ""), key.partition, key.model, key.sha)
                    parts.append(Part(self._group(owner), span.step_of(key.start), summary))
        return parts, rows_left


def _grain(step: int) -> int:
    """The longest buckets that a step is made of."""
    return max(grain for grain in GRAINS if step % grain == 0)


def _span(asked: Asked, step: int) -> Span:
    """The range in whole steps, which begin at the epoch."""
    width = step * 1000
    start, end = _ms(asked.start) // width * width, -(-_ms(asked.end) // width) * width
    return Span(start, end, step)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
