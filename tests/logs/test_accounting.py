"""`GET /api/v1/edges/<id>/logs/accounting`: every row is here or was told to be dropped."""

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from catalog.models import User
from edges import operations as edge_operations
from logs.models import LogPage
from tests.logs import rows
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db

Api = Callable[..., APIClient]


def address(device: Device) -> str:
    return f"/api/v1/edges/{device.edge.pk}/logs/accounting"


def checkin(device: Device, *, epoch: uuid.UUID, last: int, clock_ahead: int = 0) -> dict[str, Any]:
    """The golden check-in, of that log store."""
    golden = Path(__file__).parents[2] / "contract" / "checkin.request.json"
    report: dict[str, Any] = json.loads(golden.read_text())
    report["serving"] = None
    report["logs"] |= {"epoch": str(epoch), "last_sequence": last, "acked": 0}
    report["clock"] = int(time.time() * 1000) + clock_ahead
    assert device.client.post("/edge/v1/checkin", report, format="json").status_code == 200
    return report


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


def test_rows_that_wait_on_the_edge_and_its_clock_are_told(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(10)))
    report = checkin(device, epoch=rows.EPOCH, last=25, clock_ahead=90_000)
    answer = api(viewer).get(address(device)).json()
    assert [(epoch["epoch"], epoch["pending"]) for epoch in answer["epochs"]] == [(str(rows.EPOCH), 15)]
    assert 80_000 < answer["clock_offset"] <= 90_000
    assert answer["reported_at"] == report["clock"] - answer["clock_offset"]


def test_pending_falls_as_rows_arrive_after_the_check_in(device: Device, api: Api, viewer: User) -> None:
    checkin(device, epoch=rows.EPOCH, last=12)
    device.ship(device.page(rows.run(10)))
    assert api(viewer).get(address(device)).json()["epochs"][0]["pending"] == 2
    device.ship(device.page(rows.run(5)), first=11)
    assert api(viewer).get(address(device)).json()["epochs"][0]["pending"] == 0


def test_store_of_which_nothing_arrived_is_shown_first(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(10)))
    wiped = uuid.uuid4()
    checkin(device, epoch=wiped, last=7)
    newest, oldest = api(viewer).get(address(device)).json()["epochs"]
    assert (newest["epoch"], newest["received"], newest["pending"]) == (str(wiped), 0, 7)
    assert (newest["last_time"], newest["last_arrival"]) == (None, None)
    assert (oldest["epoch"], oldest["received"], oldest["pending"]) == (str(rows.EPOCH), 10, None)


def test_last_time_is_of_the_newest_row_whatever_arrives_later(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(10)))
    device.ship(device.page(rows.run(10, begin=rows.START - 5_000)), first=11)
    device.gap(first=21, last=25, count=5, time_min=1, time_max=rows.START + 9_000_000)
    LogPage.objects.all().delete()  # as retention does
    assert api(viewer).get(address(device)).json()["epochs"][0]["last_time"] == rows.START + 9


def test_edge_without_logs_has_no_account(device: Device, api: Api, viewer: User) -> None:
    assert api(viewer).get(address(device)).json()["epochs"] == []


def test_account_of_a_removed_edge_can_still_be_read(device: Device, api: Api, owner: User) -> None:
    device.ship(device.page(rows.run(10)))
    edge_operations.remove_edge(actor=owner, edge=device.edge)
    assert api(owner).get(address(device)).json()["epochs"][0]["received"] == 10


def test_stranger_gets_404(device: Device, api: Api, stranger: User) -> None:
    assert api(stranger).get(address(device)).status_code == 404


def test_rows_of_a_wiped_volume_are_told_as_left_behind_once(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(10)))
    checkin(device, epoch=rows.EPOCH, last=25)
    other = uuid.uuid4()
    for last in (3, 4):
        checkin(device, epoch=other, last=last)
    newest, lost = api(viewer).get(address(device)).json()["epochs"]
    assert (newest["epoch"], newest["left_behind"]) == (str(other), 0)
    assert (lost["epoch"], lost["pending"], lost["left_behind"]) == (str(rows.EPOCH), None, 15)
    told = list(device.edge.events.filter(kind="rows_left_behind"))
    assert [event.detail["rows"] for event in told] == [15]
    assert told[0].detail["message"].startswith("15 rows that it had logged were not sent")


def test_a_store_of_which_nothing_ever_came_is_told_too(device: Device, api: Api, viewer: User) -> None:
    checkin(device, epoch=rows.EPOCH, last=25)
    checkin(device, epoch=uuid.uuid4(), last=0)
    _, lost = api(viewer).get(address(device)).json()["epochs"]
    assert (lost["epoch"], lost["received"], lost["left_behind"]) == (str(rows.EPOCH), 0, 25)


def test_rows_left_behind_that_come_after_all_are_lost_no_more(device: Device, api: Api, viewer: User) -> None:
    checkin(device, epoch=rows.EPOCH, last=25)
    checkin(device, epoch=uuid.uuid4(), last=0)
    device.ship(device.page(rows.run(20)))
    account = next(one for one in api(viewer).get(address(device)).json()["epochs"] if one["epoch"] == str(rows.EPOCH))
    assert (account["received"], account["left_behind"]) == (20, 5)


def test_rows_after_an_older_copy_of_the_store_stay_lost_whatever_takes_their_numbers(
    device: Device, api: Api, viewer: User
) -> None:
    device.ship(device.page(rows.run(5)))
    checkin(device, epoch=rows.EPOCH, last=20)
    checkin(device, epoch=rows.EPOCH, last=8)
    device.ship(device.page(rows.run(20)), first=6)
    assert [one["left_behind"] for one in api(viewer).get(address(device)).json()["epochs"]] == [12]


def test_another_store_when_all_had_come_loses_nothing(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(10)))
    checkin(device, epoch=rows.EPOCH, last=10)
    checkin(device, epoch=uuid.uuid4(), last=3)
    assert [one["left_behind"] for one in api(viewer).get(address(device)).json()["epochs"]] == [0, 0]
    assert not device.edge.events.filter(kind="rows_left_behind").exists()
