"""The measurements of `bench.logs.ingest`, once Django is set up on a database of its own."""

import argparse
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import urllib3
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from catalog.models import Pipeline, PipelineVersion, User, Workspace
from edges import contacts, operations, tokens
from edges.models import Edge
from logs import formats, merge, pages, queries
from logs import operations as logs
from logs.columns import Selection
from logs.live import LivePages
from logs.models import LogPage
from logs.query import Query
from publishing.models import Publish

START = 1_763_683_200_000
FEATURES = 18
SENT_PARTITION = "bench"


def made_page(count: int, begin: int, version: str, partition: str) -> pa.Table:
    """Rows of the house-price shape: 18 float32 in, one out, values that repeat as real ones do."""
    random = np.random.default_rng(begin)
    columns = random.integers(1, 9000, (FEATURES, count)).astype(np.float32)
    prices = random.uniform(75_000, 3_000_000, count).astype(np.float32)
    model = json.dumps({"model_name": "house-price", "model_sha": "ab" * 32})
    elapsed = pa.FixedSizeListArray.from_arrays(pa.array(random.integers(1000, 90_000, 2 * count)), 2)
    metadata = [
        pa.repeat(model, count),
        pa.repeat(version, count),
        elapsed.cast(pa.list_(pa.int64())),
        pa.array([[]] * count, pa.list_(pa.string())),
        pa.repeat(partition, count),
    ]
    names = ["last_model", "pipeline_version", "elapsed", "dropped", "partition"]
    output = pa.FixedSizeListArray.from_arrays(pa.array(prices), 1).cast(pa.list_(pa.float32()))
    return pa.table(
        {
            "time": pa.array(np.arange(begin, begin + count), pa.timestamp("ms")),
            "in": pa.StructArray.from_arrays([pa.array(c) for c in columns], [f"f{i}" for i in range(FEATURES)]),
            "out": pa.StructArray.from_arrays([output], ["variable"]),
            "anomaly": pa.StructArray.from_arrays([pa.array(np.zeros(count, np.int32))], ["count"]),
            "metadata": pa.StructArray.from_arrays(metadata, names),
        }
    )


def timed(calls: list[Callable[[], object]]) -> list[float]:
    """Milliseconds of each call."""
    each = []
    for call in calls:
        begin = time.perf_counter()
        call()
        each.append((time.perf_counter() - begin) * 1000)
    return each


class Center:
    """A migrated database with a pipeline version and edges that run it."""

    def __init__(self) -> None:
        call_command("migrate", verbosity=0)
        self.owner = User.objects.create_superuser("bench@example.com", "bench")
        workspace = Workspace.objects.create(name="bench", created_by=self.owner)
        self.pipeline = Pipeline.objects.create(workspace=workspace, name="bench", created_by=self.owner)
        self.version = PipelineVersion.objects.create(
            pipeline=self.pipeline, definition={"id": "bench", "steps": []}, created_by=self.owner
        )
        self.publish = Publish.objects.create(
            pipeline_version=self.version,
            status=Publish.Status.PUBLISHED,
            pipeline_digest="sha256:" + "0" * 64,
            created_by=self.owner,
        )

    def edge(self, name: str) -> tuple[Edge, str]:
        """An edge that joined, and its access token."""
        added = operations.add_edge(actor=self.owner, publish=self.publish, name=name)
        lines = base64.b64decode(added.bundle).decode().splitlines()
        bundle = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        key = tokens.jwk_of(ec.generate_private_key(ec.SECP256R1()).public_key())
        engine = {"version": "0", "arch": "x86_64", "accel": "none", "os": "linux"}
        joined = contacts.join(join_token=bundle["JOIN_TOKEN"], public_key=key, engine=engine)
        return joined.edge, joined.session.access_token

    def store(self, edge: Edge, epoch: uuid.UUID, first: int, body: bytes) -> None:
        logs.store_page(
            edge=edge,
            epoch=epoch,
            first=first,
            pipeline_version_uuid=self.version.uuid,
            page=logs.SentPage(body, timezone.now()),
        )


class Report:
    """Rates of one run, beside the rates that they are compared with."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}

    def rate(self, case: str, rows: int, milliseconds: list[float], target: str = "", **of: str) -> None:
        """`of`: the names of the cases to compare with."""
        self.rates[case] = rows / sum(milliseconds) * 1000
        ratios = ", ".join(f"{self.rates[case] / self.rates[other]:.2f}x of {word}" for word, other in of.items())
        each = f"p50 {statistics.median(milliseconds):.2f} p99 {np.percentile(milliseconds, 99):.2f} ms"
        print(f"{case:44} {self.rates[case]:12,.0f} rows/s  {each:26} {ratios:36} {target}", flush=True)

    def latency(self, case: str, milliseconds: list[float], target: str = "") -> None:
        each = f"p50 {statistics.median(milliseconds):.2f} p99 {np.percentile(milliseconds, 99):.2f} ms"
        print(f"{case:44} {'':19}  {each:26} {'':36} {target}", flush=True)


def ingest(center: Center, report: Report, size: int, count: int, is_http: bool) -> None:
    """The floor, the floor with encoding, and the center's ways to store the same pages."""
    edge, token = center.edge(f"ingest-{size}")
    tables = [made_page(size, START + size * number, str(center.version.uuid), edge.name) for number in range(8)]
    bodies = [pages.encode(table) for table in tables]
    rows, label = size * count, f"{size:,}-row pages"
    print(f"--- {label}, {count} each, {len(bodies[0]) / size:.1f} B a row", flush=True)
    path = Path(settings.DATA) / "floor"
    with path.open("wb") as file:

        def append(body: bytes) -> None:
            file.write(body)
            file.flush()
            os.fdatasync(file.fileno())

        floor = timed([lambda n=n: append(bodies[n % 8]) for n in range(count)])
        encoded = timed([lambda n=n: append(pages.encode(tables[n % 8])) for n in range(count)])
    path.unlink()
    report.rate(f"append + fdatasync, {label}", rows, floor)
    report.rate(f"encode + append + fdatasync, {label}", rows, encoded)
    comparisons = {"floor": f"append + fdatasync, {label}", "encode": f"encode + append + fdatasync, {label}"}
    ways = {
        "raw": (bodies, {1000: "raw: >= 0.5x of floor"} if connection.vendor == "sqlite" else {}),
        "server encodes": (
            [pages.encode(made_page(size, START + n, str(center.version.uuid), SENT_PARTITION)) for n in range(8)],
            {1000: ">= 0.6x of encode (SQLite)", 10_000: ">= 0.45x of encode (SQLite)"},
        ),
    }
    for way, (sent, targets) in ways.items():
        calls = store_calls(center, edge, size, [sent[n % 8] for n in range(count)])
        report.rate(f"store_page {way}, {label}", rows, timed(calls), targets.get(size, ""), **comparisons)
    if is_http:
        with served() as address:
            calls = http_calls(address, token, center, size, [bodies[n % 8] for n in range(count)])
            report.rate(
                f"HTTP raw, {label}", rows, timed(calls), ">= 0.5x of store_page", store_page=f"store_page raw, {label}"
            )


def store_calls(center: Center, edge: Edge, size: int, bodies: list[bytes]) -> list[Callable[[], object]]:
    """Storing pages one after the other, without HTTP."""
    epoch = uuid.uuid4()
    return [lambda n=n, body=body: center.store(edge, epoch, 1 + size * n, body) for n, body in enumerate(bodies)]


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
            address = f"http://127.0.0.1:{port}"
            wait_for(port)
            yield address
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


def http_calls(address: str, token: str, center: Center, size: int, bodies: list[bytes]) -> list[Callable[[], object]]:
    """Shipping pages as one engine does: over one connection, one after the other."""
    pool, epoch = urllib3.PoolManager(maxsize=1), uuid.uuid4()

    def ship(number: int, body: bytes) -> None:
        query = f"epoch={epoch}&first={1 + size * number}&pipeline_version={center.version.uuid}"
        response = pool.request(
            "POST", f"{address}/edge/v1/logs?{query}", body=body, headers={"Authorization": f"Bearer {token}"}
        )
        if response.status != 200:
            raise SystemExit(response.data.decode())

    ship(0, bodies[0])  # the server's first answer pays for its start; the mark makes the repeat free
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
        for way, target in (("raw", 30), ("server encodes", 20)):
            pages_rate = report.rates[f"store_page {way}, {size:,}-row pages"]
            print(f"{'':44} store_page {way}: {pages_rate / report.rates[case]:.1f}x of JSONB   >= {target}x")


def newest(center: Center, report: Report) -> None:
    """The newest hundred of a pipeline whose twenty edges infer at the same time, and of a lone long history."""
    is_lite = connection.vendor == "sqlite"
    LogPage.objects.all().delete()
    stored = 0
    edges = [center.edge(f"live-{number}")[0] for number in range(20)]
    epochs = [uuid.uuid4() for _ in edges]
    for goal in (5, 50):
        for page in range(stored, goal):
            for number, edge in enumerate(edges):
                body = pages.encode(made_page(1000, START + 1_000 * page + number, str(center.version.uuid), edge.name))
                center.store(edge, epochs[number], 1 + 1000 * page, body)
        stored = goal
        times = timed([lambda: queries.read(center.owner, center.pipeline.pk, Query())] * 60)
        target = f"<= {20 if is_lite else 40} ms"
        report.latency(f"newest 100, 20 edges, {20 * goal} pages of 1,000", times[5:], target)
    times = timed([lambda: queries.newest_rows(center.owner, center.pipeline)] * 30)
    report.latency("newest 50 as Python values", times[5:])
    everything = LivePages(LogPage.objects.filter(pipeline=center.pipeline))
    wide = Query(limit=10_000, selection=Selection(), max_bytes=10**9)
    report.latency("newest 10,000", timed([lambda: merge.answer([everything], wide)] * 8)[1:])
    answer = merge.answer([everything], wide)
    report.rate("newest 10,000 as JSON", 60_000, timed([lambda: formats.records(answer.table)] * 6))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=200, help="pages of 1,000 rows a case")
    parser.add_argument("--no-http", action="store_true")
    parser.add_argument("--no-jsonb", action="store_true")
    given = parser.parse_args()
    center, report = Center(), Report()
    print(f"database: {connection.vendor}", flush=True)
    for size in (1_000, 10_000):
        ingest(center, report, size, given.pages * 1_000 // size * (1 if size == 1_000 else 3), not given.no_http)
    if connection.vendor == "postgresql" and not given.no_jsonb:
        jsonb(center, report, 10_000, 200_000)
    newest(center, report)
