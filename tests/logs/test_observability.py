"""The observability switch: who may, what edges are answered, what people are told."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from catalog.models import User
from logs import observability
from logs.models import LogGap, LogPage, ObservabilityChange
from tests.edges.conftest import golden
from tests.logs.conftest import Device

URL = "/api/v1/observability"
CONSOLE = "/admin/logs/observabilitychange/"


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("admin@example.com", "admin-password-1")


@pytest.fixture
def switch(admin: User, api: Callable[..., APIClient]) -> Callable[[Any], Any]:
    def to(enabled: bool | None) -> Any:
        answer = api(admin).put(URL, {"enabled": enabled})
        assert answer.status_code == 200, answer.content
        return answer.json()

    return to


def told(device: Device, code: str, answer: Any) -> None:
    assert (answer.status_code, answer.json()["code"]) == (golden("errors.json")[code], code)


def test_it_is_on_as_the_environment_says_until_somebody_switches_it(api: Callable[..., APIClient], owner: User):
    found = {"enabled": True, "decided_by": "environment", "changed_at": None, "changed_by": None}
    assert api(owner).get(URL).json() == found


def test_the_environment_may_switch_it_off(device: Device, settings: Any, api: Callable[..., APIClient], owner: User):
    settings.EDGE_OBSERVABILITY = False
    assert api(owner).get(URL).json()["enabled"] is False
    told(device, "observability_off", device.ship(device.page([1_000])))


def test_logs_and_gaps_are_refused_while_it_is_off_and_taken_when_it_is_on_again(
    device: Device, switch: Callable[[Any], Any]
):
    assert device.ship(device.page([1_000, 2_000])).status_code == 200
    switch(False)
    page = device.page([3_000])
    refused = device.ship(page, first=3)
    told(device, "observability_off", refused)
    assert "the rows stay on the edge" in refused.json()["message"] and "server_time" in refused.json()
    told(device, "observability_off", device.gap(first=3, last=3, count=1))
    assert (LogPage.objects.count(), LogGap.objects.count()) == (1, 0)
    assert switch(True)["decided_by"] == "administrator"
    assert device.ship(page, first=3).json()["acked"] == 3


def test_administrator_overrides_the_environment_and_gives_it_back(switch: Callable[[Any], Any], settings: Any):
    settings.EDGE_OBSERVABILITY = False
    assert switch(True)["enabled"] is True
    found = switch(None)
    assert (found["enabled"], found["decided_by"]) == (False, "environment")


def test_each_switch_is_recorded_with_who_and_when_and_nothing_else_is(switch: Callable[[Any], Any], admin: User):
    assert switch(False)["changed_by"] == admin.email
    switch(False)
    switch(True)
    kept = ObservabilityChange.objects.all()
    assert [(one.enabled, one.actor) for one in kept] == [(True, admin), (False, admin)]
    assert kept[0].at >= kept[1].at


def test_nobody_else_may_switch_or_is_told_who_did(
    api: Callable[..., APIClient], owner: User, stranger: User, switch: Callable[[Any], Any]
):
    switch(False)
    for person in (owner, stranger):
        assert api(person).put(URL, {"enabled": True}).status_code == 403
        assert api(person).get(URL).json()["changed_by"] is None
    assert api().get(URL).status_code == 401
    assert api(owner).get(URL).json()["enabled"] is False


@pytest.mark.parametrize("body", [{}, {"enabled": "perhaps"}, {"enabled": [1]}])
def test_what_is_no_switch_is_refused(api: Callable[..., APIClient], admin: User, body: dict[str, Any]):
    assert api(admin).put(URL, body).status_code == 400
    assert not ObservabilityChange.objects.exists()


def test_accounting_says_that_pending_rows_are_held(
    device: Device, switch: Callable[[Any], Any], api: Callable[..., APIClient], owner: User
):
    address = f"/api/v1/edges/{device.edge.pk}/logs/accounting"
    assert api(owner).get(address).json()["is_held"] is False
    switch(False)
    device.ship(device.page([1_000]))
    report = {"logs": {"epoch": "0d4d2a1c-0000-4000-8000-000000000001", "last_sequence": 7}}
    type(device.edge).objects.filter(pk=device.edge.pk).update(report=report)
    found = api(owner).get(address).json()
    assert found["is_held"] is True
    assert [(one["received"], one["pending"]) for one in found["epochs"]] == [(0, 7)]


def test_pages_that_show_logs_say_so(
    device: Device, switch: Callable[[Any], Any], browser: Callable[..., Client], viewer: User, admin: User
):
    pipeline = device.version.pipeline_id
    names = ("logs:rows", "logs:charts", "logs:exports")
    addresses = [reverse(name, args=[pipeline]) for name in names] + [reverse("edges:edge", args=[device.edge.pk])]
    for address in addresses:
        assert "Observability is off." not in browser(viewer).get(address).content.decode()
    switch(False)
    for address in addresses:
        page = browser(viewer).get(address).content.decode()
        assert "Observability is off." in page and "An administrator can switch it on." in page, address
    assert CONSOLE in browser(admin).get(addresses[0]).content.decode()


def test_console_shows_what_is_in_force_and_switches_it(
    browser: Callable[..., Client], admin: User, device: Device, settings: Any
):
    window = browser(admin)
    page = window.get(CONSOLE).content.decode()
    assert "Observability is on" in page and "OPSCENTER_EDGE_OBSERVABILITY is on" in page
    form = window.get(f"{CONSOLE}add/").content.decode()
    assert "which is on" in form
    assert window.post(f"{CONSOLE}add/", {"enabled": "off"}).status_code == 302
    change = ObservabilityChange.objects.get()
    assert (change.enabled, change.actor) == (False, admin)
    page = window.get(CONSOLE).content.decode()
    assert "Observability is off" in page and f"Set by {admin.email}" in page
    told(device, "observability_off", device.ship(device.page([1_000])))
    assert window.post(f"{CONSOLE}add/", {"enabled": "environment"}).status_code == 302
    assert device.ship(device.page([1_000])).status_code == 200
    assert window.post(f"{CONSOLE}add/", {"enabled": "perhaps"}).status_code == 200
    assert ObservabilityChange.objects.count() == 2


def test_what_was_switched_is_neither_edited_nor_forgotten(
    browser: Callable[..., Client], admin: User, switch: Callable[[Any], Any]
):
    switch(False)
    pk = ObservabilityChange.objects.get().pk
    window = browser(admin)
    assert window.post(f"{CONSOLE}{pk}/change/", {"enabled": "on"}).status_code == 403
    assert window.post(f"{CONSOLE}{pk}/delete/", {"post": "yes"}).status_code == 403


def test_pages_of_logs_do_not_each_ask_whether_it_is_on(device: Device, django_assert_num_queries: Any):
    assert device.ship(device.page([1_000])).status_code == 200
    with django_assert_num_queries(0):
        assert observability.is_on()
