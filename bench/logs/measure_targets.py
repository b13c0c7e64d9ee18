"""The measurements of `bench.logs.targets`, once Django is set up on a database of its own."""

import json
import os
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Callable

import orjson
import psycopg
import pyarrow as pa
from django.conf import settings
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from bench.logs.exporting import exported
from bench.logs.measure import START, Center, made_page
from bench.logs.measure_segments import fill, tell
from logs import compaction, formats, merge, pages, queries, rollups, scans
from logs.asked import folder_of
from logs.filters import Filters
from logs.models import LogPage, LogSegment
from logs.query import Query
from logs.scans import Scope

ROWS = 5_000_000
EDGES = 20
PAGE = 10_000
EXPORTED = 1_000_000
TAIL_PAGES, TAIL_ROWS = 200, 1000
JSONB_ROWS = 200_000
MANIFEST = 100_000
EVERYTHING = 2**52


def main() -> None:
    share = 5 if "--quick" in sys.argv else 1
    settings.CELERY_TASK_ALWAYS_EAGER = False
    center = Center()
    print(f"targets on {connection.vendor}, {ROWS // share:,} rows of {EDGES} edges", flush=True)
    live(center)
    stored = compacted(center, ROWS // share)
    mean = scanned(center)
    tell(f"mean by edge of {ROWS // share:,} compacted rows, ms", mean, 200 / share, is_least=False)
    arrow(center, EXPORTED // share, 600 / share)
    records(center)
    if connection.vendor == "postgresql":
        jsonb(stored, mean / (ROWS // share))
    tail(center, mean)
    oldest = min(LogSegment.objects.values_list("time_min", flat=True))
    fill(center, LogSegment.objects.count(), MANIFEST, oldest)
    tell(f"newest 100 of {MANIFEST:,} segments, ms", newest(center), 20, is_least=False)


def p50(call: Callable[[], object], repeats: int = 7) -> float:
    """Milliseconds, after a first call that is not counted."""
    taken = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.median(taken[1:])


def newest(center: Center) -> float:
    return p50(lambda: merge.answer(queries._sources(center.pipeline, Filters()), Query(limit=100)), 15)


def ship(center: Center, begin: int, size: int, count: int, edges: int = EDGES) -> None:
    """So many pages, of edges in turn that infer at the same times, one row a millisecond each."""
    found = [center.edge(f"edge-{uuid.uuid4().hex[:8]}")[0] for _ in range(edges)]
    epochs = [uuid.uuid4() for _ in found]
    for number in range(count):
        which, turn = number % edges, number // edges
        table = made_page(size, begin + turn * size + which, str(center.version.uuid), found[which].name)
        center.store(found[which], epochs[which], 1 + turn * size, pages.encode(table))


def live(center: Center) -> None:
    """The newest hundred of edges whose pages all overlap."""
    ship(center, START, 1000, 10 * EDGES)
    tell(f"newest 100, {EDGES} live edges, ms", newest(center), 20 if connection.vendor == "sqlite" else 40, False)
    LogPage.objects.all().delete()


def compacted(center: Center, rows: int) -> float:
    """Pages become segments; answers bytes a row there."""
    ship(center, START, PAGE, rows // PAGE)
    rollups.roll_up_waiting(timezone.now)
    begin = time.perf_counter()
    compaction.compact(center.pipeline.pk, timezone.now)
    tell("compaction, rows/s", rows / (time.perf_counter() - begin), 400_000, is_least=True)
    stored = float(LogSegment.objects.filter(removed_at=None).aggregate(total=Sum("size"))["total"]) / rows
    tell("bytes a row in segments", stored, 46, is_least=False)
    return stored


def scanned(center: Center) -> float:
    """Milliseconds for the mean of the output by edge, from the rows themselves."""

    def mean() -> object:
        with scans.scan(Scope(center.pipeline, 0, EVERYTHING), ["out.variable[0]"]) as found:
            return found.execute("SELECT edge, avg(f0) FROM found GROUP BY edge").fetchall()

    return p50(mean)


def arrow(center: Center, rows: int, target: float) -> None:
    """A whole export, its job and durable files included."""
    taken = []
    for _ in range(3):
        export, seconds = exported(center.owner, center.pipeline, "arrow", rows)
        shutil.rmtree(folder_of(export.pk))
        taken.append(seconds * 1000)
    tell(f"export of {rows:,} rows as Arrow, ms", statistics.median(taken), target, is_least=False)


def records(center: Center) -> None:
    """pandas-records JSON beside what one would write first; both have the same rows."""
    table = next(queries.walk(center.pipeline, Query(limit=20_000), 20_000)).tables[0]
    at = table.schema.get_field_index("time")
    plain = table.set_column(at, "time", table.column(at).cast(pa.int64()))
    assert len(json.loads(formats.records(table))) == len(table)
    ours = p50(lambda: formats.records(table), 5)
    theirs = p50(lambda: orjson.dumps(plain.to_pylist()), 5)
    tell("JSON, times as fast as orjson(to_pylist())", theirs / ours, 3, is_least=True)


def jsonb(stored: float, mean: float) -> None:
    """The same shape as JSONB rows with two indexes. `stored` is bytes, `mean` milliseconds a row of ours."""
    with psycopg.connect(_address(), autocommit=True) as database:
        database.execute("CREATE TABLE row_jsonb (pipeline bigint, edge text, time bigint, row jsonb)")
        database.execute("CREATE INDEX ON row_jsonb (pipeline, time)")
        database.execute("CREATE INDEX ON row_jsonb (pipeline, edge, time)")
        for number in range(JSONB_ROWS // PAGE):
            edge = f"edge-{number % EDGES}"
            table = made_page(PAGE, START + number * PAGE, str(uuid.UUID(int=1)), edge)
            with database.cursor() as cursor, cursor.copy("COPY row_jsonb FROM STDIN") as into:
                for row in json.loads(formats.records(table)):
                    into.write_row((1, edge, row["time"], json.dumps(row)))
        database.execute("VACUUM ANALYZE row_jsonb")
        size = database.execute("SELECT pg_total_relation_size('row_jsonb')").fetchone()
        assert size
        question = "SELECT edge, avg((row->'out'->'variable'->>0)::float8) FROM row_jsonb GROUP BY edge"
        theirs = p50(lambda: database.execute(question).fetchall(), 5) / JSONB_ROWS
    tell("mean by edge, times as fast a row as JSONB", theirs / mean, 10, is_least=True)
    tell("bytes a row of JSONB for one in segments", size[0] / JSONB_ROWS / stored, 14, is_least=True)


def _address() -> str:
    return os.environ["DATABASE_URL"]


def tail(center: Center, before: float) -> None:
    """What pages that are not compacted yet add to a scan."""
    ship(center, START + 10**9, TAIL_ROWS, TAIL_PAGES)
    tell(f"a scan's extra for {TAIL_PAGES} pages, ms", scanned(center) - before, 300, is_least=False)
    LogPage.objects.all().delete()
