"""Rollups hold every row once, whatever becomes of the jobs that make them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models import Sum
from django.utils import timezone

from logs import rollups, tasks
from logs.models import LogPage, LogRolled, LogRollup, LogRollupState, LogSeries
from tests.logs.busy import HOUR, MINUTE, Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db


def minutes_ago(count: int) -> int:
    """The begin of a minute that long ago, epoch ms."""
    return (int(timezone.now().timestamp() * 1000) // MINUTE - count) * MINUTE


def rows_in(grain: int, partition: str = "") -> dict[int, int]:
    found = LogRollup.objects.filter(grain=grain, series__partition=partition).order_by("start")
    return dict(found.values_list("start").annotate(Sum("rows")))


def test_a_page_counts_in_its_minutes_hours_and_days(device: Device) -> None:
    begin = minutes_ago(3)
    Shipper(device).run(begin, 150, failed=[n % 10 == 0 for n in range(150)])
    assert rollups.roll_up_waiting(timezone.now) == 1
    for partition in ("", device.edge.name):
        assert rows_in(60, partition) == {begin: 60, begin + MINUTE: 60, begin + 2 * MINUTE: 30}
        assert sum(rows_in(3600, partition).values()) == 150
        assert sum(rows_in(86400, partition).values()) == 150
    first = LogRollup.objects.get(grain=60, start=begin, series__partition=device.edge.name)
    assert (first.anomalous, first.anomalies, first.failures) == (6, 6, {"too_high": 6})
    assert rollups.summary_of(first).fields == {}  # minutes of single edges have none
    summary = rollups.summary_of(LogRollup.objects.get(grain=60, start=begin, series__partition=""))
    assert summary.latency.mean == pytest.approx(30.5)
    assert summary.latency.high == 60
    assert set(summary.fields) == {"out.variable[0]", "in.id", "in.tensor[0]", "in.tensor[1]"}
    assert summary.fields["out.variable[0]"].mean == pytest.approx(29.5)
    assert first.series.model == "house-price"


def test_nothing_is_pending_afterwards(device: Device) -> None:
    Shipper(device).run(minutes_ago(1), 10)
    assert not rollups.rolled_up(LogPage.objects.all()).exists()
    rollups.roll_up_waiting(timezone.now)
    assert rollups.rolled_up(LogPage.objects.all()).count() == 1
    assert not rollups.pending(LogPage.objects.all()).exists()
    assert rollups.waiting_pipelines() == []
    assert rollups.roll_up_waiting(timezone.now) == 0


def test_late_rows_land_in_their_own_time(device: Device, make_device: Callable[..., Device]) -> None:
    now, offline = minutes_ago(0), make_device("offline-edge", device.version)
    Shipper(device).run(now, 5)
    rollups.roll_up_waiting(timezone.now)
    Shipper(offline).run(now - 100 * HOUR, 7)
    Shipper(offline)
    rollups.roll_up_waiting(timezone.now)
    assert rows_in(60, "offline-edge") == {}  # minutes are not kept so long
    late = now - 100 * HOUR
    assert rows_in(3600, "offline-edge") == {late - late % HOUR: 7}
    assert rows_in(3600)[late - late % HOUR] == 7
    assert sum(rows_in(86400).values()) == 12


def test_pages_of_several_edges_and_runs_add_up(device: Device, make_device: Callable[..., Device]) -> None:
    begin = minutes_ago(2)
    first, second = Shipper(device), Shipper(make_device("second-edge", device.version))
    for _ in range(3):
        first.run(begin, 20)
        second.run(begin, 30)
        rollups.roll_up_waiting(timezone.now)
    assert rows_in(60, device.edge.name) == {begin: 60}
    assert rows_in(60, "second-edge") == {begin: 90}
    assert rows_in(60) == {begin: 150}
    whole = rollups.summary_of(LogRollup.objects.get(grain=60, series__partition=""))
    assert whole.fields["in.id"].count == 150
    assert whole.fields["in.id"].high == 29


def test_a_job_that_dies_before_its_commit_leaves_nothing(device: Device, monkeypatch: Any) -> None:
    class Killed(BaseException):
        pass

    def die(*args: Any) -> None:
        raise Killed

    begin = minutes_ago(1)
    Shipper(device).run(begin, 10)
    add = rollups._merge
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(rollups, "_merge", lambda grain, wanted: add(grain, wanted) if grain < 3600 else die())
        rollups.roll_up(device.version.pipeline_id, timezone.now())
    assert not LogRollup.objects.exists()
    assert not LogRolled.objects.exists()
    rollups.roll_up_waiting(timezone.now)
    assert rows_in(60) == {begin: 10}


def test_a_page_that_another_worker_took_is_not_counted_again(device: Device, monkeypatch: Any) -> None:
    """It was listed and read before the other worker committed."""
    begin = minutes_ago(1)
    Shipper(device).run(begin, 10)
    pipeline, read = device.version.pipeline_id, rollups.summarised

    def slow(batch: Any) -> Any:
        found = read(batch)
        monkeypatch.undo()
        assert rollups.roll_up(pipeline, timezone.now()) == 1
        return found

    monkeypatch.setattr(rollups, "summarised", slow)
    assert rollups.roll_up(pipeline, timezone.now()) == 1
    assert rows_in(60) == {begin: 10}
    assert rollups.roll_up(pipeline, timezone.now()) == 0


def test_a_page_that_became_a_segment_meanwhile_is_not_counted_again(device: Device, monkeypatch: Any) -> None:
    """Even its mark is gone: the other worker was much faster."""
    begin = minutes_ago(1)
    Shipper(device).run(begin, 10)
    pipeline, read = device.version.pipeline_id, rollups.summarised

    def slow(batch: Any) -> Any:
        found = read(batch)
        monkeypatch.undo()
        rollups.roll_up(pipeline, timezone.now())
        LogPage.objects.all().delete()
        rollups.drop_old(timezone.now())
        assert not LogRolled.objects.exists()
        return found

    monkeypatch.setattr(rollups, "summarised", slow)
    rollups.roll_up(pipeline, timezone.now())
    assert rows_in(60) == {begin: 10}


def test_a_model_that_the_version_does_not_have_is_nameless(device: Device) -> None:
    """An edge may write any name; it must not make rollups without end."""
    Shipper(device).run(minutes_ago(1), 5, model='{"model_name": "invented", "model_sha": "ff"}')
    Shipper(device)
    rollups.roll_up_waiting(timezone.now)
    assert set(LogSeries.objects.values_list("model", "model_sha")) == {("", "")}


def test_old_minutes_and_hours_are_dropped_and_days_stay(device: Device) -> None:
    Shipper(device).run(minutes_ago(1), 5)
    rollups.roll_up_waiting(timezone.now)
    rollups.drop_old(timezone.now() + timedelta(hours=50))
    assert (rows_in(60), len(rows_in(3600)), len(rows_in(86400))) == ({}, 1, 1)
    rollups.drop_old(timezone.now() + timedelta(days=36))
    assert (rows_in(3600), sum(rows_in(86400).values())) == ({}, 5)


def test_a_lease_of_a_killed_worker_ends(device: Device) -> None:
    Shipper(device).run(minutes_ago(1), 5)
    now = timezone.now()
    LogRollupState.objects.create(
        pipeline=device.version.pipeline, lease=device.edge.pk, leased_until=now + timedelta(seconds=60)
    )
    assert rollups.roll_up_waiting(timezone.now) == 0
    assert rollups.roll_up_waiting(lambda: now + timedelta(seconds=61)) == 1
    assert LogRollupState.objects.get().lease is None


def test_one_broken_pipeline_holds_up_no_other(
    device: Device, make_device: Callable[..., Device], make_pipeline_version: Callable[..., Any], monkeypatch: Any
) -> None:
    other = make_device("other-edge", make_pipeline_version(name="other"))
    Shipper(device).run(minutes_ago(1), 5)
    Shipper(other).run(minutes_ago(1), 6)
    work = rollups.roll_up

    def breaking(pipeline_pk: int, now: datetime) -> int:
        if pipeline_pk == device.version.pipeline_id:
            raise ValueError("broken")
        return work(pipeline_pk, now)

    monkeypatch.setattr(rollups, "roll_up", breaking)
    assert rollups.roll_up_waiting(timezone.now) == 1


def test_statements_do_not_grow_with_pages(device: Device, django_assert_max_num_queries: Any) -> None:
    shipper, begin = Shipper(device), minutes_ago(2)
    for _ in range(30):
        shipper.run(begin, 5)
    with django_assert_max_num_queries(25):
        assert rollups.roll_up(device.version.pipeline_id, timezone.now()) == 30


def test_times_are_utc() -> None:
    assert rollups.oldest_kept(3600, datetime(1970, 2, 6, tzinfo=UTC)) == 24 * HOUR


def test_the_task_rolls_up(device: Device) -> None:

    Shipper(device).run(minutes_ago(1), 5)
    assert tasks.roll_up() == 1
    assert tasks.drop_old_rollups() == 0
