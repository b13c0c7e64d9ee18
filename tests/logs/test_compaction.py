"""Pages become segments, and who reads does not notice."""

import copy
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.db import connection
from django.utils import timezone

from catalog.models import User
from logs import compaction, live, queries, rollups, segments, storage, tasks
from logs.filters import Filters
from logs.models import LogCompaction, LogPage, LogRolled, LogRollup, LogSegment
from logs.query import Order, Query
from tests.conftest import ROOT
from tests.logs import rows
from tests.logs.busy import MINUTE, Shipper
from tests.logs.conftest import Device
from tests.logs.test_concurrent_store import database_in_a_file  # noqa: F401

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(settings: Any) -> Path:
    """Where segments are."""
    return Path(settings.LOGS_URL)


def compact(device: Device) -> int:
    rollups.roll_up_waiting(timezone.now)
    return compaction.compact(device.version.pipeline_id, timezone.now)


def read(device: Device, order: Order = Order.NEWEST_FIRST, filters: Filters | None = None, limit: int = 7) -> Any:
    """All rows, in small answers, as Python values."""
    pipeline = device.version.pipeline
    query = queries.asked(filters or Filters(), order=order, limit=limit)
    return [row for batch in queries.walk(pipeline, query) for table in batch.tables for row in table.to_pylist()]


def ship(device: Device, pages: int, count: int = 10, begin: int | None = None) -> None:
    """Pages whose times overlap."""
    begin = begin or (int(time.time() * 1000) // MINUTE - 60) * MINUTE
    shipper = Shipper(device)
    for number in range(pages):
        shipper.run(begin + number * 1500, count, outputs=[number * 1000 + n for n in range(count)])


@pytest.mark.parametrize("order", Order)
def test_reads_are_the_same_before_and_after(device: Device, make_device: Callable[..., Device], order: Order) -> None:
    ship(device, 6)
    ship(make_device("second", device.version), 5)
    before = read(device, order)
    assert len(before) == 110
    assert compact(device) == 1
    assert not LogPage.objects.exists()
    assert read(device, order) == before
    assert read(device, order, Filters(edges=("second",))) == [
        row for row in before if row["metadata"]["partition"] == "second"
    ]
    assert read(device, order, Filters(edges=("nobody",))) == []


def test_segments_and_live_pages_are_one(device: Device) -> None:
    shipper, begin = Shipper(device), (int(time.time() * 1000) // MINUTE - 60) * MINUTE
    shipper.run(begin, 20)
    compact(device)
    shipper.run(begin + 5500, 20)
    found = [row["time"] for row in read(device)]
    assert len(found) == 40 and found == sorted(found, reverse=True)


def test_a_cursor_goes_on_after_its_rows_became_a_segment(device: Device, owner: User) -> None:
    ship(device, 6)
    everything = [row["out"] for row in read(device)]
    first = queries.newest_page(owner, device.version.pipeline, limit=25)
    compact(device)
    second = queries.newest_page(owner, device.version.pipeline, cursor=first.next, limit=1000)
    assert [row["out"] for row in first.rows + second.rows] == everything
    assert second.next is None


def test_small_segments_become_one(device: Device) -> None:
    shipper, begin = Shipper(device), (int(time.time() * 1000) // MINUTE - 60) * MINUTE
    for number in range(compaction.ALIKE):
        shipper.run(begin + number * 500, 10)
        compact(device)
    assert LogSegment.objects.filter(removed_at=None).count() == 1
    assert len(read(device)) == 10 * compaction.ALIKE
    assert len({row["time"] for row in read(device)}) < 10 * compaction.ALIKE, "their times overlap"


def test_a_segment_is_parquet_for_everybody_sorted_by_time(device: Device, folder: Path) -> None:
    ship(device, 3)
    compact(device)
    (segment,) = LogSegment.objects.all()
    table = pq.read_table(folder / segment.path)
    times = table.column("time").cast(pa.int64()).to_pylist()
    assert times == sorted(times) and len(times) == segment.rows == 30
    assert (min(times), max(times)) == (segment.time_min, segment.time_max)
    assert segment.size == (folder / segment.path).stat().st_size
    assert segment.partitions == [device.edge.name]
    assert set(table.column_names) == {"time", "in", "out", "anomaly", "metadata", "_page", "_row", "_arrived"}


def test_rows_that_parquet_has_no_word_for_are_kept_as_arrow(device: Device) -> None:
    table = pa.table(rows.columns([1000, 2000], version=device.version.uuid, inputs={}))
    assert device.ship(rows.stream(table)).status_code == 200
    before = read(device)
    compact(device)
    assert LogSegment.objects.get().form == "arrow"
    assert read(device) == before and before[0]["in"] == {}


def test_each_schema_has_segments_of_its_own(device: Device) -> None:
    shipper, begin = Shipper(device), int(time.time() * 1000) - MINUTE
    shipper.run(begin, 5)
    other = pa.table(rows.columns([begin], version=device.version.uuid, outputs={"variable": pa.array(["text"])}))
    shipper.ship(other)
    before = read(device)
    assert compact(device) == 2
    assert read(device) == before and len(before) == 6


def test_pages_that_are_not_rolled_up_stay(device: Device) -> None:
    ship(device, 3)
    assert compaction.compact(device.version.pipeline_id, timezone.now) == 0
    assert LogPage.objects.count() == 3


def test_a_resent_page_is_not_stored_again(device: Device) -> None:
    begin = int(time.time() * 1000) - MINUTE
    body = device.page([begin, begin + 1])
    assert device.ship(body).json()["acked"] == 2
    compact(device)
    assert device.ship(body).json()["acked"] == 2
    assert len(read(device)) == 2 and not LogPage.objects.exists()


def test_the_task_waits_for_many_pages_or_old_ones(device: Device, monkeypatch: Any) -> None:
    ship(device, 3)
    rollups.roll_up_waiting(timezone.now)
    assert tasks.compact() == 0
    monkeypatch.setattr(compaction, "WAITING_PAGES", 3)
    assert tasks.compact() == 1
    ship_later = timezone.now() + timedelta(hours=1)
    Shipper(device).next = 31
    assert compaction.waiting_pipelines(ship_later) == []


def test_pages_wait_until_they_are_a_hundred_and_none_is_left(device: Device) -> None:
    """Looked at every 15 seconds, so that fewer than 200 wait where a pipeline gets up to six a second."""
    device.ship(device.page([rows.START]))
    (page,) = LogPage.objects.all()
    copies = [copy.copy(page) for _ in range(compaction.WAITING_PAGES - 1)]
    for number, one in enumerate(copies, 2):
        one.pk, one.first = None, number
    LogPage.objects.bulk_create(copies[:-1])
    rollups.roll_up_waiting(timezone.now)
    assert (LogPage.objects.count(), tasks.compact()) == (99, 0)
    LogPage.objects.bulk_create(copies[-1:])
    rollups.roll_up_waiting(timezone.now)
    assert (tasks.compact(), LogPage.objects.count()) == (1, 0)
    assert LogSegment.objects.get().rows == 100


def test_another_worker_keeps_out(device: Device) -> None:
    ship(device, 3)
    rollups.roll_up_waiting(timezone.now)
    until = timezone.now() + timedelta(minutes=1)
    LogCompaction.objects.create(pipeline=device.version.pipeline, lease=rows.EPOCH, leased_until=until)
    assert compaction.compact(device.version.pipeline_id, timezone.now) == 0
    assert compaction.compact(device.version.pipeline_id, lambda: until) == 1


def test_a_worker_that_lost_its_lease_enters_nothing(device: Device, monkeypatch: Any, folder: Path) -> None:
    ship(device, 3)
    rollups.roll_up_waiting(timezone.now)
    write = compaction.segment_files.write

    def stolen(*given: Any) -> None:
        LogCompaction.objects.update(lease=rows.EPOCH)
        write(*given)

    monkeypatch.setattr(compaction.segment_files, "write", stolen)
    assert compaction.compact(device.version.pipeline_id, timezone.now) == 0
    assert LogPage.objects.count() == 3 and not LogSegment.objects.exists()
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_a_full_disk_leaves_the_pages(device: Device, monkeypatch: Any) -> None:
    ship(device, 3)
    rollups.roll_up_waiting(timezone.now)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction.segment_files, "write", full)
    with pytest.raises(OSError, match="No space"):
        compaction.compact(device.version.pipeline_id, timezone.now)
    assert len(read(device)) == 30
    monkeypatch.undo()
    assert LogCompaction.objects.get().lease is None, "the next one may begin at once"


def test_a_file_and_its_names_are_durable_before_the_segment_counts(
    device: Device, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(device, 3)
    rollups.roll_up_waiting(timezone.now)
    sync, synced = os.fsync, []

    def noted(descriptor: int) -> None:
        assert not LogSegment.objects.exists() and LogPage.objects.count() == 3
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    assert compaction.compact(device.version.pipeline_id, timezone.now) == 1
    file = folder / LogSegment.objects.get().path
    # The folder of segments was not there either, so its name counts too.
    names = [file, file.parent, file.parent.parent, folder, folder.parent]
    assert synced == [name.stat().st_ino for name in names]


def test_a_lost_file_hides_no_other_rows(device: Device, folder: Path, caplog: Any) -> None:
    begin = (int(time.time() * 1000) // MINUTE - 60) * MINUTE
    shipper = Shipper(device)
    for number in range(2):
        shipper.run(begin + number * MINUTE, 10)
        compact(device)
    first = LogSegment.objects.order_by("pk")[0]
    (folder / first.path).unlink()
    with caplog.at_level(logging.ERROR):
        assert len(read(device)) == 10
    assert first.path in caplog.text


def test_rows_that_move_while_they_are_listed_are_read_all(device: Device, monkeypatch: Any) -> None:
    """The listing goes on where the segment no longer comes."""
    monkeypatch.setattr(live, "LISTED_PAGES", 2)
    monkeypatch.setattr(live, "BATCH_PAGES", 1)
    monkeypatch.setattr(segments, "LISTED", 1)
    ship(device, 8, begin=(int(time.time() * 1000) // MINUTE - 60) * MINUTE)
    before = read(device, limit=1000)
    rollups.roll_up_waiting(timezone.now)
    pipeline, got = device.version.pipeline, []
    for number, batch in enumerate(queries.walk(pipeline, Query(limit=9, order=Order.NEWEST_FIRST))):
        got += [row for table in batch.tables for row in table.to_pylist()]
        if number == 1:
            compaction.compact(pipeline.pk, timezone.now)
    assert got == before


class TestSweep:
    def test_it_removes_what_no_segment_knows_after_a_while(self, device: Device, folder: Path) -> None:
        ship(device, 2)
        compact(device)
        with storage.create(f"{device.version.pipeline_id}/lost/a.parquet") as file:
            file.write(b"left by a killed worker")
        assert compaction.sweep(timezone.now) == 0
        later = timezone.now() + compaction.GRACE + timedelta(minutes=1)
        assert compaction.sweep(lambda: later) == 1
        assert len(read(device)) == 20

    def test_it_removes_what_was_let_go_after_a_while(self, device: Device, folder: Path) -> None:
        ship(device, 2)
        compact(device)
        LogSegment.objects.update(removed_at=timezone.now())
        assert compaction.sweep(timezone.now) == 0 and LogSegment.objects.exists()
        later = timezone.now() + compaction.GRACE + timedelta(minutes=1)
        assert compaction.sweep(lambda: later) == 1
        assert not LogSegment.objects.exists() and not [path for path in folder.rglob("*") if path.is_file()]

    def test_it_leaves_files_that_are_not_segments(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "README.txt").write_text("mine")
        os.utime(folder / "README.txt", (0, 0))
        assert compaction.sweep(timezone.now) == 0


WORKER = """
import sys
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.LOGS_URL = sys.argv[3]
django.setup()
from django.utils import timezone
from logs import compaction
compaction.MOST_ROWS = 300
while True:
    print("begin", flush=True)
    if not compaction.compact(int(sys.argv[2]), timezone.now):
        break
"""


@pytest.mark.django_db(transaction=True)
def test_killed_workers_lose_and_double_nothing(device: Device, tmp_path: Path, folder: Path) -> None:
    ship(device, 60, count=100)
    before = read(device, limit=1000)
    rollups.roll_up_waiting(timezone.now)
    name, pipeline = connection.settings_dict["NAME"], device.version.pipeline_id
    command = [sys.executable, "-c", WORKER, str(name), str(pipeline), str(folder)]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "opscenter.settings", "PYTHONPATH": str(ROOT)}
    environment["OPSCENTER_DATA"] = str(tmp_path)
    for delay in (*itertools.islice(_delays(), 8), None):
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout and worker.stdout.readline()
            if delay is not None:
                time.sleep(delay)
                worker.send_signal(signal.SIGKILL)
            worker.stdout.read()
        LogCompaction.objects.update(leased_until=None)  # as time would
    assert not LogPage.objects.exists()
    assert read(device, limit=1000) == before
    later = timezone.now() + compaction.GRACE + timedelta(minutes=1)
    compaction.sweep(lambda: later)
    known = set(LogSegment.objects.values_list("path", flat=True))
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")} == known
    assert LogRolled.objects.exists() and LogRollup.objects.exists()


def _delays() -> Iterator[float]:
    return (0.004 * number for number in itertools.count())
