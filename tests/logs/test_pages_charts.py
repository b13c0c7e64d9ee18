"""The page of charts: what is drawn is what the rows amount to."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from catalog.models import User
from tests.logs.busy import MINUTE, Shipper
from tests.logs.conftest import Device

HTMX = {"HX-Request": "true"}


@pytest.fixture
def address(device: Device) -> str:
    return f"/pipelines/{device.version.pipeline_id}/logs/charts"


def now_ms() -> int:
    return int(timezone.now().timestamp() * 1000)


def drawn(page: str) -> dict[str, Any]:
    """The charts' data by their keys."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return {chart["key"]: chart for chart in map(json.loads, found)}


def test_everybody_in_the_workspace_sees_charts(statuses: Callable[..., dict[str, int]], address: str) -> None:
    assert statuses(address) == {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}


def test_charts_draw_what_the_rows_amount_to(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    failed = [number % 4 == 0 for number in range(100)]
    Shipper(device).run(now_ms() - 30 * MINUTE, 100, failed=failed)
    page = browser(viewer).get(address, {"period": "1h"}).content.decode()
    charts = drawn(page)
    assert set(charts) == {"requests", "latency", "anomalies", "histogram", "field"}
    assert sum(charts["requests"]["lines"][0]["values"]) == 100
    assert [line["label"] for line in charts["anomalies"]["lines"]] == [device.edge.name]
    assert sum(charts["anomalies"]["lines"][0]["values"]) == 25
    assert [line["label"] for line in charts["latency"]["lines"]] == ["p50", "p90", "p99"]
    assert sum(charts["histogram"]["lines"][0]["values"]) == pytest.approx(100)
    assert min(charts["histogram"]["x"]) > 0
    assert max(charts["histogram"]["x"]) < 99
    assert re.search(r'<span class="figure">100</span> rows', page)
    assert re.search(r'<span class="figure">25</span> failed', page)


def test_a_line_for_each_edge(
    browser: Callable[..., Client], address: str, device: Device, make_device: Callable[..., Device], viewer: User
) -> None:
    other = make_device("houseprice-edge-02", device.version)
    begin = now_ms() - 10 * MINUTE
    Shipper(device).run(begin, 10)
    Shipper(other).run(begin, 20)
    client = browser(viewer)
    charts = drawn(client.get(address, {"period": "1h", "by": "edge"}).content.decode())
    lines = {line["label"]: sum(line["values"]) for line in charts["requests"]["lines"]}
    assert lines == {device.edge.name: 10, other.edge.name: 20}
    only = drawn(client.get(address, {"period": "1h", "edge": other.edge.name}).content.decode())
    assert sum(only["requests"]["lines"][0]["values"]) == 20


def test_no_rows_teach_the_next_step(browser: Callable[..., Client], address: str, viewer: User) -> None:
    assert "No rows in this time" in browser(viewer).get(address).content.decode()


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"edge": "oven-*"}, "not a pattern"),
        ({"start": "2026-01-02T00:00", "end": "2026-01-01T00:00"}, "time range is empty"),
        ({"by": "weather"}, "Select a valid choice"),
    ],
)
def test_impossible_chart_is_told(
    browser: Callable[..., Client], address: str, viewer: User, query: dict[str, str], told: str
) -> None:
    page = browser(viewer).get(address, query).content.decode()
    assert 'role="alert"' in page
    assert told in page


def test_charts_need_as_many_queries_for_many_rows_as_for_one(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    client, shipper = browser(viewer), Shipper(device)
    shipper.run(now_ms() - 50 * MINUTE, 1)
    client.get(address)
    with CaptureQueriesContext(connection) as one:
        client.get(address)
    shipper.run(now_ms() - 40 * MINUTE, 400)
    with CaptureQueriesContext(connection) as many:
        client.get(address)
    assert len(many) == len(one)


def test_what_an_engine_wrote_cannot_end_the_data_of_a_chart(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    Shipper(device).run(now_ms() - 5 * MINUTE, 5)
    page = browser(viewer).get(address, {"field": "</script><script>alert(1)</script>"}).content.decode()
    assert "<script>alert" not in page
