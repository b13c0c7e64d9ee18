"""Charts count every row from the moment it is acknowledged, and read little whatever was inferred."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from catalog.models import PipelineVersion, User
from common.errors import Invalid, NotFound
from logs import aggregates, buckets, rollups
from logs.buckets import Asked, Group
from logs.models import LogPage
from tests.logs.busy import HOUR, MINUTE, Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db
PRICES = np.random.default_rng(3).lognormal(12, 0.4, 600)


def minutes_ago(count: int) -> int:
    return (int(timezone.now().timestamp() * 1000) // MINUTE - count) * MINUTE


def asked(begin: int, minutes: int, **changes: Any) -> Asked:
    start = datetime.fromtimestamp(begin / 1000, UTC)
    return Asked(**({"start": start, "end": start + timedelta(minutes=minutes)} | changes))


def test_every_row_counts_before_and_after_it_is_rolled_up(device: Device, owner: User) -> None:
    begin, pipeline = minutes_ago(10), device.version.pipeline_id
    shipper = Shipper(device)
    shipper.run(begin, 300, outputs=PRICES[:300], failed=[n < 7 for n in range(300)])
    pending = aggregates.time_series(owner, pipeline, asked(begin, 10))
    rollups.roll_up_waiting(timezone.now)
    rolled = aggregates.time_series(owner, pipeline, asked(begin, 10))
    assert pending == rolled
    [series] = rolled.series
    assert (rolled.span.step, rolled.span.pending_rows, rolled.span.groups_left_out) == (60, 0, 0)
    assert [point.counts.rows for point in series.points] == [60] * 5 + [0] * 5
    assert (series.total.rows, series.total.anomalous, series.total.failures) == (300, 7, {"too_high": 7})
    assert series.points[0].counts.anomalies == 7
    assert series.points[9].counts.latency is None
    shipper.run(begin + 9 * MINUTE, 30)
    assert aggregates.time_series(owner, pipeline, asked(begin, 10)).series[0].total.rows == 330


def test_latency_is_in_milliseconds(device: Device, owner: User) -> None:
    begin = minutes_ago(2)
    Shipper(device).run(begin, 100, apart=10)
    latency = aggregates.time_series(owner, device.version.pipeline_id, asked(begin, 1)).series[0].total.latency
    assert latency is not None
    assert (latency.mean, latency.max) == (pytest.approx(50.5), 100)
    assert (latency.p50, latency.p90, latency.p99) == pytest.approx((50, 90, 99), rel=0.02)


def test_groups(device: Device, make_device: Callable[..., Device], owner: User) -> None:
    begin, pipeline = minutes_ago(3), device.version.pipeline_id
    second = make_device("second-edge", device.version)
    Shipper(device).run(begin, 20)
    Shipper(second).run(begin, 50)
    for _ in ("pending", "rolled up"):
        by = {group: aggregates.time_series(owner, pipeline, asked(begin, 3, group_by=group)).series for group in Group}
        assert [(one.group, one.total.rows) for one in by[Group.EDGE]] == [("second-edge", 50), (device.edge.name, 20)]
        assert [(one.group, one.total.rows) for one in by[Group.MODEL]] == [("house-price", 70)]
        assert [one.group for one in by[Group.VERSION]] == [str(device.version.uuid)]
        assert by[Group.MODEL_VERSION][0].group.startswith("house-price:")
        only = aggregates.time_series(owner, pipeline, asked(begin, 3, edges=(device.edge.name,)))
        assert [one.total.rows for one in only.series] == [20]
        assert aggregates.time_series(owner, pipeline, asked(begin, 3, model="other")).series[0].total.rows == 0
        span, groups = aggregates.rows_by_group(owner, pipeline, asked(begin, 3, group_by=Group.EDGE))
        assert [(one.group, one.rows) for one in groups] == [("second-edge", 50), (device.edge.name, 20)]
        assert span.step == 3600
        rollups.roll_up_waiting(timezone.now)


def test_the_smallest_groups_are_left_out_and_counted(
    device: Device, make_device: Callable[..., Device], owner: User, monkeypatch: Any
) -> None:
    monkeypatch.setattr(buckets, "MAX_GROUPS", 2)
    begin = minutes_ago(3)
    for number in range(4):
        Shipper(make_device(f"edge-{number}", device.version)).run(begin, 10 * (number + 1))
        if number == 1:
            rollups.roll_up_waiting(timezone.now)
    found = aggregates.time_series(owner, device.version.pipeline_id, asked(begin, 3, group_by=Group.EDGE))
    assert [(one.group, one.total.rows) for one in found.series] == [("edge-3", 40), ("edge-2", 30)]
    assert found.span.groups_left_out == 2


def test_an_edge_comes_first_by_all_its_rows_whenever_they_are_summed_up(
    device: Device, make_device: Callable[..., Device], owner: User, monkeypatch: Any
) -> None:
    monkeypatch.setattr(buckets, "MAX_GROUPS", 2)
    begin = minutes_ago(3)
    shippers = [Shipper(make_device(f"edge-{number}", device.version)) for number in range(4)]
    for shipper, count in zip(shippers, (30, 20, 10, 5), strict=True):
        shipper.run(begin, count)
    rollups.roll_up_waiting(timezone.now)
    shippers[2].run(begin + MINUTE, 15)
    found = aggregates.time_series(owner, device.version.pipeline_id, asked(begin, 3, group_by=Group.EDGE))
    assert [(one.group, one.total.rows) for one in found.series] == [("edge-0", 30), ("edge-2", 25)]
    assert found.span.groups_left_out == 2


def test_few_rows_that_fail_come_before_many_that_do_not(
    device: Device, make_device: Callable[..., Device], owner: User, monkeypatch: Any
) -> None:
    monkeypatch.setattr(buckets, "MAX_GROUPS", 2)
    begin, pipeline = minutes_ago(3), device.version.pipeline_id
    for number, failing in enumerate([0, 3, 5, 4, 0]):
        shipper = Shipper(make_device(f"edge-{number}", device.version))
        shipper.run(begin, 50 - 10 * number, failed=[row < failing for row in range(50 - 10 * number)])
    by_edge = asked(begin, 3, group_by=Group.EDGE)
    for _ in ("pending", "rolled up"):
        found = aggregates.failures(owner, pipeline, by_edge)
        assert [(one.group, one.total.anomalous) for one in found.series] == [("edge-2", 5), ("edge-3", 4)]
        assert found.span.groups_left_out == 1
        rollups.roll_up_waiting(timezone.now)
    named = aggregates.failures(owner, pipeline, replace(by_edge, edges=("edge-1",)))
    assert [(one.group, one.total.rows, one.total.anomalous) for one in named.series] == [("edge-1", 40, 3)]
    assert aggregates.failures(owner, pipeline, replace(by_edge, model="other")).series == ()


def test_what_fails_elsewhere_is_not_counted_here(
    device: Device,
    make_device: Callable[..., Device],
    make_pipeline_version: Callable[..., PipelineVersion],
    owner: User,
) -> None:
    begin = minutes_ago(3)
    Shipper(make_device("elsewhere", make_pipeline_version(name="another"))).run(begin, 10, failed=[True] * 10)
    Shipper(device).run(begin, 10)
    rollups.roll_up_waiting(timezone.now)
    by_edge = asked(begin, 3, group_by=Group.EDGE)
    assert aggregates.failures(owner, device.version.pipeline_id, by_edge).series == ()


def test_failing_edges_are_found_without_reading_the_others(device: Device, owner: User) -> None:
    begin = minutes_ago(3)
    Shipper(device).run(begin, 10, failed=[True] * 10)
    rollups.roll_up_waiting(timezone.now)
    reading = buckets.Reading(device.version.pipeline, asked(begin, 3, group_by=Group.EDGE), rank=buckets.Rank.FAILED)
    with CaptureQueriesContext(connection) as queries:
        reading.parts()
    [looking] = [query["sql"] for query in queries if 'SUM("logs_logrollup"."anomalous")' in query["sql"]]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # which is the best for so few rows
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{looking}")
        assert "log_rollup_failed" in str(cursor.fetchall())


def test_distribution_is_near_the_real_one(device: Device, owner: User) -> None:
    begin, pipeline = minutes_ago(10), device.version.pipeline_id
    Shipper(device).run(begin, 600, outputs=PRICES)
    field = "out.variable[0]"
    pending = aggregates.distribution(owner, pipeline, asked(begin, 10), field, bins=20)
    rollups.roll_up_waiting(timezone.now)
    found = aggregates.distribution(owner, pipeline, asked(begin, 10), field, bins=20)
    [series] = found.series
    assert series.histogram == pending.series[0].histogram
    total = series.total
    assert (total.count, total.min, total.max) == (600, PRICES.min(), PRICES.max())
    assert (total.mean, total.deviation) == pytest.approx((PRICES.mean(), PRICES.std()))
    assert (total.p10, total.p50, total.p90) == pytest.approx(tuple(np.quantile(PRICES, (0.1, 0.5, 0.9))), rel=0.03)
    assert np.abs(np.array(series.histogram) - np.histogram(PRICES, found.edges)[0]).max() < 12
    assert [point.spread.count for point in series.points] == [60] * 10
    assert series.points[3].spread.mean == pytest.approx(PRICES[180:240].mean())
    assert aggregates.fields(owner, pipeline, asked(begin, 10)) == [
        "out.variable[0]", "in.id", "in.tensor[0]", "in.tensor[1]",
    ]  # fmt: skip


def test_distributions_of_edges_are_by_the_hour(
    device: Device, make_device: Callable[..., Device], owner: User
) -> None:
    begin, pipeline = minutes_ago(10), device.version.pipeline_id
    Shipper(device).run(begin, 60, outputs=PRICES[:60])
    Shipper(make_device("second-edge", device.version)).run(begin, 60, outputs=PRICES[60:120] * 3)
    for _ in ("pending", "rolled up"):
        given = asked(begin, 1, group_by=Group.EDGE)
        found = aggregates.distribution(owner, pipeline, given, "out.variable[0]", bins=10)
        assert found.span.step == 3600
        totals = {one.group: one.total for one in found.series}
        assert totals[device.edge.name].mean == pytest.approx(PRICES[:60].mean())
        assert totals["second-edge"].mean == pytest.approx(3 * PRICES[60:120].mean())
        assert [len(one.histogram) for one in found.series] == [10, 10]
        only = aggregates.distribution(owner, pipeline, asked(begin, 1, edges=("second-edge",)), "out.variable[0]")
        assert [one.total.count for one in only.series] == [60]
        rollups.roll_up_waiting(timezone.now)


def test_a_field_that_is_not_there_has_no_numbers(device: Device, owner: User) -> None:
    begin = minutes_ago(1)
    Shipper(device).run(begin, 5)
    found = aggregates.distribution(owner, device.version.pipeline_id, asked(begin, 1), "out.other")
    assert (found.edges, found.series[0].total.count, found.series[0].histogram) == ((), 0, ())


def test_steps_grow_with_the_range(device: Device, owner: User) -> None:
    begin, pipeline = minutes_ago(40 * 60), device.version.pipeline_id
    Shipper(device).run(begin, 40, apart=HOUR)
    for _ in ("pending", "rolled up"):
        for hours, points, step in ((1, 120, 60), (40, 120, 1800), (40, 50, 3600), (24 * 365, 100, 7 * 86400)):
            given = asked(begin - (hours - 40) * HOUR, hours * 60, points=points)
            found = aggregates.time_series(owner, pipeline, given)
            assert found.span.step == step, hours
            assert len(found.series[0].points) <= points + 1
            assert found.series[0].total.rows == (1 if hours == 1 else 40), hours
        rollups.roll_up_waiting(timezone.now)


def test_a_range_that_has_no_minutes_any_more_is_answered_in_hours(device: Device, owner: User) -> None:
    begin = minutes_ago(60 * 72)
    Shipper(device).run(begin, 30)
    rollups.roll_up_waiting(timezone.now)
    found = aggregates.time_series(owner, device.version.pipeline_id, asked(begin, 30))
    assert (found.span.step, found.series[0].total.rows) == (3600, 30)


def test_many_series_are_answered_in_longer_steps(device: Device, owner: User, monkeypatch: Any) -> None:
    monkeypatch.setattr(buckets, "MAX_ROLLUPS", 50)
    begin = minutes_ago(120)
    Shipper(device).run(begin, 60)
    rollups.roll_up_waiting(timezone.now)
    found = aggregates.time_series(owner, device.version.pipeline_id, asked(begin, 120))
    assert (found.span.step, found.series[0].total.rows) == (3600, 60)


def test_rows_that_cannot_be_looked_at_are_told(device: Device, owner: User, monkeypatch: Any) -> None:
    begin, shipper = minutes_ago(1), Shipper(device)
    for _ in range(5):
        shipper.run(begin, 10)
    monkeypatch.setattr(buckets, "PENDING_PAGES", 3)
    found = aggregates.time_series(owner, device.version.pipeline_id, asked(begin, 1))
    assert (found.series[0].total.rows, found.span.pending_rows) == (30, 20)


def test_a_page_that_is_rolled_up_while_charts_are_read_counts_once(
    device: Device, owner: User, monkeypatch: Any
) -> None:
    begin = minutes_ago(1)
    shipper, read = Shipper(device), rollups.summarised
    shipper.run(begin, 10)

    def slow(batch: Any, **changes: Any) -> Any:
        found = read(batch, **changes)
        monkeypatch.undo()
        rollups.roll_up_waiting(timezone.now)
        return found

    monkeypatch.setattr(rollups, "summarised", slow)
    # The reader sees the page as pending, then its rollup as well.
    assert aggregates.time_series(owner, device.version.pipeline_id, asked(begin, 1)).series[0].total.rows == 10


def test_charts_do_not_need_the_rows(device: Device, owner: User) -> None:
    begin = minutes_ago(2)
    Shipper(device).run(begin, 10)
    rollups.roll_up_waiting(timezone.now)
    LogPage.objects.all().delete()
    assert aggregates.time_series(owner, device.version.pipeline_id, asked(begin, 2)).series[0].total.rows == 10


def test_statements_do_not_grow_with_what_is_there(
    device: Device, make_device: Callable[..., Device], owner: User, django_assert_max_num_queries: Any
) -> None:
    begin = minutes_ago(30)
    for number in range(6):
        Shipper(make_device(f"edge-{number}", device.version)).run(begin, 30, apart=MINUTE)
    rollups.roll_up_waiting(timezone.now)
    for number in range(6):
        Shipper(make_device(f"later-{number}", device.version)).run(begin, 30, apart=MINUTE)
    with django_assert_max_num_queries(11):
        found = aggregates.time_series(owner, device.version.pipeline_id, asked(begin, 30, group_by=Group.EDGE))
    assert sum(one.total.rows for one in found.series) == 360


def test_stranger_gets_not_found(device: Device, stranger: User) -> None:
    for ask in (aggregates.time_series, aggregates.fields, aggregates.rows_by_group):
        with pytest.raises(NotFound):
            ask(stranger, device.version.pipeline_id, asked(0, 1))


def test_an_empty_range_is_refused() -> None:
    now = timezone.now()
    with pytest.raises(Invalid, match="empty"):
        Asked(now, now)


def test_rest(device: Device, viewer: User, stranger: User, api: Callable[..., APIClient]) -> None:
    begin, address = minutes_ago(10), f"/api/v1/pipelines/{device.version.pipeline_id}/logs"
    Shipper(device).run(begin, 300, outputs=PRICES[:300])
    client = api(viewer)
    window = f"start={begin}&end={begin + 10 * MINUTE}"
    series = client.get(f"{address}/series?{window}&group_by=edge").json()
    assert series["span"]["step"] == 60
    assert series["series"][0]["group"] == device.edge.name
    assert [point["counts"]["rows"] for point in series["series"][0]["points"]] == [60] * 5 + [0] * 5
    assert client.get(f"{address}/series").json()["series"][0]["total"]["rows"] == 300  # of the last day
    assert client.get(f"{address}/fields?{window}").json()["fields"][0] == "out.variable[0]"
    spread = client.get(f"{address}/distribution?{window}&field=out.variable[0]&bins=10").json()
    assert (len(spread["edges"]), spread["series"][0]["total"]["count"]) == (11, 300)
    groups = client.get(f"{address}/groups?{window}&group_by=model").json()["groups"]
    assert groups == [{"group": "house-price", "rows": 300}]
    assert client.get(f"{address}/series?group_by=colour").status_code == 400
    assert client.get(f"{address}/series?start={begin}&end={begin}").status_code == 400
    for name in ("series", "groups", "fields", "distribution?field=in.id"):
        assert api(stranger).get(f"{address}/{name}").status_code == 404, name
        assert api().get(f"{address}/{name}").status_code == 401, name
