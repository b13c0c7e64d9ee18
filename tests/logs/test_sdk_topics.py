"""What the public SDK asks of logs and how it goes on: `/v1/logs/topic/<topic>/records`.

The loops below are the SDK's own, as its contract describes them: what it sends, when it stops, what it crashes on.
"""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from rest_framework.test import APIClient

from catalog.models import User
from logs.api import topics
from tests.logs import rows
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db

Api = Callable[..., APIClient]
ARROW = "application/vnd.apache.arrow.file"


def topic_of(client: APIClient, device: Device) -> str:
    response = client.post("/v1/api/plateau/get_topic_name", {"pipeline_pk_id": device.version.pipeline_id})
    assert response.status_code == 200
    return str(response.json()["topic_name"])


def page(client: APIClient, topic: str, iterator: Any, **query: Any) -> tuple[pa.Table, dict[str, Any]]:
    asked = {"dataset%5B%5D": "*", "dataset.separator": "."} | query
    given = "&".join(f"{name}={value}" for name, value in asked.items())
    address, body = f"/v1/logs/topic/{topic}/records?{given}", json.dumps(iterator)
    response = client.generic("POST", address, body, content_type="application/json", headers={"Accept": ARROW})
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == ARROW
    table = pa.ipc.open_file(response.content).read_all()
    return table, json.loads(table.schema.metadata[b"status"])


def exported(client: APIClient, topic: str, limit: int | None, **query: Any) -> list[pa.Table]:
    """`export_logs()`: one query until a final status, no rows, no `next`, or the limit."""
    tables: list[pa.Table] = []
    iterator: Any = {}
    while True:
        table, status = page(client, topic, iterator, **query)
        if not len(table):
            return tables
        tables.append(table)
        iterator = status["next"]
        count = sum(map(len, tables))
        if status["status"] in ("All", "RecordLimited") or iterator is None or (limit and count >= limit):
            return tables


@pytest.fixture
def shipped(make_device: Callable[..., Device]) -> Device:
    one = make_device("one")
    other = make_device("other", one.version)
    for device, parity in ((one, 0), (other, 1)):
        names = range(parity, 300, 2)
        device.ship(device.page([rows.START + name for name in names], names=names))
    return one


def test_newest_hundred_rows_are_flat(shipped: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    table, status = page(client, topic_of(client, shipped), {}, page_size=100, order="desc")
    assert table.column_names == [
        "time", "in.id", "in.tensor", "out.variable", "anomaly.count", "metadata.last_model",
        "metadata.pipeline_version", "metadata.elapsed", "metadata.dropped", "metadata.partition",
    ]  # fmt: skip
    assert table["time"].type == pa.timestamp("ms")
    assert table["in.id"].to_pylist() == list(range(299, 199, -1))
    assert status["status"] == "RecordLimited"
    following, _ = page(client, topic_of(client, shipped), status["next"], page_size=100, order="desc")
    assert following["in.id"].to_pylist() == list(range(199, 99, -1))


def test_times_give_the_oldest_first(shipped: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    times = {"time.start": "2025-11-21T00:00:00.010%2B00:00", "time.end": "2025-11-21T01:00:00.012%2B01:00"}
    table, status = page(client, topic_of(client, shipped), {}, **times)
    assert (table["in.id"].to_pylist(), status) == ([10, 11, 12], {"status": "All", "next": None})


def test_an_export_is_not_cut_short_by_the_page_size_of_the_server(
    shipped: Device, api: Api, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "MAX_LIMIT", 70)
    client = api(viewer)
    times = {"time.start": "2025-11-21T00:00:00Z", "time.end": "2025-11-22T00:00:00Z"}
    found = pa.concat_tables(
        [table.replace_schema_metadata() for table in exported(client, topic_of(client, shipped), None, **times)]
    )
    assert found["in.id"].to_pylist() == list(range(300))
    limited = exported(client, topic_of(client, shipped), 100, page_size=100, order="desc")
    assert [len(table) for table in limited] == [70, 70]


def test_an_export_goes_on_over_a_change_of_schema(shipped: Device, make_device: Any, api: Api, viewer: User) -> None:
    text = make_device("text", shipped.version)
    text.ship(text.page(rows.run(2, rows.START + 1000), outputs={"variable": pa.array(["x", "y"])}))
    client = api(viewer)
    times = {"time.start": "2025-11-21T00:00:00Z", "time.end": "2025-11-22T00:00:00Z"}
    tables = exported(client, topic_of(client, shipped), None, **times)
    assert [(len(table), table.schema.field("out.variable").type) for table in tables] == [
        (300, pa.list_(pa.float32())),
        (2, pa.string()),
    ]


def test_datasets_and_excludes(shipped: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    given = "dataset%5B%5D=time&dataset%5B%5D=out&dataset%5B%5D=metadata.partition&dataset.exclude%5B%5D=metadata"
    response = client.post(f"/v1/logs/topic/{topic_of(client, shipped)}/records?{given}&page_size=1&order=desc", {})
    assert pa.ipc.open_file(response.content).schema.names == ["time", "out.variable", "metadata.partition"]


def test_no_rows_have_only_a_time(device: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    table, status = page(client, topic_of(client, device), {}, page_size=100, order="desc")
    assert (table.column_names, len(table), status) == (["time"], 0, {"status": "All", "next": None})


def test_failures_are_a_topic_of_their_own(
    shipped: Device, make_device: Any, api: Api, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = make_device("bad", shipped.version)
    table = rows.table(rows.run(3, rows.START + 50), names=[1000, 1001, 1002], version=bad.version.uuid)
    failed = pa.array([{"count": count} for count in (0, 2, 0)], pa.struct({"count": pa.int32()}))
    bad.ship(rows.stream(table.set_column(3, "anomaly", failed)))
    client = api(viewer)
    topic = f"{topic_of(client, shipped)}-failures"
    found, status = page(client, topic, {}, page_size=100, order="desc")
    assert (found["in.id"].to_pylist(), status["status"]) == ([1001], "All")


def raw(client: APIClient, topic: str, limit: int, **query: Any) -> list[int]:
    """`get_raw_logs()`: the newest rows of each partition, its share of the limit, until there is no `next`."""
    partitions = client.get(f"/v1/logs/topic/{topic}").json()["partitions"]
    share = limit // len(partitions)
    iterator: Any = {name: max(0, span["end"] - share) for name, span in partitions.items()}
    found: list[int] = []
    while iterator is not None:
        table, status = page(client, topic, iterator, page_size=limit, **query)
        if not len(table):
            break
        found += table["in.id"].to_pylist()
        iterator = status["next"]
    return found


def test_raw_logs_are_the_newest_of_each_partition(
    shipped: Device, api: Api, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = api(viewer)
    topic = topic_of(client, shipped)
    assert set(client.get(f"/v1/logs/topic/{topic}").json()["partitions"]) == {"one", "other"}
    assert raw(client, topic, 10) == [290, 292, 294, 296, 298, 291, 293, 295, 297, 299]
    monkeypatch.setattr(topics, "MAX_LIMIT", 2)
    assert raw(client, topic, 10) == [290, 292, 294, 296, 298, 291, 293, 295, 297, 299]
    assert sorted(raw(client, topic, 1000)) == list(range(300))
    window = {"time.start": "2025-11-21T00:00:00.010Z", "time.end": "2025-11-21T00:00:00.013Z"}
    assert raw(client, topic, 1000, **window) == [10, 12, 11, 13]


def offsets(client: APIClient, topic: str) -> dict[str, int]:
    """Where the partitions of a topic begin."""
    partitions = client.get(f"/v1/logs/topic/{topic}").json()["partitions"]
    return {name: span["start"] for name, span in partitions.items()}


def test_partitions_are_read_from_their_offset_on_until_there_are_no_rows(
    shipped: Device, api: Api, viewer: User
) -> None:
    """The oldest first, `next` sent back as it came, also that of the last answer."""
    client = api(viewer)
    topic = topic_of(client, shipped)
    iterator: Any = offsets(client, topic)
    found: list[int] = []
    sizes: list[int] = []
    while len(sizes) < 10 and 0 not in sizes:
        table, status = page(client, topic, iterator, page_size=70, order="asc")
        sizes.append(len(table))
        found += table["in.id"].to_pylist() if len(table) else []
        iterator = status["next"]
    assert found == [*range(0, 300, 2), *range(1, 300, 2)]
    assert sizes == [70, 70, 10, 70, 70, 10, 0]


def test_the_oldest_row_of_a_partition_alone(shipped: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    topic = topic_of(client, shipped)
    begin = offsets(client, topic)["other"]
    table, status = page(client, topic, {"other": begin}, page_size=1, order="asc")
    assert (table["in.id"].to_pylist(), status["status"]) == ([1], "RecordLimited")
    following, _ = page(client, topic, status["next"], page_size=1, order="asc")
    assert following["in.id"].to_pylist() == [3]


def test_a_time_range_is_read_newest_first_too(shipped: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    times = {"time.start": "2025-11-21T00:00:00.010Z", "time.end": "2025-11-21T00:00:00.014Z"}
    table, status = page(client, topic_of(client, shipped), {}, page_size=3, order="desc", **times)
    assert (table["in.id"].to_pylist(), status["status"]) == ([14, 13, 12], "RecordLimited")
    table, status = page(client, topic_of(client, shipped), status["next"], page_size=3, order="desc", **times)
    assert (table["in.id"].to_pylist(), status) == ([11, 10], {"status": "All", "next": None})


@pytest.mark.parametrize(
    ("iterator", "query"),
    [([], ""), ({"cursor": "x"}, ""), ({"one": "x"}, ""), ({}, "page_size=0"), ({}, "time.start=yesterday")],
)
def test_wrong_input_is_400(shipped: Device, api: Api, viewer: User, iterator: Any, query: str) -> None:
    client = api(viewer)
    response = client.post(f"/v1/logs/topic/{topic_of(client, shipped)}/records?{query}", iterator)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")


def test_stranger_gets_404(shipped: Device, api: Api, viewer: User, stranger: User) -> None:
    topic, client = topic_of(api(viewer), shipped), api(stranger)
    named = client.post("/v1/api/plateau/get_topic_name", {"pipeline_pk_id": shipped.version.pipeline_id})
    assert named.status_code == 404
    assert client.get(f"/v1/logs/topic/{topic}").status_code == 404
    assert client.post(f"/v1/logs/topic/{topic}/records", {}).status_code == 404
    assert api(viewer).get("/v1/logs/topic/nonsense").status_code == 404
    assert api().post(f"/v1/logs/topic/{topic}/records", {}).status_code == 401
