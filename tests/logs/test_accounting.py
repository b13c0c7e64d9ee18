"""`GET /api/v1/edges/<id>/logs/accounting`: every row is here or was told to be dropped."""

import uuid
from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from catalog.models import User
from edges import operations as edge_operations
from tests.logs import rows
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db

Api = Callable[..., APIClient]


def address(device: Device) -> str:
    return f"/api/v1/edges/{device.edge.pk}/logs/accounting"


def test_each_log_store_has_its_account(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(10)))
    device.gap(first=11, last=15, count=5, time_min=1, time_max=2)
    device.ship(device.page(rows.run(4)), first=16)
    second = str(uuid.uuid4())
    device.ship(device.page(rows.run(3)), epoch=second)
    response = api(viewer).get(address(device))
    assert response.status_code == 200
    answer = response.json()
    assert answer["edge"] == "houseprice-edge-01"
    newest, oldest = answer["epochs"]
    assert (newest["epoch"], newest["received"], newest["shed"], newest["acked"]) == (second, 3, 0, 3)
    assert newest["gaps"] == []
    assert (oldest["epoch"], oldest["received"], oldest["shed"], oldest["acked"]) == (str(rows.EPOCH), 14, 5, 19)
    gap = oldest["gaps"][0]
    assert gap.pop("arrived_at") <= oldest["last_arrival"]
    assert gap == {
        "first": 11,
        "last": 15,
        "count": 5,
        "time_min": 1,
        "time_max": 2,
        "reason": "storage_limit",
    }


def test_edge_without_logs_has_no_account(device: Device, api: Api, viewer: User) -> None:
    assert api(viewer).get(address(device)).json()["epochs"] == []


def test_account_of_a_removed_edge_can_still_be_read(device: Device, api: Api, owner: User) -> None:
    device.ship(device.page(rows.run(10)))
    edge_operations.remove_edge(actor=owner, edge=device.edge)
    assert api(owner).get(address(device)).json()["epochs"][0]["received"] == 10


def test_stranger_gets_404(device: Device, api: Api, stranger: User) -> None:
    assert api(stranger).get(address(device)).status_code == 404
