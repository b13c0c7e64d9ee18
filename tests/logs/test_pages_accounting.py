"""Pages of what came of rows: of an edge, and of sources in the center."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from catalog.models import User
from logs import accounting_views
from tests.logs import rows
from tests.logs.conftest import Device
from tests.logs.test_accounting import checkin
from tests.logs.test_source_gaps import lose
from tests.logs.test_sources import ship

pytestmark = pytest.mark.django_db

Browser = Callable[..., Client]
Api = Callable[..., APIClient]


def text_of(client: Client, address: str) -> str:
    """What a page says."""
    answer = client.get(address)
    assert answer.status_code == 200
    return " ".join(re.sub(r"<[^>]*>", " ", answer.content.decode()).split())


def test_everybody_in_the_workspace_sees_them(statuses: Callable[..., dict[str, int]], device: Device) -> None:
    expected = {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}
    assert statuses(f"/edges/{device.edge.pk}/logs") == expected
    assert statuses(f"/pipelines/{device.version.pipeline_id}/logs/sources") == expected


def test_rows_of_an_edge_are_accounted_for(device: Device, browser: Browser, viewer: User) -> None:
    client, address = browser(viewer), f"/edges/{device.edge.pk}/logs"
    assert "No rows yet" in text_of(client, address)
    device.ship(device.page(rows.run(10)))
    device.gap(first=11, last=15, count=5, time_min=rows.START, time_max=rows.START + 60_000)
    device.gap(first=16, last=16, count=1, time_min=None, time_max=2**52, reason="unreadable")
    checkin(device, epoch=rows.EPOCH, last=40, clock_ahead=3_600_000)
    page = text_of(client, address)
    assert "The log store that the edge has now" in page
    assert "Arrived 10 rows Dropped before they were sent 6 rows Wait at the site 24 rows" in page
    assert "Newest row is of 2025-11-21 00:00 UTC" in page
    assert "5 rows: 11 to 15 storage_limit 2025-11-21 00:00 UTC \N{EN DASH} 2025-11-21 00:01 UTC" in page
    assert "1 row: 16 unreadable not known" in page
    assert re.search(r"off by 3[56]\d{5} ms", page)
    assert address in client.get(f"/edges/{device.edge.pk}").content.decode()


def test_rows_of_sources_are_accounted_for(
    api: Api, browser: Browser, member: User, viewer: User, make_pipeline_version: Any
) -> None:
    version, client = make_pipeline_version(), browser(viewer)
    address = f"/pipelines/{version.pipeline_id}/logs/sources"
    assert "No sources in the center" in text_of(client, address)
    assert address not in client.get(f"/pipelines/{version.pipeline_id}/logs").content.decode()
    ship(api(member), version)
    lose(api(member), version, 4, 9)
    page = text_of(client, address)
    assert f"nightly Its rows by {member.email} A run {rows.EPOCH}" in page
    assert "Arrived 3 rows Dropped before they were sent 6 rows" in page
    assert "Wait at the site" not in page
    assert "6 rows: 4 to 9 worker_killed" in page
    assert address in client.get(f"/pipelines/{version.pipeline_id}/logs").content.decode()


def test_only_the_newest_are_shown_and_the_rest_is_told(
    device: Device, browser: Browser, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounting_views, "SHOWN_GAPS", 2)
    monkeypatch.setattr(accounting_views, "SHOWN_STORES", 1)
    device.gap(first=1, last=1, count=1, epoch=str(uuid.uuid4()))
    for number in range(1, 6):
        device.gap(first=number, last=number, count=1)
    page = text_of(browser(viewer), f"/edges/{device.edge.pk}/logs")
    assert "1 row: 5" in page and "1 row: 4" in page and "1 row: 3" not in page
    assert "3 older gaps are in the answer" in page
    assert "1 earlier log store is in the answer" in page
