"""The measurements of `bench.logs.segments`, once Django is set up on a database of its own."""

import statistics
import time
import uuid

from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from bench.logs.measure import Center, analyze, made_page
from logs import compaction, merge, pages, queries, rollups
from logs.filters import Filters
from logs.models import LogPage, LogSegment
from logs.query import Query

EDGES, PAGES, PAGE_ROWS = 10, 10, 10_000
MANIFESTS = (100, 1000, 10_000, 100_000)
SEGMENT_ROWS = 1_000_000
REPEATS = 15
RATE, ROW_BYTES, NEWEST = 400_000, 46.0, 20.0  # the targets


def main() -> None:
    center = Center()
    print(f"segments on {connection.vendor}")
    rows = store(center)
    accepted = LogPage.objects.aggregate(total=Sum("size"))["total"] / rows
    rollups.roll_up_waiting(timezone.now)
    started = time.perf_counter()
    made = compaction.compact(center.pipeline.pk, timezone.now)
    took = time.perf_counter() - started
    stored = LogSegment.objects.filter(removed_at=None).aggregate(total=Sum("size"))["total"] / rows
    tell("rows/s into segments", rows / took, RATE, is_least=True)
    tell("bytes a row when accepted", accepted, 60, is_least=False)
    tell(f"bytes a row in {made} segments", stored, ROW_BYTES, is_least=False)
    oldest = min(LogSegment.objects.values_list("time_min", flat=True))
    there = LogSegment.objects.count()
    for count in MANIFESTS:
        fill(center, there, count, oldest)
        there = count
        tell(f"newest 100 of {count} segments ({count * SEGMENT_ROWS:,} rows), ms", newest(center), NEWEST, False)


def store(center: Center) -> int:
    """Pages of several edges at the same times; answers how many rows."""
    begin = int(timezone.now().timestamp() * 1000) - PAGES * PAGE_ROWS
    for number in range(EDGES):
        edge, _ = center.edge(f"edge-{number}")
        epoch = uuid.uuid4()
        for page in range(PAGES):
            table = made_page(PAGE_ROWS, begin + page * PAGE_ROWS, str(center.version.uuid), edge.name)
            center.store(edge, epoch, page * PAGE_ROWS + 1, pages.encode(table))
    return EDGES * PAGES * PAGE_ROWS


def fill(center: Center, there: int, count: int, oldest: int) -> None:
    """Enters segments that end before the real ones begin, whose files are not there."""
    LogSegment.objects.bulk_create(
        (
            LogSegment(
                pipeline=center.pipeline,
                path=f"made-up/{number}.parquet",
                form="parquet",
                schema_id="0" * 64,
                rows=SEGMENT_ROWS,
                size=46 * SEGMENT_ROWS,
                weight=292 * SEGMENT_ROWS,
                time_min=oldest - (number + 1) * 60_000,
                time_max=oldest - number * 60_000 - 1,
                partitions=[f"edge-{edge}" for edge in range(EDGES)],
                made_at=timezone.now(),
            )
            for number in range(there, count)
        ),
        batch_size=1000,
    )
    analyze()


def newest(center: Center) -> float:
    """Milliseconds for the newest 100 rows, the median."""
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        found = merge.answer(queries._sources(center.pipeline, Filters()), Query(limit=100))
        taken.append((time.perf_counter() - started) * 1000)
        assert len(found.table) == 100
    return statistics.median(taken)


def tell(what: str, value: float, target: float, is_least: bool) -> None:
    is_met = value >= target if is_least else value <= target
    bound = "at least" if is_least else "at most"
    print(f"  {what:<60} {value:>12,.1f}   {bound} {target:,.0f}: {'met' if is_met else 'MISSED'}", flush=True)
