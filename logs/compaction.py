"""Pages become segments, and small segments larger ones: one worker a pipeline, killed anywhere without harm.

A file is written and durable first; then one transaction enters it and takes away what it was made of. What a killed
worker leaves is a file that nobody knows of, which `sweep` removes.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.compute as pc
from django.db import transaction
from django.db.models import Count, F, Min, Q, Sum

from catalog.models import Pipeline
from logs import pages, rollups, segment_files, storage
from logs.models import LogCompaction, LogPage, LogSegment

logger = logging.getLogger(__name__)

# When a pipeline's pages are made into segments: each unread page costs a scan far more than a segment's rows.
WAITING_PAGES = 100
WAITING_BYTES = 64 * 1024**2
WAITING_TIME = timedelta(minutes=15)
# The most of one segment, which is in memory while it is made.
MOST_ROWS = 1_000_000
MOST_PAGES = 5000
MOST_BYTES = 256 * 1024**2
FETCHED_PAGES = 32
# So many segments of about the same size become one: a row is written again once for each eightfold size.
ALIKE = 8
SMALLEST_BYTES = 64 * 1024
KNOWN_PARTITIONS = 256
LEASE = timedelta(minutes=5)  # far more than one segment takes
GRACE = timedelta(hours=1)  # a file that is not needed any more may still be read, one that is not entered yet written


class Moved(Exception):
    """What a segment was made of changed meanwhile, or another worker took over: the segment is not entered."""


@dataclass(frozen=True)
class Made:
    """What goes away when a segment is entered."""

    pages: Sequence[int] = ()
    segments: Sequence[int] = ()


def compact_waiting(clock: Callable[[], datetime]) -> int:
    """Compacts all pipelines that have something to compact; answers how many segments were made.

    A pipeline that fails holds up no other.
    """
    made = 0
    for pipeline_pk in waiting_pipelines(clock()):
        try:
            made += compact(pipeline_pk, clock)
        except Exception:
            logger.exception("the logs of pipeline %d could not be compacted; tried again in a while", pipeline_pk)
    return made


def waiting_pipelines(now: datetime) -> list[int]:
    """The ids of pipelines with many pages, or with old ones."""
    told = LogPage.objects.order_by().values("pipeline")
    told = told.annotate(n=Count("pk"), bytes=Sum("size"), old=Min("arrived_at"))
    is_due = Q(n__gte=WAITING_PAGES) | Q(bytes__gte=WAITING_BYTES) | Q(old__lte=now - WAITING_TIME)
    return sorted(told.filter(is_due).values_list("pipeline", flat=True))


def compact(pipeline_pk: int, clock: Callable[[], datetime]) -> int:
    """Makes segments of all the pipeline's pages that are rolled up, and of its small segments; answers how many.

    0 when another worker is at it.
    """
    LogCompaction.objects.bulk_create([LogCompaction(pipeline_id=pipeline_pk)], ignore_conflicts=True)
    lease, made = uuid4(), 0
    turns = LogCompaction.objects.filter(pipeline=pipeline_pk)
    try:
        for step in (_of_pages, _of_segments):
            while turns.filter(_free(lease, clock())).update(lease=lease, leased_until=clock() + LEASE):
                if not step(pipeline_pk, lease, clock):
                    break
                made += 1
    except Moved:
        logger.info("the logs of pipeline %d changed while they were compacted; tried again in a while", pipeline_pk)
    finally:
        turns.filter(lease=lease).update(lease=None, leased_until=None)
    return made


def changes_of(pipeline: Pipeline) -> int:
    """Counts how often rows of a pipeline went from pages or segments to another segment."""
    return LogCompaction.objects.filter(pipeline=pipeline).values_list("changes", flat=True).first() or 0


def sweep(clock: Callable[[], datetime]) -> int:
    """Removes files of segments that were let go, and files that no segment knows of; answers how many."""
    now = clock()
    removed = 0
    for segment in LogSegment.objects.filter(removed_at__lte=now - GRACE).order_by("pk"):
        storage.delete(segment.path)  # first, so that a row is left for what is left
        segment.delete()
        removed += 1
    old = [found.path for found in storage.listed("") if found.written_at and found.written_at <= now - GRACE]
    for at in range(0, len(old), 500):
        some = old[at : at + 500]
        known = set(LogSegment.objects.filter(path__in=some).values_list("path", flat=True))
        for path in some:
            if path not in known and path.endswith((f".{segment_files.PARQUET}", f".{segment_files.ARROW}")):
                storage.delete(path)
                removed += 1
    return removed


def _free(lease: UUID, now: datetime) -> Q:
    return Q(lease=lease) | Q(leased_until=None) | Q(leased_until__lte=now)


def _of_pages(pipeline_pk: int, lease: UUID, clock: Callable[[], datetime]) -> bool:
    """A segment of pages of one schema. False when none is left."""
    found = rollups.rolled_up(LogPage.objects.filter(pipeline=pipeline_pk))
    schema_id = found.order_by("pk").values_list("schema_id", flat=True).first()
    if schema_id is None:
        return False
    listed = list(found.filter(schema_id=schema_id).order_by("pk").values_list("pk", flat=True)[:MOST_PAGES])
    taken, tables = _gathered(_decoded(listed))
    _enter(pipeline_pk, schema_id, tables, Made(pages=taken), lease, clock)
    return True


def _decoded(listed: list[int]) -> Iterator[tuple[int, pa.Table]]:
    """Pages with their keys, fetched some at a time. Raises `Moved` when one is gone."""
    for at in range(0, len(listed), FETCHED_PAGES):
        some = listed[at : at + FETCHED_PAGES]
        told = LogPage.objects.filter(pk__in=some).values_list("pk", "arrived_at", "body")
        stored = {pk: (arrived, body) for pk, arrived, body in told}
        for pk in some:
            if pk not in stored:
                raise Moved
            arrived, body = stored.pop(pk)
            yield pk, segment_files.with_keys(pages.read(bytes(body)), pk, int(arrived.timestamp() * 1000))


def _of_segments(pipeline_pk: int, lease: UUID, clock: Callable[[], datetime]) -> bool:
    """A segment of several small ones. False when there are not enough of about the same size."""
    for schema_id, alike in _alike(pipeline_pk):
        taken, tables = _gathered(_read(alike))
        if len(taken) > 1:
            _enter(pipeline_pk, schema_id, tables, Made(segments=taken), lease, clock)
            return True
    return False


def _alike(pipeline_pk: int) -> list[tuple[str, list[LogSegment]]]:
    """Segments that may become one: of one schema, of one magnitude, the oldest rows first."""
    small = LogSegment.objects.filter(
        pipeline=pipeline_pk, removed_at=None, weight__lte=MOST_BYTES // ALIKE, rows__lte=MOST_ROWS // ALIKE
    )
    groups: dict[tuple[str, int], list[LogSegment]] = {}
    for segment in small.order_by("time_min", "pk"):
        magnitude = int(math.log(max(segment.weight, SMALLEST_BYTES) / SMALLEST_BYTES, ALIKE))
        groups.setdefault((segment.schema_id, magnitude), []).append(segment)
    return [(schema_id, group) for (schema_id, _), group in groups.items() if len(group) >= ALIKE]


def _read(alike: list[LogSegment]) -> Iterator[tuple[int, pa.Table]]:
    for segment in alike:
        try:
            with storage.open_file(segment.path) as file:
                reader = segment_files.opened(file, segment.form)
                parts = [reader.read(group.number) for group in reader.groups]
        except FileNotFoundError as exc:
            raise Moved from exc
        yield segment.pk, pa.concat_tables(parts).replace_schema_metadata(None)


def _gathered(found: Iterator[tuple[int, pa.Table]]) -> tuple[list[int], list[pa.Table]]:
    """As many tables as one segment may hold, at least one."""
    taken: list[int] = []
    tables: list[pa.Table] = []
    rows, weight = 0, 0
    for pk, table in found:
        rows, weight = rows + len(table), weight + pages.weight(table)
        if taken and (rows > MOST_ROWS or weight > MOST_BYTES):
            break
        taken.append(pk)
        tables.append(table)
    return taken, tables


def _enter(
    pipeline_pk: int, schema_id: str, tables: list[pa.Table], made: Made, lease: UUID, clock: Callable[[], datetime]
) -> None:
    """Writes a segment, and in one transaction enters it and takes away what it was made of. Raises `Moved`."""
    table = pa.concat_tables(tables)
    form = segment_files.form_of(table.schema)
    path = f"{pipeline_pk}/{schema_id[:16]}/{uuid4()}.{form}"
    with storage.create(path) as file:
        segment_files.write(file, tables, form)
    times = pc.min_max(table.column("time").cast(pa.int64()))
    names = pc.unique(_partition(table)).to_pylist()
    segment = LogSegment(
        pipeline_id=pipeline_pk,
        path=path,
        form=form,
        schema_id=schema_id,
        rows=len(table),
        size=storage.size(path),
        weight=pages.weight(table),
        time_min=times["min"].as_py(),
        time_max=times["max"].as_py(),
        partitions=sorted(names) if len(names) <= KNOWN_PARTITIONS else None,
        made_at=clock(),
    )
    try:
        _commit(segment, made, lease, clock())
    except Moved:
        storage.delete(path)
        raise


def _partition(table: pa.Table) -> pa.ChunkedArray:
    return pc.struct_field(table.column("metadata"), "partition")


def _commit(segment: LogSegment, made: Made, lease: UUID, now: datetime) -> None:
    with transaction.atomic():
        held = LogCompaction.objects.select_for_update().filter(pipeline=segment.pipeline_id, lease=lease)
        if not held.exists():
            raise Moved
        held.update(changes=F("changes") + 1)
        segment.save(force_insert=True)
        gone, _ = LogPage.objects.filter(pk__in=made.pages).delete()
        let_go = LogSegment.objects.filter(pk__in=made.segments, removed_at=None).update(removed_at=now)
        if gone != len(made.pages) or let_go != len(made.segments):
            raise Moved
