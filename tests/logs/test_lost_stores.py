"""An edge whose volume was wiped: rows that it had reported and never sent are told as lost."""

import base64
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from rest_framework.test import APIClient

from catalog.models import User
from edges import contacts, operations, tokens
from edges.models import EdgeEvent
from logs.models import LogGap
from tests.logs import rows
from tests.logs.conftest import ENGINE, Device

pytestmark = pytest.mark.django_db

Api = Callable[..., APIClient]
NEW = uuid.UUID("2e1b9c1e-8a3e-4a53-9a53-3f3ff1a0a6a5")


def checkin(device: Device, *, epoch: uuid.UUID, last: int) -> None:
    golden = Path(__file__).parents[2] / "contract" / "checkin.request.json"
    report: dict[str, Any] = json.loads(golden.read_text())
    report["serving"] = None
    report["logs"] |= {"epoch": str(epoch), "last_sequence": last, "acked": 0}
    report["clock"] = int(time.time() * 1000)
    assert device.client.post("/edge/v1/checkin", report, format="json").status_code == 200


def rejoin(device: Device, owner: User) -> None:
    """With a new bundle and a new key, as an engine on an empty volume."""
    reissued = operations.reissue_token(actor=owner, edge=device.edge)
    lines = base64.b64decode(reissued.bundle).decode().splitlines()
    bundle = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    key = tokens.jwk_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    joined = contacts.join(join_token=bundle["JOIN_TOKEN"], public_key=key, engine=ENGINE)
    device.client.credentials(HTTP_AUTHORIZATION=f"Bearer {joined.session.access_token}")


def account(device: Device, client: APIClient, epoch: uuid.UUID = rows.EPOCH) -> dict[str, Any]:
    answer = client.get(f"/api/v1/edges/{device.edge.pk}/logs/accounting").json()
    found: dict[str, Any] = next(one for one in answer["epochs"] if one["epoch"] == str(epoch))
    return found


def events(device: Device) -> list[dict[str, Any]]:
    return [event.detail for event in EdgeEvent.objects.filter(edge=device.edge, kind=EdgeEvent.Kind.ROWS_LEFT_BEHIND)]


@pytest.fixture
def wiped(device: Device, owner: User) -> Device:
    """It had sent 10 of 25 rows when its volume was wiped."""
    device.ship(device.page(rows.run(10)))
    checkin(device, epoch=rows.EPOCH, last=25)
    rejoin(device, owner)
    return device


def test_rows_that_were_reported_and_not_sent_are_a_gap(wiped: Device, api: Api, viewer: User) -> None:
    checkin(wiped, epoch=NEW, last=3)
    old = account(wiped, api(viewer))
    assert (old["received"], old["acked"], old["left_behind"], old["pending"]) == (10, 10, 15, None)
    gap = old["gaps"][-1]
    assert (gap["first"], gap["last"], gap["count"], gap["reason"]) == (11, 25, 15, "volume_lost")
    new = account(wiped, api(viewer), NEW)
    assert (new["left_behind"], new["pending"], new["gaps"]) == (0, 3, [])
    (event,) = events(wiped)
    assert (event["epoch"], event["rows"], event["last_sequence"]) == (str(rows.EPOCH), 15, 25)
    assert event["message"].startswith("15 rows that it had logged were not sent")


def test_store_of_which_nothing_arrived_is_lost_whole(device: Device, owner: User, api: Api, viewer: User) -> None:
    checkin(device, epoch=rows.EPOCH, last=7)
    rejoin(device, owner)
    checkin(device, epoch=NEW, last=0)
    old = account(device, api(viewer))
    assert (old["received"], old["left_behind"], old["gaps"][0]["first"]) == (0, 7, 1)


def test_page_of_the_edge_says_it(wiped: Device, browser: Callable[..., Any], viewer: User) -> None:
    checkin(wiped, epoch=NEW, last=3)
    page = browser(viewer).get(f"/edges/{wiped.edge.pk}").content.decode()
    assert "15 of its rows were not sent" in page
    assert "15 rows that it had logged" in page  # in what happened


def test_it_is_told_once_however_often_the_edge_reports(wiped: Device, api: Api, viewer: User) -> None:
    for last in (3, 3, 4):
        checkin(wiped, epoch=NEW, last=last)
    rejoin_report = account(wiped, api(viewer))
    assert (rejoin_report["left_behind"], len(rejoin_report["gaps"]), len(events(wiped))) == (15, 1, 1)


def test_joining_twice_before_reporting_forgets_nothing(wiped: Device, owner: User, api: Api, viewer: User) -> None:
    rejoin(wiped, owner)
    checkin(wiped, epoch=NEW, last=0)
    assert (account(wiped, api(viewer))["left_behind"], len(events(wiped))) == (15, 1)


def test_volume_that_was_kept_loses_nothing(wiped: Device, api: Api, viewer: User) -> None:
    checkin(wiped, epoch=rows.EPOCH, last=26)
    kept = account(wiped, api(viewer))
    assert (kept["left_behind"], kept["pending"], events(wiped)) == (0, 16, [])


def test_store_that_had_sent_all_loses_nothing(device: Device, owner: User, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(10)))
    checkin(device, epoch=rows.EPOCH, last=10)
    rejoin(device, owner)
    checkin(device, epoch=NEW, last=3)
    assert (account(device, api(viewer))["left_behind"], events(device)) == (0, [])


def test_wiped_log_store_under_the_same_key_is_noticed(device: Device, api: Api, viewer: User) -> None:
    device.ship(device.page(rows.run(10)))
    checkin(device, epoch=rows.EPOCH, last=12)
    checkin(device, epoch=NEW, last=1)
    assert (account(device, api(viewer))["left_behind"], len(events(device))) == (2, 1)


def test_rows_that_arrive_after_all_are_not_lost_any_more(wiped: Device, api: Api, viewer: User) -> None:
    checkin(wiped, epoch=NEW, last=3)
    wiped.ship(wiped.page(rows.run(5)), first=11)
    old = account(wiped, api(viewer))
    assert (old["received"], old["left_behind"], old["gaps"][-1]["first"]) == (15, 10, 16)
    wiped.ship(wiped.page(rows.run(10)), first=16)
    assert (account(wiped, api(viewer))["left_behind"], account(wiped, api(viewer))["gaps"]) == (0, [])
    assert not LogGap.objects.exists()


def test_disk_that_is_put_back_is_told(wiped: Device, api: Api, viewer: User) -> None:
    checkin(wiped, epoch=NEW, last=0)
    checkin(wiped, epoch=rows.EPOCH, last=25)
    back = account(wiped, api(viewer))
    assert (back["left_behind"], back["pending"]) == (0, 15)


def test_late_report_of_the_old_store_counts_nothing_twice(wiped: Device, api: Api, viewer: User) -> None:
    for epoch, last in ((NEW, 3), (rows.EPOCH, 25), (NEW, 3), (rows.EPOCH, 25), (NEW, 4)):
        checkin(wiped, epoch=epoch, last=last)
    assert account(wiped, api(viewer))["left_behind"] == 15
    assert account(wiped, api(viewer), NEW)["left_behind"] == 0
    assert len([event for event in events(wiped) if event["epoch"] == str(rows.EPOCH)]) == 1
