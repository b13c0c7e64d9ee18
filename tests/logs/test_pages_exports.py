"""The page of exports: ask, watch, fetch, remove."""

from collections.abc import Callable

import pytest
from django.test import Client

from catalog.models import User
from logs import export_jobs
from logs.models import LogExport
from tests.logs.conftest import Device

REFUSED = {"viewer": 403, "stranger": 404}


@pytest.fixture
def address(device: Device) -> str:
    return f"/pipelines/{device.version.pipeline_id}/logs/exports"


def made(client: Client, address: str, **fields: str) -> LogExport:
    assert client.post(address, {"format": "json"} | fields).status_code == 302
    return LogExport.objects.latest("created_at")


def test_everybody_in_the_workspace_sees_and_makes_exports(
    statuses: Callable[..., dict[str, int]], address: str
) -> None:
    assert statuses(address) == {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}
    answers = statuses(address, "post", format="json")
    assert answers == {"owner": 302, "member": 302, "viewer": 302, "stranger": 404}


def test_export_shows_its_progress_and_its_files(
    browser: Callable[..., Client], address: str, device: Device, viewer: User
) -> None:
    device.ship(device.page([1, 2, 3]))
    client = browser(viewer)
    export = made(client, address, edge="houseprice-*")
    waiting = client.get(address).content.decode()
    assert "Waiting for a worker" in waiting
    assert "every 1s" in waiting
    assert "edge: houseprice-*" in waiting
    export_jobs.export(str(export.pk))
    page = client.get(address).content.decode()
    assert "every 1s" not in page
    assert "3 rows as" in page
    file = f"/api/v1/logs/exports/{export.pk}/files/1"
    assert file in page
    assert b'"partition"' in b"".join(client.get(file).streaming_content)  # type: ignore[attr-defined]


def test_export_is_stopped_and_removed_by_who_made_it(
    browser: Callable[..., Client],
    statuses: Callable[..., dict[str, int]],
    address: str,
    device: Device,
    member: User,
) -> None:
    device.ship(device.page([1]))
    client = browser(member)
    export = made(client, address)
    assert statuses(f"/logs/exports/{export.pk}/cancel", "post", without=("owner", "member")) == REFUSED
    assert statuses(f"/logs/exports/{export.pk}/delete", "post", without=("owner", "member")) == REFUSED
    client.post(f"/logs/exports/{export.pk}/cancel")
    export.refresh_from_db()
    assert export.status == LogExport.Status.CANCELLED
    assert "can no longer be downloaded" in client.get(f"/logs/exports/{export.pk}/delete").content.decode()
    client.post(f"/logs/exports/{export.pk}/delete")
    assert not LogExport.objects.exists()


def test_impossible_export_says_why(browser: Callable[..., Client], address: str, device: Device, viewer: User) -> None:
    device.ship(device.page([1]))
    answer = browser(viewer).post(address, {"format": "json", "filter": "out.variable >"})
    assert answer.status_code == 422
    assert 'role="alert"' in answer.content.decode()
    assert not LogExport.objects.exists()
