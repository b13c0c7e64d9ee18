"""Exactly once, also when many send at a time and when the center is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import connection, connections

from catalog.models import User
from logs import operations, pages, queries
from logs.models import LogGap, LogMark, LogPage
from logs.query import Order, Query
from tests.conftest import ROOT
from tests.logs import rows
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def database_in_a_file(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """Threads and processes share a database in a file, as they do outside; the tests' SQLite is in memory."""
    if connection.vendor != "sqlite":
        yield
        return
    file, memory = str(tmp_path / "logs.sqlite3"), connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute("VACUUM INTO %s", [file])
    # A database in memory ends with its last connection, so this one is kept aside.
    kept, connection.connection = connection.connection, None
    connection.settings_dict["NAME"] = file
    yield
    connection.close()
    connection.settings_dict["NAME"], connection.connection = memory, kept


def store(device: Device, first: int, count: int, epoch: uuid.UUID = rows.EPOCH) -> int:
    """Stores rows `first`.., each known by its sequence."""
    sequence = range(first, first + count)
    body = device.page([rows.START + number for number in sequence], names=sequence)
    return operations.store_page(
        edge=device.edge,
        epoch=epoch,
        first=first,
        pipeline_version_uuid=device.version.uuid,
        page=operations.SentPage(body, NOW),
    )


def at_once(calls: list[Callable[[], object]]) -> list[object]:
    """All calls in threads that begin together; raises what any of them raised."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run, call) for call in calls]]


def sequences() -> list[int]:
    """The sequence of every stored row."""
    return sorted(row["in"]["id"] for page in LogPage.objects.all() for row in pages.read(bytes(page.body)).to_pylist())


def test_page_sent_several_times_at_once_is_stored_once(device: Device) -> None:
    assert at_once([lambda: store(device, 1, 500)] * 4) == [500] * 4
    assert sequences() == list(range(1, 501))
    assert (LogMark.objects.get().acked, LogMark.objects.get().rows) == (500, 500)


def test_overlapping_pages_sent_at_once_leave_each_row_once(device: Device) -> None:
    store(device, 1, 10)
    acked = at_once([lambda first=first: store(device, first, 20) for first in (1, 5, 8, 11)])
    assert set(acked) <= set(range(20, 31))
    mark = LogMark.objects.get()
    assert sequences() == list(range(1, mark.acked + 1))
    assert mark.acked == mark.rows == 30


def test_page_and_gap_sent_at_once_account_for_each_row_once(device: Device) -> None:
    def gap() -> int:
        told = operations.SentGap(rows.EPOCH, 1, 50, 50, time_min=None, time_max=None, reason="storage_limit")
        return operations.record_gap(edge=device.edge, gap=told, now=NOW)

    at_once([lambda: store(device, 1, 100), gap, gap])
    mark = LogMark.objects.get()
    assert (mark.acked, mark.rows + mark.shed) == (100, 100)
    assert len(sequences()) == mark.rows
    assert sum(LogGap.objects.values_list("count", flat=True)) == mark.shed


def test_four_writers_of_one_pipeline_need_no_retries(make_device: Callable[..., Device], viewer: User) -> None:
    first = make_device("edge-0")
    devices = [first, *(make_device(f"edge-{number}", first.version) for number in range(1, 4))]

    def write(device: Device) -> int:
        return [store(device, 1 + 50 * page, 50) for page in range(20)][-1]

    assert at_once([lambda device=device: write(device) for device in devices]) == [1000] * 4
    query = Query(order=Order.OLDEST_FIRST, limit=10_000)
    found = queries.read(viewer, first.version.pipeline_id, query).table.to_pylist()
    assert len(found) == 4000
    seen = {(row["metadata"]["partition"], row["in"]["id"]) for row in found}
    assert seen == {(device.edge.name, number) for device in devices for number in range(1, 1001)}


WRITER = """
import sys, uuid
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
django.setup()
from django.utils import timezone
from edges.models import Edge
from logs import operations
from tests.logs import rows
edge, version = Edge.objects.get(pk=sys.argv[2]), uuid.UUID(sys.argv[3])
for first in range(1, 3001, 50):
    sequence = range(first, first + 50)
    body = rows.page([rows.START + number for number in sequence], names=sequence, version=version, partition="x")
    acked = operations.store_page(
        edge=edge, epoch=rows.EPOCH, first=first, pipeline_version_uuid=version,
        page=operations.SentPage(body, timezone.now()),
    )
    print(acked, flush=True)
"""


def test_killed_center_loses_and_doubles_nothing(device: Device, tmp_path: Path) -> None:
    """A process stores pages from the first row on, is killed in the middle, and another begins again."""
    name = connection.settings_dict["NAME"]
    command = [sys.executable, "-c", WRITER, str(name), str(device.edge.pk), str(device.version.uuid)]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "opscenter.settings", "PYTHONPATH": str(ROOT)}
    environment["OPSCENTER_DATA"] = str(tmp_path)
    told = 0
    for kill_after in (1, 9, 20, 33, 41, None):
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            for number, line in enumerate(writer.stdout, start=1):
                told = max(told, int(line))
                if number == kill_after:
                    time.sleep(0.003)  # into the next page
                    writer.send_signal(signal.SIGKILL)
                    break
            writer.stdout.read()
        assert writer.returncode == (0 if kill_after is None else -signal.SIGKILL)
        assert LogMark.objects.get().acked >= told  # answered means durable
    assert sequences() == list(range(1, 3001))
    assert LogMark.objects.get().rows == 3000
