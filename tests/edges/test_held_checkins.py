"""Check-ins that are answered at once and written together a moment later."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from catalog.models import User
from edges import contacts, operations, pending, sessions, states
from edges.models import Edge
from publishing.models import Publish
from tests.edges.conftest import Clock, Device, golden, join_token_in


@pytest.fixture(autouse=True)
def held(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Held until a test flushes; no thread comes in between."""
    settings.EDGE_HOLD_SECONDS = 2
    waiting = pending._Waiting()
    monkeypatch.setattr(waiting, "_run", lambda: None)
    monkeypatch.setattr(pending, "_waiting", waiting)
    yield


def checkin(device: Device, publish: Publish, **changes: Any) -> Any:
    return device.checkin(**{"serving": device.serving(publish), **changes})


def stored(edge: Edge) -> Edge:
    return Edge.objects.get(pk=edge.pk)


def a_fleet(owner: User, publish: Publish, clock: Clock, count: int) -> list[Device]:
    devices = []
    for number in range(count):
        added = operations.add_edge(actor=owner, publish=publish, name=f"e{number}")
        device = Device(clock)
        assert device.join(join_token_in(added.bundle)).status_code == 201
        assert checkin(device, publish).status_code == 200
        devices.append(device)
    return devices


def test_plain_check_in_is_one_read(
    clock: Clock, device: Device, edge: Edge, publish: Publish, django_assert_num_queries: Any
) -> None:
    for _ in range(2):
        checkin(device, publish)
    clock.forward(seconds=20)
    with django_assert_num_queries(1) as queries:
        answer = checkin(device, publish, disk={"free": 1, "total": 2})
    assert answer.status_code == 200
    assert queries.captured_queries[0]["sql"].strip().startswith("SELECT")
    assert answer.json()["lapses_at"] == int((clock.now + sessions.SESSION_LIFE).timestamp() * 1000)
    assert stored(edge).last_contact == clock.now - timedelta(seconds=20)

    assert pending.flush(clock.now) == 1
    now = stored(edge)
    assert (now.last_contact, now.session_lapses_at) == (clock.now, clock.now + sessions.SESSION_LIFE)
    assert now.report["disk"] == {"free": 1, "total": 2}
    assert now.report["at"] == int(clock.now.timestamp() * 1000)
    assert pending.flush(clock.now) == 0


def test_many_are_written_in_few_statements(
    clock: Clock, owner: User, publish: Publish, monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
) -> None:
    monkeypatch.setattr(pending, "BATCH", 8)
    devices = a_fleet(owner, publish, clock, 20)
    pending.flush(clock.now)
    clock.forward(seconds=30)
    for device in devices:
        checkin(device, publish)
    with django_assert_max_num_queries(3 * 4):  # lock, write and the transaction's two ends, three times
        assert pending.flush(clock.now) == 20
    assert set(Edge.objects.values_list("last_contact", flat=True)) == {clock.now}


def test_only_the_latest_of_an_edge_is_written(clock: Clock, device: Device, edge: Edge, publish: Publish) -> None:
    for free in (1, 2, 3):
        clock.forward(seconds=1)
        checkin(device, publish, disk={"free": free, "total": 9})
    pending.flush(clock.now)
    assert (stored(edge).report["disk"]["free"], stored(edge).last_contact) == (3, clock.now)


def test_change_of_what_is_served_is_written_at_once(device: Device, edge: Edge, publish: Publish) -> None:
    checkin(device, publish)
    assert stored(edge).serving_digest == publish.pipeline_digest
    assert edge.events.filter(kind="serving").count() == 1
    checkin(device, publish, serving=None)
    assert stored(edge).serving_digest == ""
    assert [event.detail["to"] for event in edge.events.filter(kind="serving")] == ["", publish.pipeline_digest]


def test_change_of_what_is_served_costs_few_statements(
    device: Device, publish: Publish, django_assert_num_queries: Any
) -> None:
    checkin(device, publish)
    with django_assert_num_queries(5):  # look, write, event, and the savepoint that a test makes of a transaction
        checkin(device, publish, serving=None)


def test_edge_that_comes_back_after_a_silence_is_written_at_once(
    clock: Clock, device: Device, edge: Edge, publish: Publish
) -> None:
    """Whoever is near the end of a session must not depend on a process that may be killed."""
    checkin(device, publish)
    clock.forward(days=6, hours=23, minutes=59)
    assert device.token().status_code == 200
    Edge.objects.update(last_contact=clock.now - timedelta(days=6), session_lapses_at=clock.now + timedelta(days=1))
    checkin(device, publish)
    assert stored(edge).session_lapses_at == clock.now + sessions.SESSION_LIFE


def test_process_that_is_killed_loses_seconds_of_contact_and_strands_nobody(
    clock: Clock, device: Device, edge: Edge, publish: Publish, settings: Any
) -> None:
    settings.EDGE_CALLS_PER_MINUTE = 10_000  # a day in a second
    for _ in range(24 * 60):
        clock.forward(seconds=60)
        pending.forget()  # every process is killed before it writes
        answer = checkin(device, publish)
        if answer.status_code == 401:
            assert device.token().status_code == 200
            answer = checkin(device, publish)
        assert answer.status_code == 200
        left = stored(edge).session_lapses_at
        assert left is not None and left > clock.now + sessions.SESSION_LIFE - pending.RECENT - timedelta(minutes=2)
    checkin(device, publish)
    pending.flush(clock.now)
    assert states.edge_state(stored(edge), clock.now).state == "online"


@pytest.mark.parametrize("verb", ["ban_edge", "remove_edge"])
def test_edge_that_is_shut_out_meanwhile_is_refused_at_once_and_not_written(
    clock: Clock, device: Device, edge: Edge, owner: User, publish: Publish, verb: str
) -> None:
    checkin(device, publish)
    before = stored(edge).last_contact
    clock.forward(seconds=30)
    checkin(device, publish)
    getattr(operations, verb)(actor=owner, edge=edge)

    assert checkin(device, publish).status_code == 403
    assert pending.flush(clock.now) == 0
    assert stored(edge).last_contact == before


def test_report_of_an_edge_that_moved_meanwhile_proves_nothing(
    clock: Clock, device: Device, edge: Edge, publish: Publish, make_publish: Callable[..., Publish]
) -> None:
    """A report that came after the move, told of the publish before it: it must not count as knowing of the new one."""
    checkin(device, publish)
    before = stored(edge).report["at"]
    clock.forward(seconds=30)
    checkin(device, publish, update={"state": "failed", "error": "of another update"})
    Edge.objects.update(publish=make_publish())

    assert pending.flush(clock.now) == 0
    assert stored(edge).report["at"] == before


def test_report_from_before_another_key_joined_is_not_written(
    clock: Clock, device: Device, edge: Edge, owner: User, publish: Publish
) -> None:
    checkin(device, publish, serving=None)
    clock.forward(seconds=30)
    checkin(device, publish, serving=None)
    again = operations.reissue_token(actor=owner, edge=edge)
    assert Device(clock).join(join_token_in(again.bundle)).status_code == 201

    assert pending.flush(clock.now) == 0
    assert "at" not in stored(edge).report


def test_later_report_of_another_process_stays(clock: Clock, device: Device, edge: Edge, publish: Publish) -> None:
    checkin(device, publish)
    clock.forward(seconds=30)
    checkin(device, publish, disk={"free": 1, "total": 2})
    later = clock.forward(seconds=1)
    report = {**golden("checkin.request.json"), "serving": device.serving(publish), "disk": {"free": 2, "total": 2}}
    contacts.checkin(edge=stored(edge), report=report, now=later)

    assert pending.flush(clock.now) == 0
    assert (stored(edge).report["disk"]["free"], stored(edge).last_contact) == (2, later)


def test_log_page_in_between_does_not_lose_the_report(
    clock: Clock, device: Device, edge: Edge, publish: Publish
) -> None:
    checkin(device, publish)
    clock.forward(seconds=30)
    checkin(device, publish, disk={"free": 1, "total": 2})
    later = clock.forward(seconds=1)
    contacts.note(stored(edge), now=later)

    assert pending.flush(clock.now) == 1
    assert (stored(edge).report["disk"]["free"], stored(edge).last_contact) == (1, later)


def test_database_that_is_away_for_a_moment_loses_nothing(
    clock: Clock, device: Device, edge: Edge, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkin(device, publish)
    clock.forward(seconds=30)
    checkin(device, publish)

    def fails(*_: Any) -> int:
        raise OperationalError("away")

    with monkeypatch.context() as away:
        away.setattr(pending, "write", fails)
        with pytest.raises(OperationalError):
            pending.flush(clock.now)
    assert pending.flush(clock.now) == 1
    assert stored(edge).last_contact == clock.now


def test_what_cannot_be_written_for_a_minute_is_dropped(
    clock: Clock, device: Device, edge: Edge, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkin(device, publish)
    before = stored(edge).last_contact
    clock.forward(seconds=20)
    checkin(device, publish)
    with monkeypatch.context() as locked:
        locked.setattr(pending, "_free", lambda checkins: set())
        assert pending.flush(clock.forward(seconds=59)) == 0
        assert pending.flush(clock.forward(seconds=2)) == 0
    assert pending.flush(clock.now) == 0
    assert stored(edge).last_contact == before


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("shared_database")
def test_row_that_is_locked_is_left_for_the_next_time(
    clock: Clock, device: Device, edge: Edge, owner: User, publish: Publish
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite locks no rows")
    other, *_ = a_fleet(owner, publish, clock, 1)
    checkin(device, publish)
    clock.forward(seconds=30)
    for one in (device, other):
        checkin(one, publish)
    written: list[int] = []

    def flush() -> None:
        written.append(pending.flush(clock.now))
        connection.close()

    with transaction.atomic():
        Edge.objects.select_for_update().get(pk=edge.pk)
        flushing = threading.Thread(target=flush)
        flushing.start()
        flushing.join(10)
    assert written == [1], "it neither waits nor writes over"
    assert pending.flush(clock.now) == 1
    assert stored(edge).last_contact == clock.now


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("shared_database")
def test_thread_of_the_process_writes_within_the_time_it_may_hold(
    owner: User, publish: Publish, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.EDGE_CHECKIN_SECONDS = 1
    monkeypatch.setattr(pending, "_waiting", pending._Waiting())
    added = operations.add_edge(actor=owner, publish=publish, name="e")
    device = Device(clock=type("Now", (), {"now": timezone.now()})())
    device.join(join_token_in(added.bundle))
    checkin(device, publish)
    before = stored(added.edge).report["at"]
    with caplog.at_level(logging.ERROR):
        assert checkin(device, publish, disk={"free": 1, "total": 2}).status_code == 200
        for _ in range(100):
            if stored(added.edge).report["at"] != before:
                break
            threading.Event().wait(0.1)
    assert stored(added.edge).report["disk"] == {"free": 1, "total": 2}
    assert not caplog.records


def test_another_log_store_is_no_plain_check_in_and_told_before_it_is_overwritten(
    clock: Clock, device: Device, edge: Edge, publish: Publish
) -> None:
    before = golden("checkin.request.json")["logs"]
    checkin(device, publish)
    pending.flush(clock.now)
    clock.forward(seconds=20)
    now = int(clock.now.timestamp() * 1000)
    other = {**before, "epoch": "7d0a9c1e-8a3e-4a53-9a53-3f3ff1a0a6a5", "last_sequence": 1}
    assert checkin(device, publish, logs=other, clock=now).status_code == 200
    event = edge.events.filter(kind="rows_left_behind").get()
    assert (event.detail["epoch"], event.detail["rows"]) == (before["epoch"], before["last_sequence"])
    assert stored(edge).report["logs"] == other


def test_a_check_in_that_was_overtaken_tells_of_no_other_store(
    clock: Clock, device: Device, edge: Edge, publish: Publish
) -> None:
    before = golden("checkin.request.json")["logs"]
    sent = int(clock.now.timestamp() * 1000)
    checkin(device, publish, clock=sent)
    pending.flush(clock.now)
    clock.forward(seconds=20)
    checkin(device, publish, logs={**before, "last_sequence": before["last_sequence"] - 1}, clock=sent - 1)
    assert not edge.events.filter(kind="rows_left_behind").exists()


def test_a_volume_wiped_before_the_edge_joins_again_is_told_at_its_first_check_in(
    clock: Clock, device: Device, edge: Edge, publish: Publish, owner: User
) -> None:
    before = golden("checkin.request.json")["logs"]
    checkin(device, publish)
    pending.flush(clock.now)
    bundle = operations.reissue_token(actor=owner, edge=edge).bundle
    fresh = Device(clock)
    assert fresh.join(join_token_in(bundle)).status_code == 201
    other = {**before, "epoch": "7d0a9c1e-8a3e-4a53-9a53-3f3ff1a0a6a5", "last_sequence": 1}
    checkin(fresh, publish, logs=other)
    assert edge.events.filter(kind="rows_left_behind").count() == 1
