"""What pages of the dashboard ask."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from django.db import connection
from django.utils import timezone

from catalog.models import PipelineVersion, User
from common.errors import NotFound
from logs import queries
from logs.live import LivePages
from logs.models import LogPage
from logs.query import Cursor, Order, Query
from tests.logs import rows
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db


def test_newest_rows_are_plain_values(device: Device, viewer: User) -> None:
    device.ship(device.page(rows.run(60)))
    found = queries.newest_rows(viewer, device.version.pipeline)
    assert len(found) == 50
    assert found[0]["time"] == datetime(2025, 11, 21, 0, 0, 0, 59_000, tzinfo=UTC)
    assert found[0]["in"] == {"id": 59, "tensor": [1.5, 2.5]}
    assert found[0]["metadata"]["partition"] == "houseprice-edge-01"


def test_newest_rows_mix_schemas(make_device: Callable[..., Device], viewer: User) -> None:
    one = make_device("one")
    other = make_device("other", one.version)
    one.ship(one.page([rows.START, rows.START + 2], names=[0, 2]))
    text = {"variable": pa.array(["x", "y"])}
    other.ship(other.page([rows.START + 1, rows.START + 3], names=[1, 3], outputs=text))
    found = queries.newest_rows(viewer, one.version.pipeline)
    assert [row["in"]["id"] for row in found] == [3, 2, 1, 0]
    assert found[0]["out"] == {"variable": "y"}


def test_newest_rows_of_an_edge_in_a_window(make_device: Callable[..., Device], viewer: User) -> None:
    one = make_device("one")
    other = make_device("other", one.version)
    for device in (one, other):
        device.ship(device.page(rows.run(10)))
    begin = datetime.fromtimestamp(rows.START / 1000, UTC)
    window = {"start": begin + timedelta(milliseconds=3), "end": begin + timedelta(milliseconds=5)}
    found = queries.newest_rows(viewer, one.version.pipeline, edges=["other"], **window)
    assert [row["in"]["id"] for row in found] == [5, 4, 3]
    assert {row["metadata"]["partition"] for row in found} == {"other"}


def test_newest_rows_are_hidden_from_a_stranger(device: Device, stranger: User) -> None:
    with pytest.raises(NotFound):
        queries.newest_rows(stranger, device.version.pipeline)


def test_rows_of_today_are_counted(
    device: Device, make_pipeline_version: Callable[..., PipelineVersion], django_assert_num_queries: Any
) -> None:
    now = int(timezone.now().timestamp() * 1000)
    device.ship(device.page(rows.run(7, now)))
    device.ship(device.page(rows.run(5, now - 2 * 86_400_000)), first=8)
    busy, idle = device.version.pipeline, make_pipeline_version(name="idle").pipeline
    with django_assert_num_queries(2):  # what is summed up, and what is not yet
        assert queries.rows_today([busy, idle]) == {busy.pk: 7, idle.pk: 0}


def plan(found: Any) -> str:
    return str(found.explain())


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(), "log_page_newest"),
        (Query(start=5, end=900), "log_page_newest"),
        (Query(cursor=Cursor(Order.NEWEST_FIRST, 500, 5, 1)), "log_page_newest"),
        (Query(order=Order.OLDEST_FIRST, start=5), "log_page_oldest"),
    ],
)
def test_pages_are_found_by_an_index(device: Device, query: Query, index: str) -> None:
    many_pages(device)
    source = LivePages(LogPage.objects.filter(pipeline=device.version.pipeline))
    assert index in plan(source.ordered(query)[:256])


def test_pages_of_one_edge_are_found_by_an_index(device: Device) -> None:
    many_pages(device)
    source = LivePages(LogPage.objects.filter(pipeline=device.version.pipeline, partition__in=["edge-7"]))
    assert "log_page_newest_of_edge" in plan(source.ordered(Query())[:256])


def many_pages(device: Device) -> None:
    """Enough of them, and large enough, that a planner thinks of an index."""
    now = timezone.now()
    LogPage.objects.bulk_create(
        LogPage(
            pipeline_version=device.version,
            pipeline=device.version.pipeline,
            edge=device.edge,
            partition=f"edge-{number % 50}",
            epoch=rows.EPOCH,
            first=number,
            rows=1,
            size=1,
            time_min=number,
            time_max=number + 10,
            schema_id="0" * 64,
            arrived_at=now,
            body=bytes(1000),
        )
        for number in range(3000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE logs_logpage")
