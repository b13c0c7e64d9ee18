"""Segments in an object store: a local server that speaks S3."""

import socket
import subprocess
import sys
import time
import uuid
import weakref
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.fs as pafs
import pytest
from deltalake import DeltaTable
from django.utils import timezone

from common.errors import Conflict
from logs import compaction, delta, exact, queries, rollups, scan_segments, segment_files, storage
from logs.exact import Question
from logs.filters import Filters
from logs.models import LogPage, LogSegment
from logs.scans import Scope
from tests.logs import rows
from tests.logs.busy import Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db
BUCKET = "logs"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """host:port of moto's server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "moto does not start"
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(autouse=True)
def bucket(server: str, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "only-for-tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "only-for-tests")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = pafs.S3FileSystem(endpoint_override=server, scheme="http", region="us-east-1", allow_bucket_creation=True)
    store.create_dir(BUCKET)
    settings.LOGS_URL = f"s3://{BUCKET}/{uuid.uuid4()}?endpoint_override={server}&scheme=http&region=us-east-1"


def compact(device: Device) -> None:
    rollups.roll_up_waiting(timezone.now)
    assert compaction.compact(device.version.pipeline_id, timezone.now)
    assert not LogPage.objects.exists()


def read(device: Device) -> list[Any]:
    pipeline = device.version.pipeline
    found = queries.walk(pipeline, queries.asked(Filters(), limit=1000))
    return [row for batch in found for table in batch.tables for row in table.to_pylist()]


def test_rows_are_read_and_scanned_there(device: Device) -> None:
    shipper = Shipper(device)
    shipper.run(rows.START, 100)
    shipper.run(rows.START + 50_000, 100)
    before = read(device)
    compact(device)
    assert read(device) == before and len(before) == 200
    scope = Scope(device.version.pipeline, rows.START, rows.START + 10_000_000, Filters())
    [found] = exact.summed(scope, Question("out.variable[0]", by=("edge",)))
    assert (found.rows, found.sum) == (200, 9900.0)


QUESTIONS: list[tuple[Question, dict[str, Any]]] = [
    (Question("out.variable[0]"), {}),
    (Question("out.variable[0]", by=("edge", "model"), step=60), {}),
    (Question("in.tensor[*]"), {"edges": ("houseprice-*",)}),
    (Question("in.id", by=("pipeline_version",)), {"conditions": ("out.variable > 20",)}),
    (Question("in.id"), {"anomalies": ("count",)}),
    (Question("in.id"), {"models": ("nobody",)}),
]


def test_numbers_are_those_of_a_disk(device: Device, settings: Any, tmp_path: Path) -> None:
    shipper = Shipper(device)
    shipper.run(rows.START, 100, failed=[number % 3 == 0 for number in range(100)])
    shipper.run(rows.START + 50_000, 100)
    compact(device)
    asked = [
        (Scope(device.version.pipeline, rows.START + 500, rows.START + 90_000, Filters(**filters)), question)
        for question, filters in QUESTIONS
    ]
    there = [exact.summed(*one) for one in asked]
    listed = [found.path for found in storage.listed("")]
    contents = {path: storage.open_file(path).read() for path in listed}
    settings.LOGS_URL = str(tmp_path)
    for path, content in contents.items():
        with storage.create(path) as file:
            file.write(content)
    assert scan_segments.is_on_disk()
    for (_, question), found, wanted in zip(asked, there, [exact.summed(*one) for one in asked], strict=True):
        assert len(found) == len(wanted) > 0, question
        for one, other in zip(found, wanted, strict=True):
            assert one.groups == other.groups and one.start == other.start
            assert (one.rows, one.sum, one.p90) == pytest.approx((other.rows, other.sum, other.p90)), question


def test_only_groups_and_leaves_that_count_are_read(device: Device, monkeypatch: Any) -> None:
    monkeypatch.setattr(segment_files, "GROUP_ROWS", 20)
    Shipper(device).run(rows.START, 200)
    compact(device)
    read, open_file = [], storage.open_file
    kind = segment_files._ParquetReader
    whole = kind.read

    def noted(self: Any, group: int, columns: Any = None) -> Any:
        table = whole(self, group, columns)
        read.append((group, {child.name for child in table.schema.field("metadata").type}, set(table.column_names)))
        return table

    monkeypatch.setattr(kind, "read", noted)
    begin = read_times(device, open_file)[3]
    scope = Scope(device.version.pipeline, begin, begin + 1, Filters())
    assert exact.summed(scope, Question("out.variable[0]"))[0].rows >= 1
    assert {group for group, _, _ in read} == {3}
    for _, metadata, columns in read:
        assert metadata == set(scan_segments.METADATA) and "in" not in columns
    read.clear()
    above = Filters(conditions=("out.variable > 1000000",))
    whole_time = Scope(device.version.pipeline, rows.START, rows.START + 10_000_000, above)
    exact.summed(whole_time, Question("out.variable[0]"))
    assert not read, "the statistics of every group say that it has none"


def read_times(device: Device, open_file: Any) -> list[int]:
    """When each group of the only segment begins."""
    segment = LogSegment.objects.get()
    return [group.time_min for group in segment_files.opened(open_file(segment.path), segment.form).groups]


def test_a_scan_keeps_few_groups_in_memory(device: Device, monkeypatch: Any) -> None:
    monkeypatch.setattr(segment_files, "GROUP_ROWS", 20)
    Shipper(device).run(rows.START, 1000)
    compact(device)
    alive: list[Any] = []
    most = 0
    narrowed = scan_segments.narrowed

    def counted(table: Any, wanted: Any) -> Any:
        nonlocal most
        made = narrowed(table, wanted)
        if len(table):
            alive[:] = [one for one in alive if one() is not None]
            alive.append(weakref.ref(made))
            most = max(most, len(alive))
        return made

    monkeypatch.setattr(scan_segments, "narrowed", counted)
    scope = Scope(device.version.pipeline, rows.START, rows.START + 10_000_000, Filters())
    assert exact.summed(scope, Question("out.variable[0]"))[0].rows == 1000
    assert 1 <= most <= scan_segments.READ_AHEAD + 3, "of fifty groups"


def test_a_store_that_goes_away_in_a_scan_is_said(device: Device, monkeypatch: Any) -> None:
    Shipper(device).run(rows.START, 50)
    compact(device)
    scope = Scope(device.version.pipeline, rows.START, rows.START + 10_000_000, Filters())

    def gone(*_: Any) -> Any:
        raise OSError("connection reset")

    monkeypatch.setattr(segment_files._ParquetReader, "read", gone)
    with pytest.raises(Conflict, match="store is away"):
        exact.summed(scope, Question("out.variable[0]"))


def test_small_segments_become_one_and_are_swept(device: Device) -> None:
    shipper = Shipper(device)
    for number in range(compaction.ALIKE):
        shipper.run(rows.START + number * 500, 10)
        compact(device)
    assert len(read(device)) == 10 * compaction.ALIKE
    with storage.create(f"{device.version.pipeline_id}/lost/a.parquet") as file:
        file.write(b"left by a killed worker")
    later = timezone.now() + compaction.GRACE + timedelta(minutes=1)
    assert compaction.sweep(lambda: later) == compaction.ALIKE + 1
    kept = [found.path for found in storage.listed("")]
    assert kept == list(LogSegment.objects.values_list("path", flat=True))
    assert len(read(device)) == 10 * compaction.ALIKE


def test_delta_tables_are_published_there(device: Device, server: str) -> None:
    Shipper(device).run(rows.START, 50)
    compact(device)
    assert delta.publish() == 1 and delta.publish() == 0
    place = storage.address(LogSegment.objects.get().path.rsplit("/", 1)[0])
    options = {"AWS_ENDPOINT_URL": f"http://{server}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    expected = sorted(read(device), key=lambda row: row["time"])
    keys = list(segment_files.KEYS)
    assert pl.read_delta(place, storage_options=options).sort("time").drop(keys).to_dicts() == expected
    dataset = DeltaTable(place, storage_options=options).to_pyarrow_dataset()  # noqa: F841 the name of DuckDB's table
    found = duckdb.sql(f"SELECT * EXCLUDE ({', '.join(keys)}) FROM dataset ORDER BY time")
    assert found.to_arrow_table().to_pylist() == expected and len(expected) == 50


def test_a_store_that_is_away_leaves_the_pages(device: Device, settings: Any) -> None:
    Shipper(device).run(rows.START, 50)
    rollups.roll_up_waiting(timezone.now)
    before = read(device)
    settings.LOGS_URL = settings.LOGS_URL.replace("//logs", "//no-such-bucket")
    with pytest.raises(OSError, match="no-such-bucket"):
        compaction.compact(device.version.pipeline_id, timezone.now)
    assert read(device) == before and len(before) == 50
