"""Rollups: small rows that say what a minute, an hour and a day of rows amount to, so that no chart reads the rows.

Each page is rolled up once: its rows enter the rollups in the transaction that writes it down as rolled up, and the
primary key lets one of two workers win. So a killed, repeated or doubled job changes nothing. Until then the page is
*pending*, and who reads rollups adds the pending pages to them. Only pages that are rolled up may be taken away
(`rolled_up`).

A row counts in the bucket of its own time, however late it comes: minutes, hours and days are all written at once. Old
minutes and hours are dropped; the hours and days that hold the same rows stay, until the rows themselves are past
their retention (`logs.retention`).
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pyarrow as pa
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, Min, OuterRef, Q, QuerySet

from catalog import queries as catalog
from catalog.models import PipelineVersion
from logs import pages, sketches, summaries
from logs.models import LogPage, LogRolled, LogRollup, LogRollupState, LogSegment, LogSeries
from logs.summaries import Key, Summary

logger = logging.getLogger(__name__)

MINUTE, HOUR, DAY = 60, 3600, 86_400
GRAINS = (MINUTE, HOUR, DAY)
KEPT = {MINUTE: timedelta(hours=48), HOUR: timedelta(days=35)}  # days stay
BATCH_PAGES = 128
BATCH_BYTES = 16 * 1024**2  # of bodies
DECODED_BYTES = 64 * 1024**2
DROPPED_AT_ONCE = 5000
STARTS_AT_ONCE = 200
LEASE = timedelta(seconds=120)  # far more than a batch takes


Decoded = tuple[int, pa.Table, pa.Array]  # id of a version, rows, and the partition of each
Together = dict[tuple[int, pa.Schema], list[tuple["Pending", pa.Table]]]


class PageGone(Exception):
    """Another worker rolled up one of these pages, and it has become a segment since."""


@dataclass(frozen=True)
class Pending:
    """A page whose rows are not in the rollups."""

    pk: int
    version: int
    partition: str
    rows: int
    size: int


def rolled_up(found: QuerySet[LogPage]) -> QuerySet[LogPage]:
    """Those of the pages whose rows are in the rollups: only these may become segments or expire."""
    return found.filter(Exists(LogRolled.objects.filter(page=OuterRef("pk"))))


def pending(found: QuerySet[LogPage]) -> QuerySet[LogPage]:
    """Those of the pages whose rows are not in the rollups, the first to come first."""
    return found.filter(~Exists(LogRolled.objects.filter(page=OuterRef("pk")))).order_by("pk")


def waiting_pipelines() -> list[int]:
    """The ids of pipelines that have pending pages."""
    return sorted(set(pending(LogPage.objects.all()).order_by().values_list("pipeline", flat=True).distinct()))


def roll_up_waiting(clock: Callable[[], datetime]) -> int:
    """Rolls up all pending pages and answers how many there were. A pipeline that fails holds up no other."""
    done = 0
    for pipeline_pk in waiting_pipelines():
        try:
            done += _roll_up_all(pipeline_pk, clock)
        except Exception:
            logger.exception("the logs of pipeline %d could not be rolled up; tried again in a while", pipeline_pk)
    return done


def _roll_up_all(pipeline_pk: int, clock: Callable[[], datetime]) -> int:
    """While no other worker does. The lease only saves work: rolling up twice at once changes nothing."""
    LogRollupState.objects.bulk_create([LogRollupState(pipeline_id=pipeline_pk)], ignore_conflicts=True)
    lease, done = uuid4(), 0
    state = LogRollupState.objects.filter(pipeline=pipeline_pk)
    while state.filter(_free(lease, clock())).update(lease=lease, leased_until=clock() + LEASE):
        pages = roll_up(pipeline_pk, clock())
        if not pages:
            state.filter(lease=lease).update(lease=None, leased_until=None)
            break
        done += pages
    return done


def _free(lease: UUID, now: datetime) -> Q:
    return Q(lease=lease) | Q(leased_until=None) | Q(leased_until__lt=now)


def roll_up(pipeline_pk: int, now: datetime) -> int:
    """Rolls up some of a pipeline's pending pages and answers how many. None are left when it answers 0.

    It may be killed anywhere and run at the same time elsewhere.
    """
    batch = bounded(list_pending(LogPage.objects.filter(pipeline=pipeline_pk), BATCH_PAGES), BATCH_BYTES)
    if not batch:
        return 0
    found = summarised(batch)
    try:
        with transaction.atomic():
            _take_turn(pipeline_pk)
            LogRolled.objects.bulk_create([LogRolled(page=page.pk) for page in batch])
            _check_there(batch)
            for version, minutes in found.items():
                _add(pipeline_pk, version, minutes, now)
    except PageGone:
        pass  # what is still pending is found again by the caller
    except IntegrityError:
        if not LogRolled.objects.filter(page__in=[page.pk for page in batch]).exists():
            raise  # no other worker was faster with one of these pages: something else is wrong
    return len(batch)


def drop_old(now: datetime) -> int:
    """Deletes minutes and hours that are past their time, and the marks of pages that are gone; answers how many."""
    dropped = 0
    for grain, kept in KEPT.items():
        old = LogRollup.objects.filter(grain=grain, start__lt=_ms(now - kept))
        while some := list(old.values_list("pk", flat=True)[:DROPPED_AT_ONCE]):
            dropped += LogRollup.objects.filter(pk__in=some).delete()[0]
    gone = LogRolled.objects.filter(~Exists(LogPage.objects.filter(pk=OuterRef("page"))))
    while marks := list(gone.values_list("pk", flat=True)[:DROPPED_AT_ONCE]):
        dropped += LogRolled.objects.filter(pk__in=marks).delete()[0]
    return dropped


def drop_without_rows(pipeline_pk: int, kept_from: datetime | None) -> int:
    """Deletes a pipeline's rollups that end before its oldest row, and before `kept_from`; answers how many.

    A rollup whose time rows are left of stays whole: it may count rows of its day (hour, minute) that are gone.
    """
    dropped = 0
    while some := _drop_some(pipeline_pk, kept_from):
        dropped += some
    return dropped


def _drop_some(pipeline_pk: int, kept_from: datetime | None) -> int:
    if not LogRollup.objects.filter(_without_rows(pipeline_pk, kept_from)).exists():
        return 0
    with transaction.atomic():
        _take_turn(pipeline_pk)  # or a page with old rows might just be added
        old = LogRollup.objects.filter(_without_rows(pipeline_pk, kept_from))
        dropped = LogRollup.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:DROPPED_AT_ONCE])).delete()[0]
        empty = ~Exists(LogRollup.objects.filter(series=OuterRef("pk")))
        LogSeries.objects.filter(empty, pipeline=pipeline_pk).delete()
    return dropped


def _without_rows(pipeline_pk: int, kept_from: datetime | None) -> Q:
    sources = (LogPage.objects.all(), LogSegment.objects.filter(removed_at=None))
    firsts = [found.filter(pipeline=pipeline_pk).aggregate(first=Min("time_min"))["first"] for found in sources]
    bounds = [first for first in firsts if first is not None]
    if kept_from is not None:
        bounds.append(_ms(kept_from))
    ended = Q()
    for grain in GRAINS if bounds else ():
        ended |= Q(grain=grain, start__lte=min(bounds) - grain * 1000)
    return Q(series__pipeline=pipeline_pk) & ended


def oldest_kept(grain: int, now: datetime) -> int:
    """The first moment (epoch ms) for which there are rollups of a grain."""
    return _ms(now - KEPT[grain]) if grain in KEPT else 0


def list_pending(found: QuerySet[LogPage], limit: int) -> list[Pending]:
    """What is known of pending pages without reading them."""
    listed = pending(found).values_list("pk", "pipeline_version", "partition", "rows", "size")
    return [Pending(*values) for values in listed[:limit]]


def bounded(listed: list[Pending], size: int) -> list[Pending]:
    """As many of the first pages as have `size` bytes together, at least one."""
    total = 0
    taken: list[Pending] = []
    for page in listed:
        total += page.size
        if taken and total > size:
            break
        taken.append(page)
    return taken


def summarised(batch: list[Pending], *, with_fields: bool = True) -> dict[int, dict[Key, Summary]]:
    """The minutes of pages, by pipeline version. Pages that are gone meanwhile are left out."""
    models = _models({page.version for page in batch})
    found: dict[int, list[tuple[Key, Summary]]] = {}
    for version, table, partitions in _tables(batch):
        for key, summary in summaries.of_table(table, partitions, with_fields=with_fields).items():
            if (key.model, key.sha) not in models[version]:  # an edge may write there what it wants
                key = replace(key, model="", sha="")
            found.setdefault(version, []).append((key, summary))
    return {version: _by_key(pairs) for version, pairs in found.items()}


def _by_key(pairs: Iterable[tuple[Key, Summary]]) -> dict[Key, Summary]:
    parts: dict[Key, list[Summary]] = {}
    for key, summary in pairs:
        parts.setdefault(key, []).append(summary)
    return {key: summaries.merged(group) for key, group in parts.items()}


def _tables(batch: list[Pending]) -> Iterator[Decoded]:
    """Decoded pages, those of one version and schema together: a version, a table, and each row's partition."""
    bodies = dict(LogPage.objects.filter(pk__in=[page.pk for page in batch]).values_list("pk", "body"))
    together: Together = {}
    decoded = 0
    for page in batch:
        if page.pk not in bodies:
            continue
        table = pages.read(bytes(bodies.pop(page.pk))).replace_schema_metadata(None)
        decoded += table.nbytes
        together.setdefault((page.version, table.schema), []).append((page, table))
        if decoded > DECODED_BYTES:
            yield from _joined(together)
            together, decoded = {}, 0
    yield from _joined(together)


def _joined(together: Together) -> Iterator[Decoded]:
    for (version, _), parts in together.items():
        partitions = [pa.repeat(page.partition, len(table)) for page, table in parts]
        yield version, pa.concat_tables([table for _, table in parts]), pa.concat_arrays(partitions)


def _models(versions: set[int]) -> dict[int, set[tuple[str, str]]]:
    """Name and SHA-256 of the models that each pipeline version has."""
    definitions = PipelineVersion.objects.filter(pk__in=versions).values_list("pk", "definition")
    return {pk: {(model["name"], model["sha"]) for model in catalog.models_in(given)} for pk, given in definitions}


def _take_turn(pipeline_pk: int) -> None:
    """Locks the pipeline's rollups until the commit, because they are read, added to and written."""
    mine = LogRollupState.objects.filter(pipeline=pipeline_pk)
    if not mine.update(changes=F("changes") + 1):
        LogRollupState.objects.bulk_create([LogRollupState(pipeline_id=pipeline_pk)], ignore_conflicts=True)
        mine.update(changes=F("changes") + 1)


def _check_there(batch: list[Pending]) -> None:
    """After the marks were made, because those of pages that are gone are dropped. Raises `PageGone`."""
    if LogPage.objects.filter(pk__in=[page.pk for page in batch]).count() < len(batch):
        raise PageGone


def _add(pipeline_pk: int, version: int, minutes: dict[Key, Summary], now: datetime) -> None:
    whole = minutes | summaries.of_all_edges(minutes)
    series = _series(pipeline_pk, version, whole)
    for grain in GRAINS:
        oldest = oldest_kept(grain, now)
        folded = _without_fields(whole) if grain == MINUTE else summaries.folded(whole, grain * 1000)
        wanted = {(series[_owner(key)], key.start): one for key, one in folded.items() if key.start >= oldest}
        _merge(grain, wanted)


def _without_fields(minutes: dict[Key, Summary]) -> dict[Key, Summary]:
    """The minutes of single edges have no sketches of fields: they would be most of all bytes."""
    return {key: replace(one, fields={}) if key.partition else one for key, one in minutes.items()}


def _owner(key: Key) -> tuple[str, str, str]:
    return key.partition, key.model, key.sha


def _series(pipeline_pk: int, version: int, keys: Iterable[Key]) -> dict[tuple[str, str, str], int]:
    """The ids of the series, which are made where they are missing."""
    wanted = {_owner(key) for key in keys}
    known = _known_series(version)
    if missing := wanted - known.keys():
        LogSeries.objects.bulk_create(
            [
                LogSeries(
                    pipeline_id=pipeline_pk,
                    pipeline_version_id=version,
                    partition=partition,
                    model=model,
                    model_sha=sha,
                )
                for partition, model, sha in sorted(missing)
            ],
            ignore_conflicts=True,
        )
        known = _known_series(version)
    return known


def _known_series(version: int) -> dict[tuple[str, str, str], int]:
    found = LogSeries.objects.filter(pipeline_version=version).values_list("partition", "model", "model_sha", "pk")
    return {(partition, model, sha): pk for partition, model, sha, pk in found}


def _merge(grain: int, wanted: dict[tuple[int, int], Summary]) -> None:
    """Adds to the rollups that are there; those that are not are made."""
    starts = sorted({start for _, start in wanted})
    for at in range(0, len(starts), STARTS_AT_ONCE):
        some = set(starts[at : at + STARTS_AT_ONCE])
        _merge_some(grain, {key: summary for key, summary in wanted.items() if key[1] in some})


def _merge_some(grain: int, wanted: dict[tuple[int, int], Summary]) -> None:
    there = LogRollup.objects.filter(
        grain=grain, series__in={pk for pk, _ in wanted}, start__in={start for _, start in wanted}
    )
    before = {(row.series_id, row.start): summary_of(row) for row in there if (row.series_id, row.start) in wanted}
    made = []
    for (pk, start), summary in wanted.items():
        old = before.get((pk, start))
        made.append(_row(pk, grain, start, summaries.merged([old, summary]) if old else summary))
    LogRollup.objects.bulk_create(
        made,
        update_conflicts=True,
        unique_fields=["series", "grain", "start"],
        update_fields=["rows", "anomalous", "anomalies", "failures", "latency", "fields"],
        batch_size=500,
    )


def _row(series: int, grain: int, start: int, summary: Summary) -> LogRollup:
    return LogRollup(
        series_id=series,
        grain=grain,
        start=start,
        rows=summary.rows,
        anomalous=summary.anomalous,
        anomalies=summary.anomalies,
        failures=dict(summary.failures),
        latency=sketches.packed({"": summary.latency}),
        fields=sketches.packed(summary.fields),
    )


def summary_of(row: LogRollup) -> Summary:
    """A rollup as what it sums up."""
    return Summary(
        rows=row.rows,
        anomalous=row.anomalous,
        anomalies=row.anomalies,
        failures=row.failures,
        latency=sketches.unpacked(row.latency)[""],
        fields=sketches.unpacked(row.fields),
    )


def _ms(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)
