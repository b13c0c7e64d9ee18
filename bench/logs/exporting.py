"""The work of `bench.logs.export`, once Django is set up on a database of its own."""

import argparse
import gc
import json
import resource
import shutil
import time
import uuid

import numpy as np
import pyarrow as pa
from django.conf import settings
from django.db import connection
from django.utils import timezone

from bench.logs.measure import START, Center, made_page
from catalog.models import Pipeline, User
from logs import export_jobs, exports, formats, pages, queries
from logs.asked import Asked, folder_of
from logs.filters import Filters
from logs.models import LogExport, LogPage
from logs.query import Order, Query

EDGES = 4
PAGE = 10_000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--formats", nargs="+", default=["arrow", "parquet", "json"])
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def fill() -> None:
    """The rows as pages, past the door: what is measured is how they are read."""
    center = Center()
    edges = [center.edge(f"edge-{number}")[0] for number in range(EDGES)]
    epochs = [uuid.uuid4() for _ in edges]
    tables = [made_page(PAGE, START, str(center.version.uuid), edge.name) for edge in edges]
    now = timezone.now()
    for number in range(arguments().rows // PAGE):
        which, turn = number % EDGES, number // EDGES
        times = np.arange(PAGE) * EDGES + START + turn * PAGE * EDGES + which
        body = pages.encode(tables[which].set_column(0, "time", pa.array(times, pa.timestamp("ms"))))
        LogPage.objects.create(
            pipeline=center.pipeline,
            pipeline_version=center.version,
            edge=edges[which],
            partition=edges[which].name,
            epoch=epochs[which],
            first=1 + turn * PAGE,
            rows=PAGE,
            size=len(body),
            time_min=int(times[0]),
            time_max=int(times[-1]),
            schema_id="0" * 64,
            arrived_at=now,
            body=body,
        )


def peak() -> int:
    """The most memory that this process had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def exported(owner: User, pipeline: Pipeline, kind: str, limit: int | None) -> tuple[LogExport, float]:
    """An export that is done, and the seconds that it took."""
    asked = Asked(Filters(), order=Order.OLDEST_FIRST, limit=limit)
    export = exports.create_export(
        actor=owner, pipeline_pk=pipeline.pk, format=kind, asked=asked, data_size_limit=exports.DEFAULT_FILE
    )
    begin = time.perf_counter()
    export_jobs.export(str(export.pk))
    seconds = time.perf_counter() - begin
    export.refresh_from_db()
    assert export.status == LogExport.Status.DONE, export.error
    return export, seconds


def main() -> None:
    given = arguments()
    settings.CELERY_TASK_ALWAYS_EAGER = False
    owner, pipeline = User.objects.get(), Pipeline.objects.get()
    figures: dict[str, dict[str, float]] = {}
    print(f"database: {connection.vendor}, {given.rows:,} rows of {EDGES} edges", flush=True)
    for kind in given.formats:
        part, _ = exported(owner, pipeline, kind, given.rows // 10)
        before = peak()
        shutil.rmtree(folder_of(part.pk))
        gc.collect()
        export, seconds = exported(owner, pipeline, kind, None)
        files = list(export.files.all())
        assert sum(file.rows for file in files) == given.rows
        largest, size = max(file.size for file in files), sum(file.size for file in files)
        figures[kind] = {
            "rows_a_second": given.rows / seconds,
            "peak_mib": peak(),
            "grown_mib": peak() - before,
            "largest_file": largest,
        }
        print(
            f"export {kind:8} {given.rows / seconds:12,.0f} rows/s  {len(files):4} files of at most {largest:,} B, "
            f"{size / given.rows:.1f} B a row  peak {peak()} MiB, {peak() - before} MiB above that of a tenth",
            flush=True,
        )
        shutil.rmtree(folder_of(export.pk))
    filtered(owner, pipeline)
    json_against_dumps(pipeline, figures)
    if given.json:
        print(json.dumps(figures))


def filtered(owner: User, pipeline: Pipeline) -> None:
    """The newest hundred rows that a filter lets through: many, few, none (which ends after a million rows)."""
    for text in ("out.variable > 2000000", "out.variable > 2995000", "out.variable > 1e9"):
        query, times = queries.asked(Filters(conditions=(text,))), []
        for _ in range(5):
            begin = time.perf_counter()
            answer = queries.read(owner, pipeline.pk, query)
            times.append((time.perf_counter() - begin) * 1000)
        print(f"newest 100 of {text:24} p50 {sorted(times)[2]:8.1f} ms  {len(answer.table)} rows, {answer.status}")


def json_against_dumps(pipeline: Pipeline, figures: dict[str, dict[str, float]]) -> None:
    """pandas-records JSON beside what one would write first: `json.dumps(table.to_pylist())`."""
    batch = next(queries.walk(pipeline, Query(limit=20_000), 20_000))
    table = batch.tables[0]
    rates = []
    for write in (formats.records, lambda table: json.dumps(table.to_pylist(), default=str).encode()):
        begin = time.perf_counter()
        write(table)
        rates.append(len(table) / (time.perf_counter() - begin))
    figures["records"] = {"rows_a_second": rates[0], "ratio": rates[0] / rates[1]}
    print(f"pandas-records JSON {rates[0]:12,.0f} rows/s  {rates[0] / rates[1]:.1f}x of json.dumps(to_pylist())")
