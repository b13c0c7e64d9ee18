"""`GET /api/v1/pipelines/<id>/logs`: what was inferred comes back, row by row."""

import io
import json
import uuid
from collections.abc import Callable
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from rest_framework.test import APIClient

from catalog.models import PipelineVersion, User
from edges import operations as edge_operations
from tests.logs import rows
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db

Api = Callable[..., APIClient]
DOUBLES = {"variable": pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float64()))}


def read(client: APIClient, device: Device, **query: Any) -> Any:
    headers = query.pop("headers", {})
    return client.get(f"/api/v1/pipelines/{device.version.pipeline_id}/logs", query, headers=headers)


def status(response: Any) -> tuple[str, str | None]:
    told = json.loads(response["X-Log-Status"])
    return told["status"], told["next"]


def ids(response: Any) -> list[int]:
    assert response.status_code == 200, response.content
    return [row["in"]["id"] for row in response.json()]


@pytest.fixture
def two_edges(make_device: Callable[..., Device]) -> tuple[Device, Device]:
    """One inferred at even milliseconds, the other at odd ones, in several pages each."""
    even = make_device("even")
    odd = make_device("odd", even.version)
    for device, parity in ((even, 0), (odd, 1)):
        for number in range(3):
            times = [rows.START + 20 * number + 2 * row + parity for row in range(10)]
            names = [time - rows.START for time in times]
            assert device.ship(device.page(times, names=names), first=10 * number + 1).status_code == 200
    return even, odd


def test_rows_come_back_as_they_were_shipped_newest_first(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(3)))
    response = read(api(viewer), device)
    assert response["Content-Type"] == "application/json"
    assert status(response) == ("All", None)
    assert response.json()[0] == {
        "time": rows.START + 2,
        "in": {"id": 2, "tensor": [1.5, 2.5]},
        "out": {"variable": [718013.7]},
        "anomaly": {"count": 0},
        "metadata": {
            "last_model": json.dumps({"model_name": "house-price", "model_sha": "ab" * 32}),
            "pipeline_version": str(device.version.uuid),
            "elapsed": [1200, 34000],
            "dropped": [],
            "partition": "houseprice-edge-01",
        },
    }
    assert ids(response) == [2, 1, 0]
    assert b"718013.7]" in response.content


def test_no_rows_are_an_empty_list(device: Device, api: Api, viewer: User) -> None:
    response = read(api(viewer), device)
    assert (response.json(), status(response)) == ([], ("All", None))


def test_edges_come_in_one_order_of_time(two_edges: tuple[Device, Device], api: Api, viewer: User) -> None:
    assert ids(read(api(viewer), two_edges[0])) == list(range(59, -1, -1))
    assert ids(read(api(viewer), two_edges[0], order="asc")) == list(range(60))


@pytest.mark.parametrize("order", ["desc", "asc"])
def test_each_row_comes_once_over_all_answers(
    two_edges: tuple[Device, Device], api: Api, viewer: User, order: str
) -> None:
    found, query = [], {"limit": 7, "order": order}
    while True:
        response = read(api(viewer), two_edges[0], **query)
        found += ids(response)
        word, following = status(response)
        if word == "All":
            break
        assert (word, len(ids(response))) == ("RecordLimited", 7)
        query["cursor"] = following
    assert found == sorted(range(60), reverse=order == "desc")


def test_newest_rows_take_few_queries(
    two_edges: tuple[Device, Device], api: Api, viewer: User, django_assert_num_queries: Any
) -> None:
    client = api(viewer)
    with django_assert_num_queries(6):  # pipeline, role, lists of pages and of segments; bodies of one page, of two
        read(client, two_edges[0], limit=5)


def test_edge_filter_takes_several_names(two_edges: tuple[Device, Device], api: Api, viewer: User) -> None:
    even, _odd = two_edges
    assert ids(read(api(viewer), even, edge="odd")) == list(range(59, 0, -2))
    assert ids(read(api(viewer), even, edge=["odd", "even"])) == list(range(59, -1, -1))
    assert ids(read(api(viewer), even, edge="unknown")) == []


def test_time_filter_includes_both_ends(two_edges: tuple[Device, Device], api: Api, viewer: User) -> None:
    even, _odd = two_edges
    assert ids(read(api(viewer), even, start=rows.START + 10, end=rows.START + 13)) == [13, 12, 11, 10]
    iso = {"start": "2025-11-21T00:00:00.010Z", "end": "2025-11-21T01:00:00.013+01:00", "order": "asc"}
    assert ids(read(api(viewer), even, **iso)) == [10, 11, 12, 13]
    assert ids(read(api(viewer), even, start="2025-11-21T00:00:00.058500Z")) == [59]


def test_pipeline_version_filter(
    make_device: Callable[..., Device], make_pipeline_version: Callable[..., PipelineVersion], api: Api, viewer: User
) -> None:
    old, new = make_device("old"), make_device("new", make_pipeline_version())
    assert old.version.pipeline == new.version.pipeline
    old.ship(old.page(rows.run(2), names=[1, 2]))
    new.ship(new.page(rows.run(2), names=[3, 4]))
    assert ids(read(api(viewer), old, pipeline_version=new.version.uuid)) == [4, 3]
    response = read(api(viewer), old, pipeline_version=uuid.uuid4())
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_logs_stay_with_the_pipeline_and_the_name_of_their_time(
    device: Device, make_device: Callable[..., Device], api: Api, owner: User
) -> None:
    device.ship(device.page(rows.run(2)))
    edge_operations.remove_edge(actor=owner, edge=device.edge)
    again = make_device("houseprice-edge-01", device.version)
    again.ship(again.page(rows.run(1, rows.START + 10), names=[10]))
    assert ids(read(api(owner), device, edge="houseprice-edge-01")) == [10, 1, 0]


def test_answer_ends_where_the_schema_changes(make_device: Callable[..., Device], api: Api, viewer: User) -> None:
    one = make_device("one")
    other = make_device("other", one.version)
    one.ship(one.page([rows.START, rows.START + 10], names=[0, 10]))
    other.ship(other.page([rows.START + 20, rows.START + 21], names=[20, 21], outputs=DOUBLES))
    first = read(api(viewer), one)
    assert (ids(first), status(first)[0]) == ([21, 20], "SchemaChange")
    assert first.json()[0]["out"] == {"variable": [1.0, 2.0]}
    second = read(api(viewer), one, cursor=status(first)[1])
    assert (ids(second), status(second)) == ([10, 0], ("All", None))
    assert ids(read(api(viewer), one, dataset="in")) == [21, 20, 10, 0]


def test_datasets_choose_groups_and_columns(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(1)))

    def keys(**query: Any) -> Any:
        return read(api(viewer), device, **query).json()[0]

    assert keys(dataset=["time"]) == {"time": rows.START}
    assert keys(dataset=["in.id", "anomaly"]) == {"time": rows.START, "in": {"id": 0}, "anomaly": {"count": 0}}
    assert list(keys(dataset_exclude=["metadata", "in.tensor"])) == ["time", "in", "out", "anomaly"]
    assert keys(dataset=["*"], dataset_exclude=["time", "metadata", "in", "out"]) == {
        "time": rows.START,
        "anomaly": {"count": 0},
    }
    flat = keys(dataset_separator=".", dataset_exclude="metadata.elapsed")
    assert list(flat) == [
        "time",
        "in.id",
        "in.tensor",
        "out.variable",
        "anomaly.count",
        "metadata.last_model",
        "metadata.pipeline_version",
        "metadata.dropped",
        "metadata.partition",
    ]
    assert keys(dataset_separator="__", dataset=["out__variable", "out.variable"]) == {
        "time": rows.START,
        "out__variable": [718013.7],
    }


def test_what_is_no_number_is_null(device: Device, api: Api, viewer: User) -> None:
    values = pa.array([[float("nan"), float("inf"), -float("inf"), 0.1, 1e300]], pa.list_(pa.float64()))
    device.ship(device.page(rows.run(1), outputs={"dense": values, "half": pa.array([None], pa.float16())}))
    response = read(api(viewer), device)
    text = response.content.decode()
    assert "NaN" not in text and "Infinity" not in text
    assert response.json()[0]["out"] == {"dense": [None, None, None, 0.1, 1e300], "half": None}


@pytest.mark.parametrize(
    ("choice", "reader"),
    [
        ({"headers": {"Accept": "application/vnd.apache.arrow.file"}}, pa.ipc.open_file),
        ({"format": "arrow"}, pa.ipc.open_file),
        ({"headers": {"Accept": "application/vnd.apache.arrow.stream"}}, pa.ipc.open_stream),
        ({"format": "arrow-stream"}, pa.ipc.open_stream),
    ],
)
def test_arrow_holds_the_rows_and_the_status(
    device: Device, api: Api, viewer: User, choice: dict[str, Any], reader: Any
) -> None:
    device.ship(device.page(rows.run(3)))
    response = read(api(viewer), device, limit=2, **choice)
    assert response["Content-Type"].startswith("application/vnd.apache.arrow.")
    table = reader(response.content).read_all()
    assert json.loads(table.schema.metadata[b"status"]) == json.loads(response["X-Log-Status"])
    assert status(response)[0] == "RecordLimited"
    expected = rows.table(rows.run(3), version=device.version.uuid)
    assert table.schema.equals(expected.schema)
    assert table.to_pylist() == expected.to_pylist()[:0:-1]


def test_flat_arrow_has_a_column_a_field(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(3)))
    response = read(api(viewer), device, format="arrow", dataset_separator=".", dataset=["in", "metadata.partition"])
    frame = pl.read_ipc(io.BytesIO(response.content))
    assert frame.columns == ["time", "in.id", "in.tensor", "metadata.partition"]
    assert frame["time"].dtype == pl.Datetime("ms")


def test_no_rows_as_arrow_have_a_time_and_a_status(device: Device, api: Api, viewer: User) -> None:
    table = pa.ipc.open_file(read(api(viewer), device, format="arrow").content).read_all()
    assert (table.column_names, table.num_rows) == (["time"], 0)
    assert json.loads(table.schema.metadata[b"status"]) == {"status": "All", "next": None}


@pytest.mark.parametrize("accept", ["*/*", "application/json; format=pandas-records", "text/html, */*;q=0.8"])
def test_json_unless_arrow_is_asked_for(device: Device, api: Api, viewer: User, accept: str) -> None:
    assert read(api(viewer), device, headers={"Accept": accept})["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": 10_001},
        {"order": "up"},
        {"start": "yesterday"},
        {"cursor": "x"},
        {"pipeline_version": "x"},
        {"format": "csv"},
    ],
)
def test_wrong_query_is_400_and_json(device: Device, api: Api, viewer: User, wrong: dict[str, Any]) -> None:
    response = read(api(viewer), device, headers={"Accept": "application/vnd.apache.arrow.file"}, **wrong)
    assert (response.status_code, response["Content-Type"]) == (400, "application/json")
    assert response.json()["code"] == "invalid"
    assert response.json()["message"]


def test_stranger_gets_404(device: Device, api: Api, stranger: User) -> None:
    device.ship(device.page(rows.run(3)))
    response = read(api(stranger), device, format="arrow")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_nobody_gets_401(device: Device, api: Api) -> None:
    assert read(api(), device).status_code == 401
