"""The page of a pipeline's newest rows."""

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from catalog.models import User
from logs import display
from tests.logs.conftest import Device

HTMX = {"HX-Request": "true"}


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@pytest.fixture
def address(device: Device) -> str:
    return f"/pipelines/{device.version.pipeline_id}/logs"


def test_everybody_in_the_workspace_sees_rows(statuses: Callable[..., dict[str, int]], address: str) -> None:
    assert statuses(address) == {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}


def test_empty_log_teaches_the_next_step(browser: Callable[..., Client], address: str, viewer: User) -> None:
    page = browser(viewer).get(address).content.decode()
    assert "No rows yet" in page
    assert "Go to the edges" in page


def test_rows_are_shown_newest_first_with_everything_in_them(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    now = milliseconds(datetime(2026, 11, 20, 12, 0, 1, 7000, tzinfo=UTC))
    assert device.ship(device.page([now - 1000, now])).status_code == 200
    page = browser(viewer).get(address).content.decode()
    assert page.index("2026-11-20 12:00:01.007") < page.index("2026-11-20 12:00:00.007")
    assert "houseprice-edge-01" in page
    assert "house-price" in page
    assert "718013.6875" in page
    assert "[1.5, 2.5]" in page
    assert "&quot;pipeline_version&quot;" in page


def test_filters_are_in_the_address(
    browser: Callable[..., Client], address: str, device: Device, make_device: Callable[..., Device], viewer: User
) -> None:
    other = make_device("houseprice-edge-02", device.version)
    now = timezone.now()
    device.ship(device.page([milliseconds(now) - 5000]))
    other.ship(other.page([milliseconds(now) - 7_200_000]))
    client = browser(viewer)

    def found(**query: str) -> set[str]:
        page = client.get(address, query, headers=HTMX).content.decode()
        return {name for name in ("houseprice-edge-01", "houseprice-edge-02") if f">{name}</span>" in page}

    assert found() == {"houseprice-edge-01", "houseprice-edge-02"}
    assert found(edge="houseprice-edge-02") == {"houseprice-edge-02"}
    assert found(period="1h") == {"houseprice-edge-01"}
    assert found(end=f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}") == {"houseprice-edge-02"}
    assert found(start=f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M}") == {"houseprice-edge-01"}
    whole = client.get(address, {"edge": "houseprice-edge-02"}).content.decode()
    assert 'value="houseprice-edge-02"' in whole


def test_impossible_filter_is_told(browser: Callable[..., Client], address: str, viewer: User) -> None:
    page = browser(viewer).get(address, {"edge": "nobody", "start": "soon"}).content.decode()
    assert "Enter a valid date/time." in page
    unreadable = browser(viewer).get(address, {"filter": "out.variable >"}).content.decode()
    assert 'role="alert"' in unreadable


def test_live_table_asks_again_and_a_still_one_does_not(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    device.ship(device.page([1]))
    client = browser(viewer)
    assert "every 3s" in client.get(address, {"live": "1"}, headers=HTMX).content.decode()
    assert "every 3s" not in client.get(address, headers=HTMX).content.decode()


def test_what_an_engine_wrote_cannot_become_markup(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    evil = {"<script>alert(1)</script>": pa.array(["<img src=x onerror=alert(2)>"])}
    assert device.ship(device.page([1], inputs=evil)).status_code == 200
    page = browser(viewer).get(address).content.decode()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;img" in page


def test_page_needs_as_many_queries_for_many_rows_as_for_one(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    client = browser(viewer)
    device.ship(device.page([1]))
    client.get(address)
    with CaptureQueriesContext(connection) as one:
        client.get(address)
    device.ship(device.page(list(range(2, 40))), first=2)
    with CaptureQueriesContext(connection) as many:
        client.get(address)
    assert len(many) == len(one)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (718013.6875, "718013.7"),
        (1.0, "1"),
        (0.0, "0"),
        (0.00001, "1e-05"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (None, "null"),
        ([[2.5]], "2.5"),
        ([1, 2, 3, 4, 5], "[1, 2, 3, 4, … 5 values]"),
        ("a" * 100, "a" * 60 + "…"),
    ],
)
def test_values_are_short_and_plain(value: object, text: str) -> None:
    assert [(cell.name, cell.text) for cell in row(value).inputs] == [("x", text)]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(1, "number"), ([[2.5]], "number"), (True, "boolean"), ("a", "text"), (None, "null"), ([1, 2], "list")],
)
def test_values_tell_their_type(value: object, kind: str) -> None:
    assert row(value).inputs[0].kind == kind


def test_older_rows_are_one_cursor_away(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    device.ship(device.page(list(range(1, 121))))
    client, seen, here = browser(viewer), [], address
    for _ in range(3):
        page = client.get(here).content.decode()
        seen += re.findall(r'<time datetime="([^"]+)"', page)
        older = re.search(r'href="([^"]*cursor=[^"]*)">Older rows', page)
        here = address + html.unescape(older[1]) if older else ""
    assert not here, "there is nothing older than the last page"
    assert len(seen) == 120
    assert seen == sorted(seen, reverse=True)


def test_rows_are_filtered_by_value_and_model_pattern(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    device.ship(device.page([1]))
    client = browser(viewer)

    def count(**query: str) -> int:
        return client.get(address, query, headers=HTMX).content.decode().count("<time datetime=")

    assert count(model="house-*") == 1
    assert count(model="other") == 0
    assert count(filter="out.variable > 700000") == 1
    assert count(filter="out.variable > 800000") == 0
    assert count(edge="*-01") == 1
    assert count(pipeline_version=str(device.version.uuid)) == 1


def test_json_of_a_row_is_json_whatever_the_numbers() -> None:
    whole = row([float("nan"), float("inf")]).whole
    assert '"nan"' in whole
    assert "NaN" not in whole


def test_failed_checks_are_named() -> None:
    shown = row(1, anomaly={"count": 2, "high": True, "low": False, "odd": True})
    assert (shown.anomalies, shown.failed) == (2, ["high", "odd"])


@pytest.mark.parametrize("last_model", [None, "no json", "{}", "[]", '"text"'])
def test_row_without_a_readable_model_is_shown(last_model: object) -> None:
    assert row(1, metadata={"last_model": last_model}).model == ""


def row(value: object, **changes: object) -> display.Row:
    whole = {"time": datetime(2026, 11, 20, tzinfo=UTC), "in": {"x": value}, "out": None, "anomaly": None}
    return display.shown({**whole, "metadata": None, **changes})


def test_empty_log_waits_for_its_first_rows(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    client = browser(viewer)
    assert f'hx-get="{address}?waiting=1"' in client.get(address).content.decode()
    assert "HX-Refresh" not in client.get(f"{address}?waiting=1", headers=HTMX)
    device.ship(device.page([1]))
    assert client.get(f"{address}?waiting=1", headers=HTMX)["HX-Refresh"] == "true"
