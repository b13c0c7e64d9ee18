"""Pages that arrive at the same time: each has its own outcome, and a kill loses nothing that was answered."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.db import connection, connections, transaction

from common.errors import StorageFull
from logs import operations, pages
from logs.errors import InvalidPage
from logs.models import LogMark, LogPage
from tests.conftest import ROOT
from tests.logs import rows
from tests.logs.conftest import Device

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECONDS = 60  # until a thread that should have ended counts as stuck
only_postgres = pytest.mark.skipif(
    "postgres" not in configured.DATABASES["default"]["ENGINE"], reason="SQLite has one writer at a time"
)


def send(device: Device, first: int = 1, body: bytes | None = None, epoch: uuid.UUID = rows.EPOCH) -> int:
    sequence = range(first, first + 20)
    made = device.page([rows.START + number for number in sequence], names=sequence)
    try:
        return operations.store_page(
            edge=device.edge,
            epoch=epoch,
            first=first,
            pipeline_version_uuid=device.version.uuid,
            page=operations.SentPage(made if body is None else body, NOW),
        )
    finally:
        if threading.current_thread() is not threading.main_thread():
            connections.close_all()


@contextmanager
def many_connections() -> Iterator[None]:
    """As many as there are threads; the pool has fewer."""
    options = connection.settings_dict["OPTIONS"]
    kept = options.pop("pool", None)
    connection.close()
    yield
    connection.close()
    if kept is not None:
        options["pool"] = kept


@only_postgres
@pytest.mark.django_db(transaction=True)
def test_of_32_senders_at_once_each_gets_its_own_answer(make_device: Callable[..., Device]) -> None:
    """One has no page, one a page that the database refuses, one sends the same page twice; the others are stored."""
    first = make_device("edge-0")
    devices = [first, *(make_device(f"edge-{number}", first.version) for number in range(1, 31))]
    refused, twice = uuid.UUID(int=7), devices[5]
    for device in devices:
        LogMark.objects.create(edge=device.edge, epoch=rows.EPOCH, updated_at=NOW)
    LogMark.objects.create(edge=devices[4].edge, epoch=refused, updated_at=NOW)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER no_room BEFORE INSERT ON logs_logpage FOR EACH ROW "
            f"WHEN (NEW.epoch = '{refused}') EXECUTE FUNCTION no_room()"
        )
    try:
        with many_connections(), ThreadPoolExecutor(33) as pool:
            # While somebody else holds their marks all wait for the database.
            with transaction.atomic():
                list(LogMark.objects.select_for_update().all())
                futures = [pool.submit(send, device) for device in devices if device is not devices[4]]
                bad = pool.submit(send, devices[4], epoch=refused)
                again = pool.submit(send, twice)
                nothing = pool.submit(send, devices[1], body=b"no page")
                assert isinstance(nothing.exception(SECONDS), InvalidPage)
            assert [future.result(SECONDS) for future in [*futures, again]] == [20] * 31
            assert isinstance(bad.exception(SECONDS), StorageFull)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION no_room CASCADE")
    stored = LogPage.objects.values_list("edge", "first", "rows")
    assert sorted(stored) == sorted((device.edge.pk, 1, 20) for device in devices if device is not devices[4])
    assert set(LogMark.objects.filter(acked=20).values_list("rows", flat=True)) == {20}
    assert LogMark.objects.get(epoch=refused).acked == 0


MANY = """
import sys, threading, uuid
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.DATABASES["default"]["OPTIONS"].pop("pool", None)
django.setup()
from django.utils import timezone
from edges.models import Edge
from logs import operations
from tests.logs import rows
version = uuid.UUID(sys.argv[2])
lock = threading.Lock()

def send(edge):
    for first in range(1, 1001, 50):
        sequence = range(first, first + 50)
        body = rows.page([rows.START + number for number in sequence], names=sequence, version=version, partition="x")
        page = operations.SentPage(body, timezone.now())
        acked = operations.store_page(
            edge=edge, epoch=rows.EPOCH, first=first, pipeline_version_uuid=version, page=page
        )
        with lock:
            print(edge.pk, acked, flush=True)

threads = [threading.Thread(target=send, args=[edge]) for edge in Edge.objects.all()]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@only_postgres
@pytest.mark.django_db(transaction=True)
def test_process_killed_amid_many_senders_loses_nothing_that_was_answered(
    make_device: Callable[..., Device], tmp_path: Path
) -> None:
    first = make_device("edge-0")
    devices = [first, *(make_device(f"edge-{number}", first.version) for number in range(1, 8))]
    command = [sys.executable, "-c", MANY, str(connection.settings_dict["NAME"]), str(first.version.uuid)]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "opscenter.settings", "PYTHONPATH": str(ROOT)}
    environment["OPSCENTER_DATA"] = str(tmp_path)
    told: dict[str, int] = {}
    for kill_after in (5, 60, 100, None):
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as sender:
            assert sender.stdout
            for number, line in enumerate(sender.stdout, start=1):
                edge, acked = line.split()
                told[edge] = max(told.get(edge, 0), int(acked))
                if number == kill_after:
                    sender.send_signal(signal.SIGKILL)
                    break
            for line in sender.stdout:
                if line.endswith("\n") and len(line.split()) == 2:
                    told[line.split()[0]] = max(told.get(line.split()[0], 0), int(line.split()[1]))
        assert sender.returncode == (0 if kill_after is None else -signal.SIGKILL)
        marks = {str(mark.edge_id): mark.acked for mark in LogMark.objects.all()}
        assert all(marks[edge] >= acked for edge, acked in told.items())
    for device in devices:
        stored: Any = LogPage.objects.filter(edge=device.edge)
        found = [row["in"]["id"] for page in stored for row in pages.read(bytes(page.body)).to_pylist()]
        assert sorted(found) == list(range(1, 1001))
    assert set(LogMark.objects.values_list("rows", flat=True)) == {1000}
