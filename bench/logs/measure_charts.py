"""The measurements of `bench.logs.charts`, once Django is set up on a database of its own."""

import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
from django.db import connection
from django.utils import timezone

from bench.logs.measure import Center, made_page
from logs import aggregates, compaction, exact, pages, rollups, scans, sketches, summaries
from logs.buckets import Asked, Group
from logs.exact import Question
from logs.models import LogRollup, LogRollupState, LogSeries
from logs.scans import Scope
from logs.summaries import Summary

ROWS = 100_000_000
EDGES = 20
DAYS = 400
PAGES, PAGE_ROWS = 200, 1000
REPEATS = 20
SCANNED, SCAN_EDGES, LARGE = 5_000_000, 10, 10_000


def main() -> None:
    center = Center()
    print(f"rollups on {connection.vendor}")
    measure_rolling(center)
    measure_scans(center)
    LogRollup.objects.all().delete()
    LogSeries.objects.all().delete()
    made, size = fill(center)
    print(f"charts over {ROWS / 1e6:g} M rows of {EDGES} edges: {made} rollups, {size / 1e6:.0f} MB of sketches")
    measure_charts(center)


def measure_rolling(center: Center) -> None:
    """Pages of one edge, as they arrive."""
    edge, _ = center.edge("bench")
    begin = int(timezone.now().timestamp() * 1000) - PAGES * PAGE_ROWS
    epoch = uuid.uuid4()
    for number in range(PAGES):
        first = number * PAGE_ROWS
        page = made_page(PAGE_ROWS, begin + first, str(center.version.uuid), edge.name)
        center.store(edge, epoch, first + 1, pages.encode(page))
    started = time.perf_counter()
    rollups.roll_up_waiting(timezone.now)
    took = time.perf_counter() - started
    print(f"  rolled up: {PAGES * PAGE_ROWS / took / 1000:.0f} k rows/s ({PAGES} pages of {PAGE_ROWS} rows)")


def measure_scans(center: Center) -> None:
    """Exact numbers from the rows themselves, which became segments."""
    begin = int(timezone.now().timestamp() * 1000) - SCANNED * LARGE
    for number in range(SCAN_EDGES):
        edge, _ = center.edge(f"scanned-{number}")
        epoch = uuid.uuid4()
        for page in range(SCANNED // SCAN_EDGES // LARGE):
            first = page * LARGE
            table = made_page(LARGE, begin + first, str(center.version.uuid), edge.name)
            center.store(edge, epoch, first + 1, pages.encode(table))
    rollups.roll_up_waiting(timezone.now)
    compaction.compact(center.pipeline.pk, timezone.now)
    scope = Scope(center.pipeline, 0, 2**52)
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        with scans.scan(scope, ["out.variable[0]"]) as connection:
            connection.execute("SELECT edge, avg(f0) FROM found GROUP BY edge").fetchall()
        taken.append((time.perf_counter() - started) * 1000)
    print(f"  scan for the mean alone, by edge: p50 {statistics.median(taken):.0f} ms")
    for name, question in {
        "mean of the output by edge": Question("out.variable[0]", by=("edge",)),
        "rows by model": Question(by=("model",)),
    }.items():
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            [*found] = exact.summed(scope, question)
            taken.append((time.perf_counter() - started) * 1000)
        rows = sum(one.rows for one in found)
        print(f"  all numbers of {rows / 1e6:.1f} M rows, {name}: p50 {statistics.median(taken):.0f} ms")


def fill(center: Center) -> tuple[int, int]:
    """Rollups of all grains for every edge and for all; how many, and bytes of their sketches."""
    now = int(timezone.now().timestamp())
    kinds = [_summary(center, number) for number in range(4)]
    made = size = 0
    LogRollupState.objects.get_or_create(pipeline=center.pipeline)
    for edge in ["", *(f"edge-{number:02}" for number in range(EDGES))]:
        series = LogSeries.objects.create(
            pipeline=center.pipeline, pipeline_version=center.version, partition=edge, model="house-price"
        )
        for grain, days in ((60, 2), (3600, 35), (86_400, DAYS)):
            rows = int(ROWS / DAYS / 86_400 * grain / (1 if not edge else EDGES))
            packed = [_packed(kind, grain == 60 and bool(edge)) for kind in kinds]
            last = now // grain * grain
            found = [
                LogRollup(
                    series=series,
                    grain=grain,
                    start=(last - number * grain) * 1000,
                    rows=rows,
                    anomalous=0,
                    anomalies=0,
                    failures={},
                    latency=packed[number % 4][0],
                    fields=packed[number % 4][1],
                )
                for number in range(days * 86_400 // grain)
            ]
            LogRollup.objects.bulk_create(found, batch_size=1000)
            made += len(found)
            size += sum(len(row.fields) + len(row.latency) for row in found)
    return made, size


def _summary(center: Center, number: int) -> Summary:
    table = made_page(5000, number * 60_000, str(center.version.uuid), "bench")
    found = summaries.of_table(table, pa.repeat("bench", len(table)))
    return summaries.merged(found.values())


def _packed(summary: Summary, is_without_fields: bool) -> tuple[bytes, bytes]:
    summary = replace(summary, fields={}) if is_without_fields else summary
    return sketches.packed({"": summary.latency}), sketches.packed(summary.fields)


def measure_charts(center: Center) -> None:
    now = timezone.now()

    def asked(days: float, **changes: object) -> Asked:
        return Asked(now - timedelta(days=days), now, **changes)  # type: ignore[arg-type]

    def series(given: Asked) -> Callable[[], object]:
        return lambda: aggregates.time_series(center.owner, center.pipeline.pk, given)

    def distribution(given: Asked) -> Callable[[], object]:
        return lambda: aggregates.distribution(center.owner, center.pipeline.pk, given, "out.variable[0]")

    charts = {
        "requests and latency, an hour": series(asked(1 / 24)),
        "requests and latency, a day": series(asked(1)),
        "requests and latency, a day, by edge": series(asked(1, group_by=Group.EDGE)),
        "requests and latency, 30 days": series(asked(30)),
        "requests and latency, a year": series(asked(365)),
        "distribution, an hour": distribution(asked(1 / 24)),
        "distribution, a day": distribution(asked(1)),
        "distribution, a day, by edge": distribution(asked(1, group_by=Group.EDGE)),
        "distribution, a year": distribution(asked(365)),
    }
    for name, ask in charts.items():
        ask()
        taken = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            ask()
            taken.append((time.perf_counter() - started) * 1000)
        print(f"  {name}: p50 {statistics.median(taken):.0f} ms, worst {max(taken):.0f} ms")
