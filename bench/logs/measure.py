"""What measurements of logs share: a center of their own, pages, the report; and reading what has just arrived."""

import base64
import json
import statistics
import time
import uuid
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric import ec
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
SENT_PARTITION = "bench"


# How many values each column of the house-price model has in the sales of a county: bedrooms, bathrooms, living, lot,
# floors, waterfront, view, condition, grade, above, basement, latitude, longitude, living and lot of the neighbours,
# age, renovated, years since.
VALUES = (10, 30, 1000, 9000, 6, 2, 5, 5, 11, 900, 300, 5000, 750, 780, 8700, 116, 2, 70)
FEATURES = len(VALUES)


def made_page(count: int, begin: int, version: str, partition: str) -> pa.Table:
    """Rows of the house-price shape: 18 float32 in, one out, with as many different values as real ones have."""
    random = np.random.default_rng(begin)
    columns = np.stack([random.integers(0, values, count).astype(np.float32) for values in VALUES])
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


def analyze() -> None:
    """Has PostgreSQL look at its tables now, as its autovacuum does soon: plans rest on what it knows of them."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


class Report:
    """Rates of one run, beside those that they are compared with, and which targets were met."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self.judged: list[str] = []

    def rate(self, case: str, rows: int, milliseconds: list[float], target: str = "", **of: str) -> None:
        """`of`: the names of the cases to compare with."""
        self.rates[case] = rows / sum(milliseconds) * 1000
        ratios = ", ".join(f"{self.ratio(case, other):.2f}x of {word}" for word, other in of.items())
        each = f"p50 {statistics.median(milliseconds):.2f} p99 {np.percentile(milliseconds, 99):.2f} ms"
        print(f"{case:44} {self.rates[case]:12,.0f} rows/s  {each:26} {ratios:36} {target}", flush=True)

    def latency(self, case: str, milliseconds: list[float], target: str = "") -> None:
        each = f"p50 {statistics.median(milliseconds):.2f} p99 {np.percentile(milliseconds, 99):.2f} ms"
        print(f"{case:44} {'':19}  {each:26} {'':36} {target}", flush=True)

    def ratio(self, case: str, other: str) -> float:
        return self.rates[case] / self.rates[other]

    def at_least(self, what: str, value: float, least: float) -> None:
        """A target; `value` and `least` are ratios."""
        self._judge(what, f"{value:8.2f}x", f">= {least}x", value >= least)

    def at_most(self, what: str, value: float, most: float, unit: str) -> None:
        self._judge(what, f"{value:8.2f} {unit}", f"<= {most} {unit}", value <= most)

    def summary(self) -> None:
        """All targets of the run."""
        print(f"--- targets on {connection.vendor}", *self.judged, sep="\n", flush=True)

    def _judge(self, what: str, value: str, target: str, is_met: bool) -> None:
        self.judged.append(f"{what:62} {value:16} {target:16} {'met' if is_met else 'MISSED'}")


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
        case = f"newest 100, 20 edges, {20 * goal} pages of 1,000"
        report.latency(case, times[5:])
        report.at_most(f"{case}, p50", statistics.median(times[5:]), 20 if is_lite else 40, "ms")
    times = timed([lambda: queries.newest_rows(center.owner, center.pipeline)] * 30)
    report.latency("newest 50 as Python values", times[5:])
    everything = LivePages(LogPage.objects.filter(pipeline=center.pipeline))
    wide = Query(limit=10_000, selection=Selection(), max_bytes=10**9)
    report.latency("newest 10,000", timed([lambda: merge.answer([everything], wide)] * 8)[1:])
    answer = merge.answer([everything], wide)
    report.rate("newest 10,000 as JSON", 60_000, timed([lambda: formats.records(answer.table)] * 6))
