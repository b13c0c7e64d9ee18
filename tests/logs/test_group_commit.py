"""Pages that arrive at the same time share a commit, and nothing else: each has its own outcome."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.db import DatabaseError, connection, connections, transaction

from common.errors import RateLimited, StorageFull
from logs import arrivals, commits, operations, pages
from logs.arrivals import Arrival, Owner
from logs.errors import InvalidPage
from logs.models import LogMark, LogPage
from tests.conftest import ROOT
from tests.logs import rows
from tests.logs.conftest import Device

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECONDS = 60  # until a thread that should have ended counts as stuck
only_postgres = pytest.mark.skipif(
    "postgres" not in configured.DATABASES["default"]["ENGINE"], reason="pages share commits on PostgreSQL only"
)


def until(is_so: Callable[[], bool]) -> None:
    """Waits for a state. Raises `AssertionError` when it never comes."""
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.002)


def arrival(number: int, size: int = 10) -> Arrival:
    page = pages.Page(body=b"x" * size, table=rows.table(rows.run(1)), schema_id="", time_min=1, time_max=1)
    return Arrival(Owner(source_id=number), "center:x", rows.EPOCH, 1, 1, 1, page, NOW)


class Writer:
    """Stands for the database: its first write waits for `go`."""

    def __init__(self, failing: Sequence[int] = ()) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.failing = set(failing)
        self.batches: list[list[int | None]] = []

    def __call__(self, batch: Sequence[Arrival]) -> list[bool]:
        self.batches.append([one.owner.source_id for one in batch])
        self.begun.set()
        assert self.go.wait(SECONDS)
        if self.failing & {one.owner.source_id for one in batch}:
            raise DatabaseError("no")
        return [one.owner.source_id != 3 for one in batch]


@contextmanager
def waiting(writer: Writer, numbers: Sequence[int], size: int = 10) -> Iterator[dict[int, Future[bool | None]]]:
    """Page 1 is being written and the others wait behind it, in this order; the rest of the test lets it go."""
    group = commits.GroupCommit(writer)
    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        found = {1: pool.submit(group.store, arrival(1, size))}
        assert writer.begun.wait(SECONDS)
        for place, number in enumerate(numbers, start=1):
            found[number] = pool.submit(group.store, arrival(number, size))
            until(lambda place=place: len(group._queue) == place)  # type: ignore[misc]
        yield found


def test_pages_that_wait_share_the_next_commit() -> None:
    writer = Writer()
    with waiting(writer, [2, 3, 4]) as found:
        writer.go.set()
    assert writer.batches == [[1], [2, 3, 4]]
    assert {number: future.result() for number, future in found.items()} == {1: True, 2: True, 3: False, 4: True}


def test_of_a_batch_that_fails_each_page_goes_on_alone() -> None:
    writer = Writer(failing=[4])
    with waiting(writer, [2, 4, 5]) as found:
        writer.go.set()
    assert [future.result() for future in found.values()] == [True, None, None, None]


def test_batch_has_no_more_bytes_than_its_bound() -> None:
    writer = Writer()
    with waiting(writer, [2, 4, 5], size=commits.MOST_BYTES // 2):
        writer.go.set()
    assert writer.batches == [[1], [2, 4], [5]]


def test_page_that_waits_too_long_is_told_to_come_again() -> None:
    writer = Writer()
    group = commits.GroupCommit(writer, wait_seconds=0.05)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(group.store, arrival(1))
        assert writer.begun.wait(SECONDS)
        with pytest.raises(RateLimited):
            group.store(arrival(2))
        writer.go.set()
        assert first.result(SECONDS)
    assert writer.batches == [[1]]
    assert group.store(arrival(4)) is True  # and others are led as before


def test_leader_that_breaks_off_leaves_the_others_a_leader() -> None:
    calls: list[int] = []

    def write(batch: Sequence[Arrival]) -> list[bool]:
        calls.append(len(batch))
        if len(calls) == 1:
            raise MemoryError
        return [True] * len(batch)

    group = commits.GroupCommit(write)
    with pytest.raises(MemoryError):
        group.store(arrival(1))
    assert group.store(arrival(2)) is True


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
def test_of_32_senders_at_once_each_gets_its_own_answer(
    make_device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has no page, one a page that the database refuses, one sends the same page twice; the others are stored."""
    batches: list[int] = []

    def write(batch: Sequence[Arrival]) -> list[bool]:
        batches.append(len(batch))
        return arrivals.store_together(batch)

    group = commits.GroupCommit(write, wait_seconds=10 * SECONDS)  # so that a slow machine refuses none
    monkeypatch.setattr(commits, "_together", group)
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
            # While somebody else holds the first edge's mark, the leader waits for it and the others for the leader.
            with transaction.atomic():
                list(LogMark.objects.select_for_update().filter(edge=devices[0].edge))
                futures = [pool.submit(send, devices[0])]
                until(lambda: batches == [1])
                futures += [pool.submit(send, device) for device in devices[1:] if device is not devices[4]]
                bad = pool.submit(send, devices[4], epoch=refused)
                again = pool.submit(send, twice)
                until(lambda: len(group._queue) == 31)
                nothing = pool.submit(send, devices[1], body=b"no page")
                assert isinstance(nothing.exception(SECONDS), InvalidPage)
            assert [future.result(SECONDS) for future in [*futures, again]] == [20] * 31
            assert isinstance(bad.exception(SECONDS), StorageFull)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION no_room CASCADE")
    assert batches[:2] == [1, 31]
    stored = LogPage.objects.values_list("edge", "first", "rows")
    assert sorted(stored) == sorted((device.edge.pk, 1, 20) for device in devices if device is not devices[4])
    assert set(LogMark.objects.filter(acked=20).values_list("rows", flat=True)) == {20}
    assert LogMark.objects.get(epoch=refused).acked == 0


@only_postgres
@pytest.mark.django_db(transaction=True)
def test_batches_in_any_order_never_wait_for_each_other(
    make_device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes' leaders with the same marks: locks are taken in one order, whatever the order of arrival."""
    monkeypatch.setattr(arrivals, "BATCH_LOCK_MILLISECONDS", 1000 * SECONDS)  # only a deadlock can end it
    first = make_device("edge-0")
    devices = [first, *(make_device(f"edge-{number}", first.version) for number in range(1, 12))]
    for device in devices:
        LogMark.objects.create(edge=device.edge, epoch=rows.EPOCH, updated_at=NOW)
    page = pages.check(first.page(rows.run(1)), pipeline_version=str(first.version.uuid), partition="x")

    def batch(numbers: Sequence[int], begin: int) -> list[Arrival]:
        version = first.version
        return [
            Arrival(
                Owner(edge_id=devices[number].edge.pk),
                "x",
                rows.EPOCH,
                begin,
                version.pk,
                version.pipeline_id,
                page,
                NOW,
            )
            for number in numbers
        ]

    def write(numbers: Sequence[int]) -> int:
        try:
            return sum(sum(arrivals.store_together(batch(numbers, begin))) for begin in range(1, 21))
        finally:
            connections.close_all()

    forth, back = range(12), range(11, -1, -1)
    with many_connections(), ThreadPoolExecutor(2) as pool:
        counts = [future.result(SECONDS) for future in [pool.submit(write, forth), pool.submit(write, back)]]
    stored = LogPage.objects.count()
    assert sum(counts) == stored == sum(LogMark.objects.values_list("acked", flat=True))


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
def test_process_killed_amid_shared_commits_loses_nothing_that_was_answered(
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
