"""Senders without Arrow: pandas records in JSON."""

import json
from typing import Any

import pytest

from catalog.models import User
from logs import queries
from logs.models import LogPage
from tests.logs import rows
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db


def ship(device: Device, records: Any, first: int = 1) -> Any:
    body = records if isinstance(records, bytes) else json.dumps(records).encode()
    query = f"epoch={rows.EPOCH}&first={first}&pipeline_version={device.version.uuid}"
    return device.client.generic("POST", f"/edge/v1/logs?{query}", body, content_type="application/json")


def read(device: Device, owner: User) -> list[dict[str, Any]]:
    return queries.newest_rows(owner, device.version.pipeline)


def test_records_are_stored_and_read(device: Device, owner: User) -> None:
    records = [
        {"time": 1000, "in": {"tensor": [1.5, 2]}, "out": {"variable": [7]}, "anomaly": {"count": 1, "high": True}},
        {"time": "1970-01-01T00:00:02Z", "in": {"tensor": [3.0]}, "out": {"variable": [8]}},
    ]
    answer = ship(device, records)
    assert (answer.status_code, answer.json()["acked"]) == (200, 2)
    newest, oldest = read(device, owner)
    assert newest["time"].timestamp() == 2 and oldest["time"].timestamp() == 1
    assert oldest["in"] == {"tensor": [1.5, 2.0]} and oldest["out"] == {"variable": [7]}
    assert oldest["anomaly"] == {"count": 1, "high": True} and newest["anomaly"] == {"count": 0, "high": None}
    assert newest["metadata"]["partition"] == device.edge.name
    assert newest["metadata"]["pipeline_version"] == str(device.version.uuid)


def test_flat_names_are_the_same(device: Device, owner: User) -> None:
    flat = {"time": 1000, "in.tensor": [1.0], "out.variable": [2.0], "anomaly.count": 0, "metadata.elapsed": [5, 6]}
    assert ship(device, [flat]).status_code == 200
    [row] = read(device, owner)
    assert (row["in"], row["out"], row["metadata"]["elapsed"]) == ({"tensor": [1.0]}, {"variable": [2.0]}, [5, 6])


def test_what_is_sent_again_is_stored_once(device: Device, owner: User) -> None:
    records = [{"time": n, "in": {"n": n}, "out": {}} for n in range(5)]
    assert ship(device, records[:3]).json()["acked"] == 3
    assert ship(device, records, first=1).json()["acked"] == 5
    assert [row["in"]["n"] for row in read(device, owner)] == [4, 3, 2, 1, 0]


def test_an_edge_cannot_write_as_another(device: Device, owner: User) -> None:
    assert ship(device, [{"time": 1, "in": {}, "out": {}, "metadata": {"partition": "other"}}]).status_code == 200
    assert read(device, owner)[0]["metadata"]["partition"] == device.edge.name


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ({"time": 1}, "list of records"),
        ([1], "list of records"),
        ([], "no rows"),
        ([{"in": {}, "out": {}}], "Record 1 has no time"),
        ([{"time": "soon", "in": {}, "out": {}}], "Record 1: time must be"),
        ([{"time": 1, "in": 5, "out": {}}], "Record 1: in must be an object"),
        ([{"time": 1, "price": 5}], "Record 1 has a column price"),
        ([{"time": 1, "in": {"x": 1}}, {"time": 2, "in": {"x": "a"}}], "The values of in are not of one type"),
        ([{"time": 2**70, "in": {}}], "The values of time"),
        ([{"time": 1, "metadata": {"pipeline_version": "other"}}], "metadata.pipeline_version"),
        ([{"time": 1, "metadata": {"elapsed": "long"}}], "The values of metadata"),
        ([{"time": 1, "anomaly": {"count": "many"}}], "anomaly"),
        ([{"time": -1}], "before 1970"),
    ],
)
def test_what_is_wrong_is_told_and_not_stored(device: Device, records: Any, told: str) -> None:
    answer = ship(device, records)
    assert answer.status_code == 400, answer.content
    assert told in answer.content.decode()
    assert not LogPage.objects.exists()


def test_too_many_rows_are_told_with_the_limit(device: Device) -> None:
    answer = ship(device, [{"time": 1}] * 10_001)
    assert answer.status_code == 413 and "10000" in answer.content.decode()
