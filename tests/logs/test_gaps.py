"""`POST /edge/v1/gaps`: rows that never come are counted, not waited for."""

import json
from typing import Any

import pytest

from logs.models import LogGap, LogMark, LogPage
from tests.conftest import CONTRACT
from tests.logs import rows
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db


def golden(name: str) -> Any:
    return json.loads((CONTRACT / name).read_text(encoding="utf-8"))


def gap(first: int, last: int, **changes: Any) -> dict[str, Any]:
    return {"first": first, "last": last, "count": last - first + 1, "time_min": 1, "time_max": 2} | changes


def recorded() -> list[tuple[int, int, int]]:
    return list(LogGap.objects.order_by("first").values_list("first", "last", "count"))


def test_gap_moves_the_mark_past_it(device: Device) -> None:
    device.ship(device.page(rows.run(1000)))
    response = device.gap(**golden("gaps.request.json"))
    assert response.status_code == 200, response.content
    assert response.json().keys() == golden("gaps.answer.json").keys()
    assert response.json()["acked"] == golden("gaps.answer.json")["acked"] == 1199
    found = LogGap.objects.get()
    assert (found.first, found.last, found.count) == (1001, 1199, 199)
    assert (found.time_min, found.time_max, found.reason) == (1763683000000, 1763683100000, "storage_limit")
    mark = LogMark.objects.get()
    assert (mark.acked, mark.rows, mark.shed) == (1199, 1000, 199)
    assert device.ship(device.page(rows.run(5)), first=1200).json()["acked"] == 1204


def test_store_may_begin_with_a_gap(device: Device) -> None:
    assert device.gap(**gap(1, 50)).json()["acked"] == 50


def test_repeated_gap_is_recorded_once(device: Device) -> None:
    assert [device.gap(**gap(1, 50)).json()["acked"] for _ in range(3)] == [50, 50, 50]
    assert recorded() == [(1, 50, 50)]
    assert LogMark.objects.get().shed == 50


def test_gap_over_rows_that_are_here_is_recorded_after_them(device: Device) -> None:
    device.ship(device.page(rows.run(10)))
    assert device.gap(**gap(6, 20)).json()["acked"] == 20
    assert recorded() == [(11, 20, 10)]
    mark = LogMark.objects.get()
    assert mark.rows + mark.shed == mark.acked == 20


def test_rows_after_the_mark_of_a_page_that_a_gap_covers_in_part_are_kept(device: Device) -> None:
    device.gap(**gap(1, 5))
    assert device.ship(device.page(rows.run(10))).json()["acked"] == 10
    assert list(LogPage.objects.values_list("first", "rows")) == [(6, 5)]


def test_gap_after_a_hole_is_refused(device: Device) -> None:
    response = device.gap(**gap(5, 9))
    assert (response.status_code, response.json()["code"]) == (409, "log_hole")
    assert response.json()["expected"] == 1
    assert response.json()["message"].startswith("The gap begins at row 5")


@pytest.mark.parametrize(
    "wrong", [gap(9, 5), gap(1, 5, count=4), gap(0, 5), gap(1, 5, reason="x" * 65), gap(1, 5, epoch="x"), gap(1, 2**63)]
)
def test_wrong_gap_is_400(device: Device, wrong: dict[str, Any]) -> None:
    response = device.gap(**wrong)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert not LogGap.objects.exists()


def test_times_may_be_unknown(device: Device) -> None:
    assert device.gap(**gap(1, 5, time_min=None, time_max=None)).status_code == 200


def test_nobody_is_401(device: Device) -> None:
    device.client.credentials()
    assert device.gap(**gap(1, 5)).status_code == 401
