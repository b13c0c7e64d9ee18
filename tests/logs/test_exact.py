"""Exact aggregates agree with numpy, and are bounded."""

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from rest_framework.test import APIClient

from catalog.models import User
from common.errors import Conflict, Invalid, RateLimited, TooLarge
from logs import exact, paths, scans
from logs.exact import Question
from logs.filters import Filters
from logs.models import LogPage
from logs.scans import Scope
from tests.logs import rows
from tests.logs.busy import Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db
PRICES = np.random.default_rng(5).lognormal(12, 0.4, 2000)
START = rows.START


def scope(device: Device, *conditions: str, **changes: Any) -> Scope:
    start, end = changes.pop("start", START), changes.pop("end", START + 10_000_000)
    return Scope(device.version.pipeline, start, end, Filters(conditions=conditions, **changes))


def test_numbers_are_those_of_numpy(device: Device) -> None:
    shipper = Shipper(device)
    shipper.run(START, 1500, outputs=PRICES[:1500])
    shipper.run(START + 1_500_000, 500, outputs=PRICES[1500:])
    [found] = exact.summed(scope(device), Question("out.variable[0]"))
    assert (found.rows, found.count, found.nulls, found.odd) == (2000, 2000, 0, 0)
    assert (found.min, found.max) == (PRICES.min(), PRICES.max())
    assert (found.mean, found.deviation, found.sum) == pytest.approx((PRICES.mean(), PRICES.std(), PRICES.sum()))
    assert (found.p50, found.p90, found.p99) == pytest.approx(tuple(np.quantile(PRICES, (0.5, 0.9, 0.99))))


def test_conditions_and_groups(device: Device, make_device: Callable[..., Device]) -> None:
    Shipper(device).run(START, 1000, outputs=PRICES[:1000])
    Shipper(make_device("second-edge", device.version)).run(START, 1000, outputs=PRICES[1000:])
    found = exact.summed(scope(device, "out.variable[0] > 200000", "in.id < 500"), Question("in.id", by=("edge",)))
    for one, prices in zip(found, (PRICES[:500], PRICES[1000:1500]), strict=True):
        assert one.count == (prices > 200_000).sum()
        assert one.mean == pytest.approx(np.flatnonzero(prices > 200_000).mean())
    assert [one.groups for one in found] == [("houseprice-edge-01",), ("second-edge",)]
    steps = exact.summed(scope(device, edges=("second-edge",)), Question(step=300))
    assert sum(one.rows for one in steps) == 1000
    assert [one.start % 300_000 for one in steps] == [0] * len(steps)
    assert exact.summed(scope(device, end=START + 10_000), Question())[0].rows == 20
    assert exact.summed(scope(device, pipeline_versions=(device.version.uuid,)), Question())[0].rows == 2000
    assert exact.summed(scope(device, models=("house-price",)), Question())[0].rows == 2000
    assert exact.summed(scope(device, models=("other",)), Question())[0].rows == 0


def test_schemas_that_clash_take_part(device: Device) -> None:
    """The same name with another type, or none, is null where numbers are asked for."""
    shipper = Shipper(device)
    shipper.run(START, 10)
    for outputs in ({"variable": pa.array(["high"] * 5)}, {"label": pa.array(["cat", "dog", "cat", None, "cat"])}):
        shipper.ship(rows.table(range(START, START + 5), version=device.version.uuid, outputs=outputs, partition="x"))
    [found] = exact.summed(scope(device), Question("out.variable[0]"))
    assert (found.rows, found.count, found.nulls, found.sum) == (20, 10, 10, 45.0)
    by_label = exact.summed(scope(device), Question(by=("out.label",)))
    assert [(one.groups[0], one.rows) for one in by_label] == [("cat", 3), ("dog", 1), (None, 16)]
    assert exact.summed(scope(device, "out.label = 'cat'"), Question())[0].rows == 3
    assert exact.summed(scope(device, 'out.variable = "high"'), Question())[0].rows == 5
    assert exact.summed(scope(device, "out.label > 5"), Question())[0].rows == 0


def test_no_number_is_counted_apart(device: Device) -> None:
    Shipper(device).run(START, 4, outputs=[1.0, math.nan, math.inf, 3.0])
    [found] = exact.summed(scope(device), Question("out.variable[0]"))
    assert (found.count, found.odd, found.nulls, found.mean) == (2, 2, 0, 2.0)
    assert exact.summed(scope(device, "out.variable[0] > 0"), Question())[0].rows == 3  # infinity is, NaN is not
    assert exact.values(scope(device), "out.variable[0]")["houseprice-edge-01"].tolist() == [1.0, 3.0]


def test_names_that_sql_reads_otherwise(device: Device) -> None:
    """Quotes, dots, brackets, and names that differ in case alone."""
    given = {name: pa.array([float(n)] * 3) for n, name in enumerate(['a"b', "a.b", "a", "A", "a[0]"])}
    Shipper(device).ship(rows.table(range(START, START + 3), version=device.version.uuid, inputs=given, partition="x"))
    for number, name in enumerate(given):
        assert exact.summed(scope(device), Question(f"in.{name}"))[0].mean == number


def test_all_elements_of_lists(device: Device) -> None:
    tensors = [[[1.0, 2.0], [3.0]], [], None, [[5.0]]]
    given = {"tensor": pa.array(tensors, pa.list_(pa.list_(pa.float64())))}
    Shipper(device).ship(rows.table(range(START, START + 4), version=device.version.uuid, inputs=given, partition="x"))
    [every] = exact.summed(scope(device), Question("in.tensor[*]"))
    assert (every.count, every.sum) == (4, 11.0)
    [third] = exact.summed(scope(device), Question("in.tensor[2]"))
    assert (third.rows, third.count, third.nulls, third.sum) == (4, 1, 3, 3.0)
    assert exact.summed(scope(device, "in.tensor > 4"), Question())[0].rows == 1  # any of its elements


def test_a_field_that_no_row_has_is_refused(device: Device) -> None:
    Shipper(device).run(START, 4)
    with pytest.raises(Invalid, match=r"out\.other"):
        exact.summed(scope(device), Question("out.other"))


def test_too_many_groups_are_refused(device: Device, monkeypatch: Any) -> None:
    monkeypatch.setattr(exact, "MAX_GROUPS", 3)
    Shipper(device).run(START, 4)
    with pytest.raises(TooLarge, match="more than 3 groups"):
        exact.summed(scope(device), Question(by=("in.id",)))


def test_a_scan_that_takes_too_long_is_broken_off(device: Device) -> None:
    Shipper(device).run(START, 4)
    with pytest.raises(scans.TooSlow, match="shorter time"), scans.scan(scope(device), seconds=0.5) as scan:
        scan.execute("SELECT count(*) FROM range(100000000000) a, range(1000) b, found").fetchall()


def test_a_scan_that_needs_too_much_memory_is_broken_off(device: Device) -> None:
    Shipper(device).run(START, 4)
    with pytest.raises(TooLarge), scans.scan(scope(device)) as scan:
        scan.execute("SELECT list(i) FROM range(1000000000) t(i)").fetchall()


def test_few_scans_run_at_once(device: Device, monkeypatch: Any) -> None:
    monkeypatch.setattr(scans, "_turns", threading.BoundedSemaphore(1))
    Shipper(device).run(START, 4)
    with scans.scan(scope(device)), pytest.raises(RateLimited), scans.scan(scope(device), seconds=0.1):
        pass
    with scans.scan(scope(device)) as scan:
        assert scan.execute("SELECT count(*) FROM found").fetchall() == [(4,)]


def test_a_page_that_moves_while_it_is_read_makes_the_scan_begin_again(device: Device, monkeypatch: Any) -> None:
    shipper = Shipper(device)
    shipper.run(START, 4)
    shipper.run(START, 6)
    read, moved = scans._pages, []

    def listed(given: Scope) -> Any:
        found = read(given)
        if not moved:
            moved.append(found.first().pk)
            values = list(found.order_by("schema_id", "pk").values_list("pk", "schema_id", "size"))
            LogPage.objects.filter(pk=moved[0]).delete()
            monkeypatch.setattr(found, "order_by", lambda *_: type("L", (), {"values_list": lambda *_: values})())
        return found

    monkeypatch.setattr(scans, "_pages", listed)
    assert exact.summed(scope(device), Question())[0].rows == 6
    monkeypatch.setattr(scans, "_live_tables", lambda _: (_ for _ in ()).throw(scans._Moved))
    with pytest.raises(Conflict):
        exact.summed(scope(device), Question())


def test_nothing_from_elsewhere_is_loaded(device: Device) -> None:
    with scans.scan(scope(device)) as scan, pytest.raises(duckdb.Error):
        scan.execute("LOAD httpfs")


def test_paths_of_missing_things() -> None:
    schema = table_schema()
    assert paths.find(schema, "out.variable[0]") is not None
    for path in ("out", "out.variable[-1]", "out.variable[x]", "out.variable.x", "out.", "time", "none.x", "in.id[0]"):
        assert paths.find(schema, path) is None, path


def table_schema() -> pa.Schema:
    return rows.table([START]).schema


def test_rest(device: Device, viewer: User, stranger: User, api: Callable[..., APIClient]) -> None:
    Shipper(device).run(START, 100, outputs=PRICES[:100])
    address = f"/api/v1/pipelines/{device.version.pipeline_id}/logs/exact"
    given = {
        "start": START,
        "end": datetime.fromtimestamp(START / 1000 + 50, UTC).isoformat(),
        "field": "out.variable[0]",
        "by": "edge",
        "filter": ["in.id >= 10", "in.id < 40"],
    }
    answer = api(viewer).get(address, given)
    assert answer.status_code == 200, answer.content
    [group] = answer.json()
    assert (group["groups"], group["count"]) == ([device.edge.name], 30)
    assert group["mean"] == pytest.approx(PRICES[10:40].mean())
    assert api(viewer).get(address, given | {"filter": "nonsense"}).status_code == 400
    assert api(viewer).get(address, given | {"field": "out.none"}).status_code == 400
    assert api(viewer).get(address, {"start": START + 1, "end": START}).status_code == 400
    assert api(stranger).get(address, given).status_code == 404
