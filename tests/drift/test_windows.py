"""Each window is scored once, with the numbers of its rows."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from catalog.models import User
from drift import jobs, operations, queries, tasks
from drift.measures import Metric
from drift.models import Assay, Result
from drift.operations import Schedule
from logs import compaction, rollups
from tests.drift.conftest import BEGIN, HOUR, RANDOM, USUAL, ms, ship
from tests.drift.test_measures import by_hand
from tests.logs.busy import Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db
MakeAssay = Callable[..., Assay]


def at(hours: float) -> Callable[[], datetime]:
    return lambda: BEGIN + timedelta(hours=hours)


def statuses(assay: Assay) -> list[tuple[float, str, str]]:
    """Of each window its hour, edge and status, the oldest first."""
    found = Result.objects.filter(assay=assay).order_by("start", "edge")
    return [((one.start - ms(BEGIN)) / 3_600_000, one.edge, one.status) for one in found]


def test_windows_are_scored_as_they_end(device: Device, make_assay: MakeAssay) -> None:
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    assay = make_assay(device, warning=0.1)
    alike, other = RANDOM.normal(100, 10, 500), RANDOM.normal(125, 10, 500)
    assert jobs.run_due(at(1.9)) == 0
    ship(shipper, BEGIN + HOUR, alike)
    assert jobs.run_due(at(2)) == 1
    ship(shipper, BEGIN + 2 * HOUR, other)
    assert jobs.run_due(at(3.5)) == 1
    assert statuses(assay) == [(1, "", "ok"), (2, "", "alert")]
    before = np.maximum(by_hand(assay.bin_edges, USUAL), 1e-4)
    for result, values in zip(Result.objects.order_by("start"), (alike, other), strict=True):
        now = np.maximum(by_hand(assay.bin_edges, values), 1e-4)
        assert result.score == pytest.approx(((now - before) * np.log(now / before)).sum())
        assert result.parts == pytest.approx(list(by_hand(assay.bin_edges, values)))
        assert result.stats["mean"] == pytest.approx(values.mean())
        assert result.stats["median"] == pytest.approx(np.median(values))
        assert result.end - result.start == 3_600_000


def test_a_score_is_a_warning_between_the_thresholds(device: Device, make_assay: MakeAssay) -> None:
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    ship(shipper, BEGIN + HOUR, RANDOM.normal(106, 10, 500))
    probe = make_assay(device)
    jobs.run_due(at(2))
    score = Result.objects.get(assay=probe).score
    assert score is not None and score > 0
    expected = {
        "below both": ((2 * score, 3 * score), "ok"),
        "between": ((score / 2, 2 * score), "warning"),
        "just at the warning": ((score, 2 * score), "ok"),
        "above both": ((score / 3, score / 2), "alert"),
        "without a warning": ((None, 2 * score), "ok"),
    }
    for name, ((warning, alert), _) in expected.items():
        make_assay(device, name=name, warning=warning, alert=alert)
    jobs.run_due(at(2))
    found = {result.assay.name: result.status for result in Result.objects.exclude(assay=probe)}
    assert found == {name: status for name, (_, status) in expected.items()}


def test_a_window_holds_its_start_and_not_its_end(device: Device, make_assay: MakeAssay) -> None:
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    ship(shipper, BEGIN + HOUR, [1.0])
    ship(shipper, BEGIN + 2 * HOUR, [2.0])
    make_assay(device)
    jobs.run_due(at(3))
    assert [one.stats["mean"] for one in Result.objects.order_by("start")] == [1.0, 2.0]


def test_windows_missed_while_the_center_was_down_are_scored(device: Device, make_assay: MakeAssay) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    assay = make_assay(device, min_records=5)
    assert jobs.run_due(at(5.5)) == 4
    assert statuses(assay) == [(1, "", "too_few"), (2, "", "too_few"), (3, "", "too_few"), (4, "", "too_few")]
    assert Result.objects.values_list("score", flat=True).distinct().get() is None


def test_windows_may_overlap(device: Device, make_assay: MakeAssay) -> None:
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    ship(shipper, BEGIN + HOUR, np.arange(240.0), apart=60_000)
    assay = make_assay(device, schedule=Schedule(width=7200, interval=1800, wait=0))
    jobs.run_due(at(4.25))
    found = [one.stats["min"] for one in Result.objects.filter(assay=assay).order_by("start")]
    assert found == [0, 30, 60]


def test_rows_in_segments_and_pages_are_scored_alike(device: Device, make_assay: MakeAssay) -> None:
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    ship(shipper, BEGIN + HOUR, USUAL[:300] + 3)
    rollups.roll_up_waiting(timezone.now)
    assert compaction.compact(device.version.pipeline_id, timezone.now) == 1
    ship(shipper, BEGIN + 1.5 * HOUR, USUAL[300:400] + 3)
    assay = make_assay(device)
    assert assay.baseline_stats["mean"] == pytest.approx(USUAL.mean())
    jobs.run_due(at(2))
    result = assay.results.get()
    assert result.stats["count"] == 400
    assert result.parts == pytest.approx(list(by_hand(assay.bin_edges, USUAL[:400] + 3)))


def test_rows_that_come_late_are_waited_for(device: Device, make_assay: MakeAssay) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    make_assay(device, schedule=Schedule(width=3600, interval=3600, wait=600))
    assert jobs.run_due(at(2.1)) == 0
    assert jobs.run_due(at(2.2)) == 1


def test_a_run_ends(device: Device, make_assay: MakeAssay) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    assay = make_assay(device, schedule=Schedule(3600, 3600, run_until=BEGIN + 3.5 * HOUR, wait=0))
    assert jobs.run_due(at(9)) == 2
    assay.refresh_from_db()
    assert assay.status == Assay.Status.ENDED
    assert jobs.run_due(at(10)) == 0


def test_by_edge(device: Device, make_device: Callable[..., Device], make_assay: MakeAssay) -> None:
    first, second = Shipper(device), Shipper(make_device("second-edge", device.version))
    ship(first, BEGIN, USUAL)
    assay = make_assay(device, by_edge=True)
    only = make_assay(device, name="only", by_edge=True, edges=(device.edge.name, "silent-edge"))
    both = make_assay(device, name="both", metric=Metric.MAX_DIFF)
    ship(first, BEGIN + HOUR, USUAL[:500])
    ship(second, BEGIN + HOUR, USUAL[500:1000] + 40)
    jobs.run_due(at(2))
    assert statuses(assay) == [(1, device.edge.name, "ok"), (1, "second-edge", "alert")]
    assert statuses(only) == [(1, device.edge.name, "ok"), (1, "silent-edge", "too_few")]
    [result] = both.results.all()
    assert result.stats["count"] == 1000
    values = np.concatenate((USUAL[:500], USUAL[500:1000] + 40))
    difference = np.abs(by_hand(both.bin_edges, values) - by_hand(both.bin_edges, USUAL)).max()
    assert result.score == pytest.approx(difference)


def test_edges_by_a_pattern(device: Device, make_device: Callable[..., Device], make_assay: MakeAssay) -> None:
    first, second = Shipper(device), Shipper(make_device("shop-2", device.version))
    ship(second, BEGIN, USUAL)
    assay = make_assay(device, edges=("shop-*",), by_edge=True)
    ship(first, BEGIN + HOUR, USUAL[:10])
    ship(second, BEGIN + HOUR, USUAL[:20])
    jobs.run_due(at(2))
    assert [(one.edge, one.stats["count"]) for one in assay.results.all()] == [("shop-2", 20)]


def test_rows_of_another_model_are_left_out(device: Device, make_assay: MakeAssay) -> None:
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    other = '{"model_name": "other", "model_sha": "ff"}'
    shipper.run(ms(BEGIN + HOUR), 10, outputs=np.zeros(10), model=other)
    ship(shipper, BEGIN + HOUR, USUAL[:20])
    make_assay(device)
    jobs.run_due(at(2))
    assert Result.objects.get().stats["count"] == 20


def test_a_window_that_cannot_be_scored_is_told_and_the_next_one_runs(device: Device, make_assay: MakeAssay) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    assay = make_assay(device, field="in.id")
    assay.field = "out.gone"
    assay.save()
    shipper = Shipper(device)
    shipper.next = len(USUAL) + 1
    ship(shipper, BEGIN + HOUR, USUAL[:20])
    assert jobs.run_due(at(3)) == 2
    assert statuses(assay) == [(1, "", "failed"), (2, "", "too_few")]
    assert "out.gone" in Result.objects.get(status="failed").reason


def test_a_window_is_scored_once_by_two_workers(device: Device, make_assay: MakeAssay) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    slow = make_assay(device)
    fast = Assay.objects.get(pk=slow.pk)
    assert jobs.run_window(fast, at(2)())
    assert not jobs.run_window(slow, at(2)())
    assert statuses(slow) == [(1, "", "too_few")]


def test_a_worker_that_dies_before_its_commit_leaves_nothing(
    device: Device, make_assay: MakeAssay, monkeypatch: Any
) -> None:
    class Killed(BaseException):
        pass

    def die(*args: Any) -> None:
        raise Killed

    ship(Shipper(device), BEGIN, USUAL)
    assay = make_assay(device)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Result.objects, "bulk_create", die)
        jobs.run_due(at(2))
    assert Assay.objects.get().next_start == assay.next_start
    assert jobs.run_due(at(2)) == 1
    assert statuses(assay) == [(1, "", "too_few")]


def test_one_broken_assay_holds_up_no_other(device: Device, make_assay: MakeAssay, monkeypatch: Any) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    broken, sound = make_assay(device), make_assay(device, name="sound")
    run = jobs.run_window

    def breaking(assay: Assay, now: datetime) -> bool:
        if assay.pk == broken.pk:
            raise ValueError("broken")
        return run(assay, now)

    monkeypatch.setattr(jobs, "run_window", breaking)
    assert jobs.run_due(at(2)) == 1
    assert statuses(sound) == [(1, "", "too_few")]


def test_a_paused_assay_does_not_run_and_goes_on_with_what_has_not_ended(
    device: Device, make_assay: MakeAssay, owner: User
) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    assay = make_assay(device)
    operations.pause(actor=owner, assay_pk=assay.pk, note="maintenance")
    assert jobs.run_due(at(4)) == 0
    resumed = operations.resume(actor=owner, assay_pk=assay.pk, now=at(4.5)())
    assert resumed.note == ""
    assert jobs.run_due(at(4.9)) == 0
    assert jobs.run_due(at(5)) == 1
    assert statuses(assay) == [(4, "", "too_few")]


def test_the_chart_has_scores_and_thresholds(device: Device, make_assay: MakeAssay, viewer: User) -> None:
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    ship(shipper, BEGIN + HOUR, USUAL[:100] + 30)
    assay = make_assay(device, warning=0.1, alert=0.3)
    jobs.run_due(at(3))
    chart = queries.chart_for(viewer, assay.pk)
    assert (chart.warning, chart.alert) == (0.1, 0.3)
    assert len(chart.baseline_parts) == len(chart.bin_edges) + 1
    assert [(point.status, point.count) for point in chart.points] == [("alert", 100), ("too_few", 0)]
    assert chart.points[0].mean == pytest.approx(USUAL[:100].mean() + 30)
    assert chart.points[1].score is None


def test_the_tasks_run(device: Device, make_assay: MakeAssay) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    hour = timezone.now().replace(minute=0, second=0, microsecond=0) - HOUR
    make_assay(device, schedule=Schedule(3600, 3600, first_start=hour - HOUR, wait=0), now=timezone.now())
    assert tasks.run_assays() == 2
    assert tasks.pause_replaced_assays() == 0
