"""Pages of drift: the list, the form, what an assay came to."""

import html
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog.models import User
from drift import jobs
from drift.models import Assay, Baseline
from tests.drift.conftest import BEGIN, FIELD, HOUR, USUAL, Device, ship
from tests.logs.busy import Shipper

ALL = {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}
EDITORS = {"owner": 200, "member": 200, "viewer": 403, "stranger": 404}
REFUSED = {"viewer": 403, "stranger": 404}


@pytest.fixture
def watched(device: Device, make_assay: Callable[..., Assay]) -> Assay:
    """An assay with a baseline, a window like it and one far from it."""
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    assay = make_assay(device, warning=0.1)
    ship(shipper, BEGIN + HOUR, USUAL + 0.1)
    ship(shipper, BEGIN + 2 * HOUR, USUAL + 60)
    for hours in (2, 3):
        now = BEGIN + hours * HOUR
        jobs.run_due(lambda now=now: now)
    return assay


def drawn(page: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return {chart["key"]: chart for chart in map(json.loads, found)}


def sent(**changes: Any) -> dict[str, Any]:
    values = {
        "name": "price drift",
        "model": "house-price",
        "field": FIELD,
        "baseline_start": f"{BEGIN:%Y-%m-%dT%H:%M:%S}",
        "baseline_end": f"{BEGIN + HOUR:%Y-%m-%dT%H:%M:%S}",
        "bin_mode": "quantile",
        "bins": "5",
        "metric": "psi",
        "width": "3600",
        "interval": "3600",
        "min_records": "1",
    }
    return values | changes


def test_who_may_see_and_change_assays(statuses: Callable[..., dict[str, int]], watched: Assay) -> None:
    assert statuses(f"/pipelines/{watched.pipeline_id}/drift") == ALL
    assert statuses(f"/assays/{watched.pk}") == ALL
    assert statuses(f"/pipelines/{watched.pipeline_id}/drift/new") == EDITORS
    assert statuses(f"/assays/{watched.pk}/delete") == EDITORS
    for verb in ("pause", "resume", "delete"):
        assert statuses(f"/assays/{watched.pk}/{verb}", "post", without=("owner", "member")) == REFUSED, verb
    created = statuses(f"/pipelines/{watched.pipeline_id}/drift/new", "post", without=("owner", "member"), **sent())
    assert created == REFUSED
    watched.refresh_from_db()
    assert watched.status == Assay.Status.ACTIVE


def test_list_tells_the_newest_window(browser: Callable[..., Client], watched: Assay, viewer: User) -> None:
    page = browser(viewer).get(f"/pipelines/{watched.pipeline_id}/drift").content.decode()
    assert "prices" in page
    assert "Alert</span>" in page
    assert "Active" in page


def test_list_needs_as_many_queries_for_many_assays_as_for_one(
    browser: Callable[..., Client],
    watched: Assay,
    device: Device,
    make_assay: Callable[..., Assay],
    viewer: User,
) -> None:
    client, address = browser(viewer), f"/pipelines/{watched.pipeline_id}/drift"
    client.get(address)
    with CaptureQueriesContext(connection) as one:
        client.get(address)
    for number in range(5):
        make_assay(device, name=f"assay-{number}")
    with CaptureQueriesContext(connection) as many:
        client.get(address)
    assert len(many) == len(one)


def test_assay_shows_scores_with_thresholds_and_the_window_beside_the_baseline(
    browser: Callable[..., Client], watched: Assay, viewer: User
) -> None:
    client = browser(viewer)
    page = client.get(f"/assays/{watched.pk}").content.decode()
    charts = drawn(page)
    assert [limit["label"] for limit in charts["scores"]["limits"]] == ["alert", "warning"]
    calm, drifted = charts["scores"]["lines"][0]["values"]
    assert calm < 0.1 < 0.25 < drifted
    lines = {line["label"]: line["values"] for line in charts["bins"]["lines"]}
    assert lines["baseline"] == watched.baseline_parts
    assert lines["window"][-1] > 0.9, "nearly all numbers are above the baseline's"
    assert len(charts["bins"]["labels"]) == len(lines["baseline"])
    first = watched.results.order_by("start").first()
    assert first is not None
    earlier = drawn(client.get(f"/assays/{watched.pk}?window={first.start}&edge=").content.decode())
    assert earlier["bins"]["lines"][1]["values"] == first.parts


def test_assay_is_created_after_its_baseline_was_looked_at(
    browser: Callable[..., Client], device: Device, member: User
) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    client, address = browser(member), f"/pipelines/{device.version.pipeline_id}/drift/new"
    page = client.post(address, sent(preview="1")).content.decode()
    assert "1200 numbers" in page
    assert len(drawn(page)["bins"]["lines"]) == 1
    assert not Assay.objects.exists()
    answer = client.post(address, sent(alert="0.3", warning="0.2"))
    assay = Assay.objects.get()
    assert answer["Location"] == f"/assays/{assay.pk}"
    assert (assay.alert, assay.warning, assay.width, assay.field) == (0.3, 0.2, 3600, FIELD)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"field": "out.nothing"}, "has a field out.nothing"),
        ({"warning": "3", "alert": "2"}, "must not be above the alert"),
        ({"model": "other"}, "Select a valid choice"),
        ({"baseline_end": f"{BEGIN:%Y-%m-%dT%H:%M:%S}"}, "start before end"),
    ],
)
def test_refused_assay_says_why(
    browser: Callable[..., Client], device: Device, member: User, changes: dict[str, str], told: str
) -> None:
    ship(Shipper(device), BEGIN, USUAL[:50])
    answer = browser(member).post(f"/pipelines/{device.version.pipeline_id}/drift/new", sent(**changes))
    assert answer.status_code == 422
    assert told in answer.content.decode()
    assert not Assay.objects.exists()


def test_assay_is_paused_resumed_and_deleted(browser: Callable[..., Client], watched: Assay, member: User) -> None:
    client = browser(member)
    client.post(f"/assays/{watched.pk}/pause")
    watched.refresh_from_db()
    assert watched.status == Assay.Status.PAUSED
    client.post(f"/assays/{watched.pk}/resume")
    watched.refresh_from_db()
    assert watched.status == Assay.Status.ACTIVE
    assert "Its 2 results go with it" in client.get(f"/assays/{watched.pk}/delete").content.decode()
    client.post(f"/assays/{watched.pk}/delete")
    assert not Assay.objects.exists()


def test_empty_list_teaches_the_next_step(browser: Callable[..., Client], device: Device, member: User) -> None:
    page = browser(member).get(f"/pipelines/{device.version.pipeline_id}/drift").content.decode()
    assert "Create the first assay" in page


def test_what_may_be_changed_is_changed_on_its_page(client: Client, member: User, watched: Assay) -> None:
    client.force_login(member)
    address = f"/assays/{watched.pk}/change"
    page = client.get(address).content.decode()
    assert f'value="{watched.name}"' in page
    values = {"name": "calm", "alert": "9.5", "warning": "", "min_records": "4", "wait": "0", "run_until": ""}
    assert client.post(address, values).headers["Location"] == f"/assays/{watched.pk}"
    watched.refresh_from_db()
    assert (watched.name, watched.alert, watched.warning, watched.min_records) == ("calm", 9.5, None, 4)
    refused = client.post(address, values | {"warning": "10"})
    assert refused.status_code == 422
    assert "must not be above the alert threshold" in refused.content.decode()


def test_the_baseline_offered_reaches_to_the_row_logged_last(client: Client, member: User, device: Device) -> None:
    client.force_login(member)
    before = datetime.now(UTC)
    page = client.get(f"/pipelines/{device.version.pipeline_id}/drift/new").content.decode()
    (offered,) = re.findall(r'name="baseline_end" value="([^"]+)"', page)
    assert datetime.fromisoformat(f"{offered}+00:00") > before


def test_a_file_may_be_the_baseline_and_is_kept_for_others(client: Client, member: User, device: Device) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    client.force_login(member)
    address = f"/pipelines/{device.version.pipeline_id}/drift/new"
    values = sent(baseline_start="", baseline_end="")
    numbers = "out.variable[0]\n" + "\n".join(str(number) for number in range(100))
    file = SimpleUploadedFile("good.csv", numbers.encode())
    shown = client.post(address, values | {"baseline_upload": file, "preview": "1"})
    assert shown.status_code == 200, shown.context["form"].errors
    assert "100 numbers from 0" in shown.content.decode()
    kept = Baseline.objects.get()
    assert f'<option value="{kept.pk}" selected>' in shown.content.decode()
    assert client.post(address, values | {"baseline_file": str(kept.pk)}).status_code == 302
    made = Assay.objects.get(name="price drift")
    assert (made.baseline_file_id, made.baseline_stats["count"]) == (kept.pk, 100)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "A baseline is a time range with both ends, or a file."),
        ({"baseline_upload": b"out.variable[0]\n1\n2\n"}, "it needs at least 10"),
        ({"baseline_upload": b"\x00\xff\x01"}, "neither Arrow"),
        ({"baseline_upload": b"x" * (10 * 1024**2 + 1)}, "more than 10 MiB"),
    ],
)
def test_a_baseline_that_cannot_be_is_told_on_the_form(
    client: Client, member: User, device: Device, given: dict[str, bytes], told: str
) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    client.force_login(member)
    values = sent(baseline_start="", baseline_end="")
    files = {name: SimpleUploadedFile("some.csv", body) for name, body in given.items()}
    answer = client.post(f"/pipelines/{device.version.pipeline_id}/drift/new", values | files)
    assert answer.status_code == 422
    assert told in html.unescape(answer.content.decode())
    assert not Baseline.objects.exists()
