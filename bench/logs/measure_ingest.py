"""The measurements of `bench.logs.ingest`, once Django is set up on a database of its own."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import urllib3
from django.conf import settings
from django.db import connection

from bench.logs.measure import START, Center, Report, made_page, newest, timed
from logs import formats, pages
from logs.models import LogPage

Calls = list[Callable[[], object]]
BLOCK = 10  # calls of a case before the next one's turn, so that a busy machine slows all cases alike
WRITERS = 4


def in_turns(cases: dict[str, Calls]) -> dict[str, list[float]]:
    """Milliseconds of each call of each case, a block of one after a block of the other; prints the CPU time of this
    process.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    spent = dict.fromkeys(cases, 0.0)
    for begin in range(0, max(map(len, cases.values())), BLOCK):
        for name, calls in cases.items():
            before = time.process_time()
            times[name] += timed(calls[begin : begin + BLOCK])
            spent[name] += time.process_time() - before
    for name, seconds in spent.items():
        print(f"{name}: {1000 * seconds / len(cases[name]):.2f} ms of CPU a page in this process", flush=True)
    return times


def plain(table: pa.Table) -> bytes:
    """A page that nobody compressed, which is left to the center."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def ingest(center: Center, report: Report, size: int, count: int) -> None:
    """The floor, the floor with encoding, and the center's ways to store the same pages, by calls and by HTTP."""
    edge, token = center.edge(f"ingest-{size}")
    tables = [made_page(size, START + size * number, str(center.version.uuid), edge.name) for number in range(8)]
    raw, bare = [pages.encode(table) for table in tables], [plain(table) for table in tables]
    label = f"{size:,}-row pages"
    print(f"--- {label}, {count} each, {len(raw[0]) / size:.1f} B a row", flush=True)
    path = Path(settings.DATA) / "floor"
    with path.open("wb") as file, served() as address:

        def append(body: bytes) -> None:
            file.write(body)
            file.flush()
            os.fdatasync(file.fileno())

        times = in_turns(
            {
                "append + fdatasync": [lambda n=n: append(raw[n % 8]) for n in range(count)],
                "encode + append + fdatasync": [lambda n=n: append(pages.encode(tables[n % 8])) for n in range(count)],
                "store_page raw": store_calls(center, edge, size, [raw[n % 8] for n in range(count)]),
                "store_page server encodes": store_calls(center, edge, size, [bare[n % 8] for n in range(count)]),
                "HTTP raw": http_calls(address, token, center, size, [raw[n % 8] for n in range(count + 1)]),
            }
        )
    path.unlink()
    of = {"floor": f"append + fdatasync, {label}", "encode": f"encode + append + fdatasync, {label}"}
    for name, each in times.items():
        report.rate(f"{name}, {label}", size * count, each, **(of if "+" not in name else {}))
    judge(report, label, size, times)


def judge(report: Report, label: str, size: int, times: dict[str, list[float]]) -> None:
    """The targets of these cases (SQLite's are compared with the disk, PostgreSQL's with JSONB)."""
    if connection.vendor == "sqlite":
        encoded = report.ratio(f"store_page server encodes, {label}", f"encode + append + fdatasync, {label}")
        report.at_least(f"server encodes, {label}: of encode + append + sync", encoded, 0.6 if size == 1000 else 0.45)
    if connection.vendor == "sqlite" and size == 1000:
        report.at_least(
            f"raw, {label}: of append + sync",
            report.ratio(f"store_page raw, {label}", f"append + fdatasync, {label}"),
            0.5,
        )
    report.at_least(
        f"HTTP, {label}: of store_page", report.ratio(f"HTTP raw, {label}", f"store_page raw, {label}"), 0.5
    )
    if size == 1000:
        report.at_most(f"raw, {label}: p50", float(np.median(times["store_page raw"])), 3, "ms")
        report.at_most(f"raw, {label}: p99", float(np.percentile(times["store_page raw"], 99)), 15, "ms")


def stored_size(report: Report) -> None:
    """Bytes that a row takes as it arrived, in bodies."""
    kept = LogPage.objects.filter(partition="ingest-1000").values_list("size", "rows")
    size, rows = (sum(column) for column in zip(*kept, strict=True))
    report.at_most("bytes a row, 1,000-row pages", size / rows, 60, "B")


def store_calls(center: Center, edge: object, size: int, bodies: list[bytes]) -> Calls:
    """Storing pages one after the other, without HTTP."""
    epoch = uuid.uuid4()
    return [lambda n=n, body=body: center.store(edge, epoch, 1 + size * n, body) for n, body in enumerate(bodies)]


def four_writers(center: Center, report: Report, count: int) -> None:
    """Four edges of one pipeline that ship at once, against one of them; nobody may have to send a page again."""
    devices = [center.edge(f"writer-{number}") for number in range(WRITERS)]
    bodies = [pages.encode(made_page(1000, START + 1000 * n, str(center.version.uuid), "writer-0")) for n in range(8)]
    with served() as address:

        def calls(token: str) -> Calls:
            return http_calls(address, token, center, 1000, [bodies[n % 8] for n in range(count + 1)])

        alone = timed(calls(devices[0][1]))
        each = [calls(token) for _, token in devices]
        begin = time.perf_counter()
        with ThreadPoolExecutor(WRITERS) as pool:
            times = [one for found in pool.map(timed, each) for one in found]
        wall = (time.perf_counter() - begin) * 1000
    report.rate("HTTP, 1 writer", 1000 * count, alone)
    report.rate(f"HTTP, {WRITERS} writers", 1000 * count * WRITERS, [wall / (count * WRITERS)] * (count * WRITERS))
    report.latency(f"HTTP, {WRITERS} writers, each page", times)
    stored = LogPage.objects.filter(partition__startswith="writer-").count()
    # `http_calls` ends the run at any answer but 200, so whoever comes here had none to repeat.
    again = WRITERS * (count + 1) + (count + 1) - stored
    report.at_most(f"{WRITERS} writers: pages that were not stored at once", again, 0, "pages")
    print(
        f"{WRITERS} writers: {report.ratio(f'HTTP, {WRITERS} writers', 'HTTP, 1 writer'):.2f}x of 1 writer", flush=True
    )


@contextmanager
def served() -> Iterator[str]:
    """The center's web server on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--interface", "wsgi", "--port", str(port), "--workers", "1", "--blocking-threads", "8", "--no-ws"]
    command = [sys.executable, "-m", "granian", *words, "--log-level", "error", "opscenter.wsgi:application"]
    with subprocess.Popen(command) as server:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def wait_for(port: int) -> None:
    """Raises `SystemExit` when nobody listens within 20 seconds."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the web server did not start")


def http_calls(address: str, token: str, center: Center, size: int, bodies: list[bytes]) -> Calls:
    """Shipping pages as one engine does: over one connection, one after the other. The first is sent here."""
    pool, epoch = urllib3.PoolManager(maxsize=1), uuid.uuid4()

    def ship(number: int, body: bytes) -> None:
        query = f"epoch={epoch}&first={1 + size * number}&pipeline_version={center.version.uuid}"
        response = pool.request(
            "POST", f"{address}/edge/v1/logs?{query}", body=body, headers={"Authorization": f"Bearer {token}"}
        )
        if response.status != 200:
            raise SystemExit(response.data.decode())

    ship(0, bodies[0])  # the server's first answer pays for its start
    return [lambda n=n, body=body: ship(n, body) for n, body in enumerate(bodies) if n]


def jsonb(center: Center, report: Report, size: int, rows: int) -> None:
    """Rows as JSONB with two indexes on time, by COPY: what pages are compared with on PostgreSQL."""
    table = made_page(size, START, str(center.version.uuid), "bench")
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database:
        database.execute("CREATE TABLE row_jsonb (pipeline bigint, edge text, time bigint, row jsonb)")
        database.execute("CREATE INDEX ON row_jsonb (pipeline, time)")
        database.execute("CREATE INDEX ON row_jsonb (pipeline, edge, time)")

        def copy() -> None:
            with database.cursor() as cursor, cursor.copy("COPY row_jsonb FROM STDIN") as into:
                for row in json.loads(formats.records(table)):
                    into.write_row((1, "bench", row["time"], json.dumps(row)))

        case = f"JSONB rows by COPY, {size:,} a time"
        report.rate(case, rows, timed([copy] * (rows // size)))
        for way, least in (("server encodes", 20), ("raw", 30)):
            times = report.ratio(f"store_page {way}, {size:,}-row pages", case)
            report.at_least(f"{way}, {size:,}-row pages: of JSONB by COPY", times, least)
        taken = database.execute("SELECT pg_total_relation_size('row_jsonb')").fetchone()
        if taken:
            print(f"JSONB takes {taken[0] / rows:.0f} B a row", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=200, help="pages of 1,000 rows a case")
    parser.add_argument("--no-jsonb", action="store_true")
    parser.add_argument("--no-reads", action="store_true")
    given = parser.parse_args()
    center, report = Center(), Report()
    print(f"database: {connection.vendor}", flush=True)
    for size in (1_000, 10_000):
        ingest(center, report, size, given.pages * 1_000 // size * (1 if size == 1_000 else 3))
    stored_size(report)
    four_writers(center, report, given.pages // 4)
    if connection.vendor == "postgresql" and not given.no_jsonb:
        jsonb(center, report, 10_000, 200_000)
    if not given.no_reads:
        newest(center, report)
    report.summary()
