"""REST of assays: who may do what, what is refused, and that numbers come through."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from catalog.models import User
from drift import baselines, jobs, operations
from drift.models import Assay, Baseline
from tests.drift.conftest import BEGIN, FIELD, HOUR, USUAL, ms, ship
from tests.drift.test_measures import by_hand
from tests.logs import rows
from tests.logs.busy import Shipper, table
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db
Api = Callable[..., APIClient]

GIVEN: dict[str, Any] = {
    "name": "prices",
    "model": "house-price",
    "field_path": FIELD,
    "baseline": {"start": BEGIN.isoformat(), "end": ms(BEGIN + HOUR)},
    "width": 3600,
    "wait": 0,
    "min_records": 10,
}


@pytest.fixture
def pipeline(device: Device) -> str:
    """Its address, with rows in the first two hours."""
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    ship(shipper, BEGIN + HOUR, USUAL[:200] + 50)
    return f"/api/v1/pipelines/{device.version.pipeline_id}"


@pytest.fixture(autouse=True)
def not_long_after(monkeypatch: Any) -> None:
    """Three hours after the rows began."""
    monkeypatch.setattr(operations.timezone, "now", lambda: BEGIN + timedelta(hours=3))


def test_an_assay_is_made_and_scored(pipeline: str, member: User, viewer: User, api: Api) -> None:
    answer = api(member).post(f"{pipeline}/assays", GIVEN)
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert (made["status"], made["alert"], made["warning"], made["interval"]) == ("active", 0.25, None, 3600)
    assert made["baseline_stats"]["mean"] == pytest.approx(USUAL.mean())
    assert made["bin_edges"] == pytest.approx(list(np.quantile(USUAL, [0, 0.2, 0.4, 0.6, 0.8, 1])))
    assert made["next_run"] == (BEGIN + 2 * HOUR).isoformat().replace("+00:00", "Z")
    assert jobs.run_due(lambda: BEGIN + 3 * HOUR) == 2
    results = api(viewer).get(f"/api/v1/assays/{made['id']}/results").json()["results"]
    assert [one["status"] for one in results] == ["too_few", "alert"]
    before = np.maximum(by_hand(made["bin_edges"], USUAL), 1e-4)
    now = np.maximum(by_hand(made["bin_edges"], USUAL[:200] + 50), 1e-4)
    assert results[1]["score"] == pytest.approx(((now - before) * np.log(now / before)).sum())
    assert results[1]["stats"]["count"] == 200
    for query, count in (
        ("status=alert", 1),
        ("edge=", 2),
        ("edge=other", 0),
        (f"start={ms(BEGIN + 2 * HOUR)}", 1),
        (f"end={ms(BEGIN + 2 * HOUR)}", 1),
        ("limit=1", 2),
    ):
        assert api(viewer).get(f"/api/v1/assays/{made['id']}/results?{query}").json()["count"] == count, query
    assert [one["name"] for one in api(viewer).get(f"{pipeline}/assays").json()["results"]] == ["prices"]
    assert api(viewer).get(f"/api/v1/assays/{made['id']}").json()["name"] == "prices"


def test_pause_resume_and_delete(pipeline: str, member: User, api: Api) -> None:
    client = api(member)
    address = f"/api/v1/assays/{client.post(f'{pipeline}/assays', GIVEN).json()['id']}"
    paused = client.post(f"{address}/pause", {"note": "new sensors"})
    assert (paused.json()["status"], paused.json()["note"], paused.json()["next_run"]) == (
        "paused",
        "new sensors",
        None,
    )
    again = client.post(f"{address}/pause")
    assert (again.status_code, again.json()["code"], again.json()["status"]) == (409, "assay_status", "paused")
    assert client.post(f"{address}/resume").json()["status"] == "active"
    assert client.post(f"{address}/resume").status_code == 409
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 404
    assert not Assay.objects.exists()


def test_roles(pipeline: str, member: User, viewer: User, stranger: User, api: Api) -> None:
    assay = f"/api/v1/assays/{api(member).post(f'{pipeline}/assays', GIVEN).json()['id']}"
    reads = [f"{pipeline}/assays", assay, f"{assay}/results", f"{pipeline}/assays/baselines"]
    writes = [(f"{pipeline}/assays", GIVEN | {"name": "b"}), (f"{assay}/pause", {}), (f"{assay}/resume", {})]
    for address in reads:
        assert [api(user).get(address).status_code for user in (viewer, stranger)] == [200, 404], address
        assert api().get(address).status_code == 401
    for address, body in writes:
        assert [api(user).post(address, body).status_code for user in (viewer, stranger)] == [403, 404], address
    assert [api(user).delete(assay).status_code for user in (viewer, stranger)] == [403, 404]
    upload = f"{pipeline}/assays/baselines?field_path={FIELD}"
    assert [send(api(user), upload, b"x\n1").status_code for user in (viewer, stranger)] == [403, 404]
    assert api(viewer).post(f"{pipeline}/assays/preview", GIVEN).status_code == 200
    assert api(stranger).post(f"{pipeline}/assays/preview", GIVEN).status_code == 404


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"model": "other"}, 400, "has no model other; it has house-price"),
        ({"field_path": "out.none"}, 400, "out.none"),
        ({"baseline": {}}, 400, "time range"),
        ({"baseline": {"start": ms(BEGIN) - 10_000, "end": ms(BEGIN)}}, 400, "has 0 numbers"),
        ({"baseline": {"file": 99}}, 404, "uploaded baseline 99"),
        ({"bin_mode": "given", "bin_edges": [3, 2]}, 400, "edges of bins"),
        ({"metric": "psi", "aggregation": "cumulative"}, 400, "PSI compares densities"),
        ({"warning": 0.5}, 400, "must not be above"),
        ({"alert": "NaN"}, 400, "alert"),
        ({"run_until": (BEGIN + 1.5 * HOUR).isoformat()}, 400, "no window would ever run"),
        ({"first_start": "2020-01-01T00:00:00Z", "interval": 60}, 400, "10000 windows"),
        ({"width": 59}, 400, "width"),
    ],
)
def test_what_is_refused(pipeline: str, member: User, api: Api, changes: dict[str, Any], code: int, words: str) -> None:
    answer = api(member).post(f"{pipeline}/assays", GIVEN | changes)
    assert answer.status_code == code, answer.content
    assert words in answer.json()["message"]
    assert not Assay.objects.exists()


def test_a_name_is_taken_once(pipeline: str, member: User, api: Api) -> None:
    assert api(member).post(f"{pipeline}/assays", GIVEN).status_code == 201
    again = api(member).post(f"{pipeline}/assays", GIVEN)
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")


def test_preview_makes_nothing(pipeline: str, viewer: User, api: Api) -> None:
    given = GIVEN | {"bin_mode": "equal", "bins": 4, "aggregation": "cumulative", "metric": "max_diff"}
    found = api(viewer).post(f"{pipeline}/assays/preview", given).json()
    assert np.diff(found["edges"]) == pytest.approx([(USUAL.max() - USUAL.min()) / 4] * 4)
    assert found["parts"] == pytest.approx(list(np.cumsum(by_hand(found["edges"], USUAL))))
    assert found["stats"]["count"] == len(USUAL)
    assert not Assay.objects.exists()


def send(client: APIClient, address: str, body: bytes) -> Any:
    return client.generic("POST", address, body, content_type="application/octet-stream")


def files(device: Device) -> dict[str, tuple[str, bytes]]:
    """The same numbers in every kind of file: a query and a body."""
    numbers = [1.5, 2.5, 3.5, *range(10, 20)]
    page = table(device, range(rows.START, rows.START + len(numbers)), numbers)
    plain = pa.table({"variable": numbers, "id": [str(n) for n in numbers]})
    return {
        "rows of logs, Arrow file": ("", rows.file(page)),
        "Arrow stream": ("", rows.stream(plain)),
        "other name": ("&column=prices", rows.stream(plain.rename_columns(["prices", "id"]))),
        "CSV": ("&column=v", ("id,v\n" + "\n".join(f"a,{n}" for n in numbers)).encode()),
        "CSV of one column": ("", ("v\n" + "\n".join(map(str, numbers))).encode()),
        "records": ("&column=v", json.dumps([{"v": n, "w": 2.0} for n in numbers]).encode()),
        "records of logs": (
            "",
            ("[" + ",".join(f'{{"out": {{"variable": [{n}.0]}}}}' for n in range(13)) + "]").encode(),
        ),
        "plain list": ("", str(numbers).encode()),
    }


def test_files_are_read(device: Device, pipeline: str, member: User, api: Api) -> None:
    for name, (query, body) in files(device).items():
        answer = send(api(member), f"{pipeline}/assays/baselines?field_path={FIELD}&name=f{query}", body)
        assert answer.status_code == 201, (name, answer.content)
        stored = baselines.unpacked(Baseline.objects.get(pk=answer.json()["id"]).numbers)
        wanted = list(range(13)) if name == "records of logs" else [1.5, 2.5, 3.5, *range(10, 20)]
        assert sorted(stored) == sorted(wanted), name
    assert api(member).get(f"{pipeline}/assays/baselines").json()["count"] == 8


def test_an_assay_compares_with_a_file(pipeline: str, member: User, api: Api) -> None:
    body = ("price\n" + "\n".join(map(str, USUAL + 50))).encode()
    upload = send(api(member), f"{pipeline}/assays/baselines?field_path={FIELD}", body).json()
    given = GIVEN | {"baseline": {"file": upload["id"]}, "first_start": ms(BEGIN)}
    made = api(member).post(f"{pipeline}/assays", given).json()
    assert made["baseline_file"] == upload["id"]
    jobs.run_due(lambda: BEGIN + 2 * HOUR)
    results = api(member).get(f"/api/v1/assays/{made['id']}/results").json()["results"]
    assert [(one["status"], one["stats"]["count"]) for one in results] == [("ok", 200), ("alert", len(USUAL))]


def test_an_upload_is_deleted_when_no_assay_has_it(
    pipeline: str, member: User, viewer: User, stranger: User, api: Api
) -> None:
    upload = send(api(member), f"{pipeline}/assays/baselines?field_path={FIELD}", str(list(range(20))).encode()).json()
    address = f"/api/v1/assays/baselines/{upload['id']}"
    assay = api(member).post(f"{pipeline}/assays", GIVEN | {"baseline": {"file": upload["id"]}}).json()
    refused = api(member).delete(address)
    assert (refused.status_code, refused.json()["code"]) == (409, "baseline_in_use")
    assert "prices" in refused.json()["message"]
    assert [api(user).delete(address).status_code for user in (viewer, stranger)] == [403, 404]
    api(member).delete(f"/api/v1/assays/{assay['id']}")
    assert api(member).delete(address).status_code == 204
    assert not Baseline.objects.exists()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"\x89PNG\r\n", 400),
        (b"[1, 2", 400),
        (b'["a", "b"]', 400),
        (b"a,b\n1,2\n3,4", 400),
        (b"v\n1\n2", 400),
        (b"ARROW1 cut", 400),
        (b"v\n" + b"1\n" * (6 * 1024**2), 413),
    ],
)
def test_files_that_are_no_baseline_are_refused(pipeline: str, member: User, api: Api, body: bytes, code: int) -> None:
    answer = send(api(member), f"{pipeline}/assays/baselines?field_path={FIELD}", body)
    assert answer.status_code == code, answer.content
    assert not Baseline.objects.exists()


def test_now_is_the_default(device: Device, pipeline: str, member: User, api: Api, monkeypatch: Any) -> None:
    """A file has no end, so the first window begins now."""
    upload = send(api(member), f"{pipeline}/assays/baselines?field_path={FIELD}", str(list(range(20))).encode()).json()
    made = api(member).post(f"{pipeline}/assays", GIVEN | {"baseline": {"file": upload["id"]}}).json()
    assert made["next_start"] == ms(BEGIN + 3 * HOUR)
    assert timezone.now() == BEGIN + 3 * HOUR


def test_thresholds_change_for_windows_to_come_and_results_stay(pipeline: str, member: User, api: Api) -> None:
    assay = api(member).post(f"{pipeline}/assays", GIVEN).json()
    address = f"/api/v1/assays/{assay['id']}"
    jobs.run_due(lambda: BEGIN + 3 * HOUR)
    before = api(member).get(f"{address}/results").json()
    answer = api(member).patch(address, {"alert": 99.0, "warning": 0.5, "name": "prices, calm", "min_records": 3})
    assert answer.status_code == 200, answer.content
    changed = answer.json()
    assert (changed["alert"], changed["warning"], changed["name"]) == (99.0, 0.5, "prices, calm")
    assert {**changed, "alert": 0.25, "warning": None, "name": "prices", "min_records": 10} == {
        **assay,
        "next_start": changed["next_start"],
        "next_run": changed["next_run"],
    }
    assert api(member).get(f"{address}/results").json() == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"warning": 0.5}, "must not be above the alert threshold"),
        ({"width": 60}, "make another one"),
        ({"alert": None}, "null"),
        ({"min_records": 0}, "greater than or equal to 1"),
        ({"run_until": "2001-01-01T00:00Z"}, "before the end of the next window"),
    ],
)
def test_a_change_that_cannot_be_is_told(
    pipeline: str, member: User, api: Api, changes: dict[str, Any], told: str
) -> None:
    assay = api(member).post(f"{pipeline}/assays", GIVEN).json()
    answer = api(member).patch(f"/api/v1/assays/{assay['id']}", changes)
    assert answer.status_code == 400
    assert told in answer.content.decode()
    assert api(member).get(f"/api/v1/assays/{assay['id']}").json() == assay


def test_an_assay_takes_no_name_of_another(pipeline: str, member: User, api: Api) -> None:
    assay = api(member).post(f"{pipeline}/assays", GIVEN).json()
    api(member).post(f"{pipeline}/assays", GIVEN | {"name": "other"})
    answer = api(member).patch(f"/api/v1/assays/{assay['id']}", {"name": "other"})
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")


def test_an_ended_assay_goes_on_when_its_end_moves(pipeline: str, member: User, api: Api) -> None:
    given = GIVEN | {"run_until": (BEGIN + 2 * HOUR).isoformat()}
    assay = api(member).post(f"{pipeline}/assays", given).json()
    address = f"/api/v1/assays/{assay['id']}"
    assert jobs.run_due(lambda: BEGIN + 3 * HOUR) == 1
    assert api(member).get(address).json()["status"] == "ended"
    assert api(member).patch(address, {"run_until": None}).json()["status"] == "active"
    assert jobs.run_due(lambda: BEGIN + 3 * HOUR) == 1


def test_only_collaborators_change_assays(pipeline: str, member: User, viewer: User, stranger: User, api: Api) -> None:
    assay = api(member).post(f"{pipeline}/assays", GIVEN).json()
    address = f"/api/v1/assays/{assay['id']}"
    assert api(viewer).patch(address, {"alert": 1.0}).status_code == 403
    assert api(stranger).patch(address, {"alert": 1.0}).status_code == 404
