"""Exports: each row once in the files, whatever is killed meanwhile; seen, fetched and stopped by who may."""

import json
import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from celery import current_app
from django.utils import timezone
from rest_framework.test import APIClient

from catalog.models import User
from logs import export_jobs, exports, tasks
from logs.asked import Asked, folder_of
from logs.filters import Filters
from logs.models import LogExport
from logs.query import Order
from tests.logs import rows
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db

Api = Callable[..., APIClient]
STATUS = LogExport.Status


def ask(client: APIClient, device: Device, **body: Any) -> Any:
    return client.post(f"/api/v1/pipelines/{device.version.pipeline_id}/logs/exports", body)


def made(client: APIClient, device: Device, **body: Any) -> str:
    response = ask(client, device, **body)
    assert response.status_code == 201, response.content
    return str(response.json()["id"])


def shown(client: APIClient, pk: str) -> Any:
    return client.get(f"/api/v1/logs/exports/{pk}").json()


def fetched(client: APIClient, pk: str) -> list[pa.Table]:
    """The files of an export, as a person fetches them."""
    tables = []
    for file in shown(client, pk)["files"]:
        response = client.get(file["url"])
        body = b"".join(response.streaming_content)
        assert (response.status_code, len(body)) == (200, file["size"])
        name = response["Content-Disposition"]
        if name.endswith('.arrow"'):
            tables.append(pa.ipc.open_file(body).read_all())
        else:
            tables.append(pq.read_table(pa.BufferReader(body)))
        assert len(tables[-1]) == file["rows"]
    return tables


def ids(tables: list[pa.Table]) -> list[int]:
    return [row["id"] for table in tables for row in table["in"].to_pylist()]


@pytest.fixture
def filled(make_device: Callable[..., Device]) -> Device:
    """Two edges, rows 0 to 3999 between them."""
    even = make_device("even")
    odd = make_device("odd", even.version)
    for device, parity in ((even, 0), (odd, 1)):
        for number in range(4):
            names = [1000 * number + 2 * row + parity for row in range(500)]
            times = [rows.START + name for name in names]
            assert device.ship(device.page(times, names=names), first=500 * number + 1).status_code == 200
    return even


@pytest.mark.parametrize("format", ["arrow", "parquet"])
@pytest.mark.parametrize(("order", "expected"), [("asc", range(4000)), ("desc", range(3999, -1, -1))])
def test_all_rows_come_in_order(
    filled: Device, api: Api, viewer: User, format: str, order: str, expected: range
) -> None:
    client = api(viewer)
    pk = made(client, filled, format=format, order=order)
    assert (shown(client, pk)["status"], shown(client, pk)["progress"]) == ("Pending", 0.0)
    assert export_jobs.export(pk)
    told = shown(client, pk)
    assert (told["status"], told["rows"], told["progress"]) == ("Done", 4000, 1.0)
    assert told["created_by"] == viewer.email
    assert ids(fetched(client, pk)) == list(expected)


def test_filters_columns_and_a_limit(filled: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    pk = made(
        client,
        filled,
        edge=["od*"],
        filter=["in.id > 100"],
        start=rows.START + 50,
        end="2025-11-21T00:00:03Z",
        order="asc",
        limit=10,
        dataset=["in.id", "metadata.partition"],
        dataset_separator="/",
        dataset_exclude=["out"],
    )
    assert export_jobs.export(pk)
    (table,) = fetched(client, pk)
    assert table.column_names == ["time"]  # the separator is "/", so "in.id" names nothing
    pk = made(client, filled, edge=["od*"], filter=["in.id > 100"], limit=3, dataset=["in/id"], dataset_separator="/")
    assert export_jobs.export(pk)
    (table,) = fetched(client, pk)
    assert table.column_names == ["time", "in/id"]
    assert table["in/id"].to_pylist() == [3999, 3997, 3995]


def test_json_is_valid_and_whole(filled: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    pk = made(client, filled, format="json", end=rows.START + 9)
    assert export_jobs.export(pk)
    (file,) = shown(client, pk)["files"]
    response = client.get(file["url"])
    assert response["Content-Type"] == "application/json"
    found = json.loads(b"".join(response.streaming_content))
    assert [row["in"]["id"] for row in found] == list(range(9, -1, -1))
    assert found[0]["time"] == rows.START + 9


def test_no_rows_are_no_files(filled: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    pk = made(client, filled, edge=["nobody"])
    assert export_jobs.export(pk)
    assert (shown(client, pk)["status"], shown(client, pk)["files"]) == ("Done", [])


def test_rows_that_came_after_it_was_asked_for_are_not_in_it(filled: Device, api: Api, viewer: User) -> None:
    client = api(viewer)
    pk = made(client, filled, order="asc")
    filled.ship(filled.page(rows.run(3, rows.START + 9000), names=[9000, 9001, 9002]), first=2001)
    assert export_jobs.export(pk)
    assert ids(fetched(client, pk)) == list(range(4000))


def test_a_name_of_two_types_goes_to_two_files(filled: Device, make_device: Any, api: Api, viewer: User) -> None:
    other = make_device("other", filled.version)
    text = {"variable": pa.array(["x"] * 4)}
    other.ship(other.page([rows.START + 1000 * n for n in range(4)], names=[1, 2, 3, 4], outputs=text))
    client = api(viewer)
    pk = made(client, filled, order="asc")
    assert export_jobs.export(pk)
    tables = fetched(client, pk)
    assert sorted(len(table) for table in tables) == [4, 4000]


class Killed(BaseException):
    """As if the process had been killed: nothing after it runs, and no state is written."""


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """Files of a few rows, so that there are many places to die at."""
    monkeypatch.setattr(export_jobs, "BATCH_ROWS", 300)
    monkeypatch.setattr(exports, "SMALLEST_FILE", 1)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("place", ["write", "finish", "recorded"])
def test_killed_anywhere_and_run_again_each_row_is_there_once(
    filled: Device, viewer: User, api: Api, monkeypatch: pytest.MonkeyPatch, small_steps: None, place: str, order: str
) -> None:
    asked = Asked(Filters(), order=Order(order))
    export = exports.create_export(
        actor=viewer,
        pipeline_pk=filled.version.pipeline_id,
        format="arrow",
        asked=asked,
        data_size_limit=100 * 1024,
    )
    pk = str(export.pk)
    calls = {"write": (export_jobs.Files, "write"), "finish": (export_jobs.Files, "finish")}
    owner, name = calls.get(place, (export_jobs.Run, "finish"))
    whole = getattr(owner, name)
    left = 3

    def dying(self: Any, *given: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and place != "recorded":
            raise Killed
        found = whole(self, *given)
        if left == 0:
            raise Killed  # after it was recorded
        return found

    # The draft files of a killed process stay; `discard` is what would not have run.
    monkeypatch.setattr(export_jobs.Files, "discard", lambda self: None)
    monkeypatch.setattr(owner, name, dying)
    deaths = 0
    for _ in range(40):
        left = 3
        try:
            done = export_jobs.export(pk)
        except Killed:
            deaths += 1
            # Its heartbeat stops.
            LogExport.objects.filter(pk=pk).update(heartbeat_at=timezone.now() - timedelta(minutes=5))
            continue
        assert done
        break
    assert deaths >= 1
    client = api(viewer)
    told = shown(client, pk)
    assert (told["status"], told["rows"]) == ("Done", 4000)
    tables = fetched(client, pk)
    assert len(tables) > 3
    assert ids(tables) == (list(range(4000)) if order == "asc" else list(range(3999, -1, -1)))
    assert all(file["size"] <= 100 * 1024 for file in told["files"])
    names = {path.name for path in folder_of(export.pk).iterdir()}
    assert names == {f"{file['number']:06}.arrow" for file in told["files"]}


def test_only_one_is_written_at_a_time_and_the_next_follows(
    filled: Device, api: Api, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = api(viewer)
    first, second = made(client, filled), made(client, filled)
    assert export_jobs.claim(first) is not None
    assert not export_jobs.export(second)
    assert shown(client, second)["status"] == "Pending"
    LogExport.objects.filter(pk=first).update(heartbeat_at=timezone.now() - timedelta(minutes=5))
    sent: list[str] = []
    monkeypatch.setattr(tasks.run_export, "delay", sent.append)
    LogExport.objects.filter(pk=second).update(enqueued_at=None)
    LogExport.objects.filter(pk=first).update(enqueued_at=None)
    tasks.recover_exports()
    assert sent == [first, second]
    tasks.recover_exports()
    assert sent == [first, second]  # a message that was just sent is believed
    tasks.run_export(first)
    assert sent == [first, second, second]
    assert shown(client, first)["status"] == "Done"


def test_a_cancelled_export_stops_and_keeps_finished_files(
    filled: Device, api: Api, viewer: User, monkeypatch: pytest.MonkeyPatch, small_steps: None
) -> None:
    client = api(viewer)
    pk = made(client, filled)
    LogExport.objects.filter(pk=pk).update(data_size_limit=100 * 1024)
    whole = export_jobs.Run.finish

    def finish_and_cancel(self: Any, *given: Any) -> None:
        whole(self, *given)
        assert client.post(f"/api/v1/logs/exports/{pk}/cancel").json()["status"] == "Cancelled"

    monkeypatch.setattr(export_jobs.Run, "finish", finish_and_cancel)
    assert export_jobs.export(pk)
    told = shown(client, pk)
    assert told["status"] == "Cancelled"
    assert 0 < sum(len(table) for table in fetched(client, pk)) < 4000
    assert not list(folder_of(uuid.UUID(pk)).glob("*.part"))
    assert client.post(f"/api/v1/logs/exports/{pk}/cancel").status_code == 409
    assert not export_jobs.export(pk)


def test_files_expire(filled: Device, api: Api, viewer: User, settings: Any) -> None:
    client = api(viewer)
    pk = made(client, filled)
    export_jobs.export(pk)
    (file,) = shown(client, pk)["files"]
    assert export_jobs.expire(timezone.now() + timedelta(days=settings.LOG_EXPORT_DAYS - 1)) == 0
    assert export_jobs.expire(timezone.now() + timedelta(days=settings.LOG_EXPORT_DAYS + 1)) == 1
    assert (shown(client, pk)["status"], shown(client, pk)["files"]) == ("Expired", [])
    assert client.get(file["url"]).status_code == 404
    assert not folder_of(uuid.UUID(pk)).exists()


def test_a_folder_that_no_export_has_is_swept(filled: Device, api: Api, viewer: User, settings: Any) -> None:
    client = api(viewer)
    pk = made(client, filled)
    export_jobs.export(pk)
    orphan = Path(settings.LOG_EXPORT_ROOT) / str(uuid.uuid4())
    orphan.mkdir()
    export_jobs.expire(timezone.now())
    assert orphan.exists()  # it may have been made just now
    os.utime(orphan, (0, time.time() - 7200))
    export_jobs.expire(timezone.now())
    assert not orphan.exists()
    assert len(fetched(client, pk)) == 1


def test_what_fails_is_told(filled: Device, api: Api, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, table: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_jobs.Files, "write", full)
    client = api(viewer)
    pk = made(client, filled)
    export_jobs.export(pk)
    told = shown(client, pk)
    assert (told["status"], told["error"]) == ("Error", "The files cannot be written: No space left on device.")


def test_little_room_is_an_error_not_a_full_disk(
    filled: Device, api: Api, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logs.asked.LEAST_FREE", 2**60)
    client = api(viewer)
    pk = made(client, filled)
    export_jobs.export(pk)
    assert shown(client, pk)["status"] == "Error"
    assert "little room left" in shown(client, pk)["error"]


@pytest.mark.parametrize(
    "body",
    [
        {"format": "csv"},
        {"data_size_limit": 1000},
        {"filter": ["price > 1"]},
        {"order": "up"},
        {"limit": 0},
        {"pipeline_version": ["x"]},
    ],
)
def test_wrong_input_is_400(filled: Device, api: Api, viewer: User, body: dict[str, Any]) -> None:
    response = ask(api(viewer), filled, **body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert not LogExport.objects.exists()


def test_a_version_that_is_not_there_is_404(filled: Device, api: Api, viewer: User) -> None:
    assert ask(api(viewer), filled, pipeline_version=[str(uuid.uuid4())]).status_code == 404


def test_many_unfinished_are_409(filled: Device, api: Api, viewer: User) -> None:
    for _ in range(exports.MOST_UNFINISHED):
        made(api(viewer), filled)
    assert ask(api(viewer), filled).status_code == 409


def test_stranger_gets_404_everywhere(filled: Device, api: Api, viewer: User, stranger: User) -> None:
    pk = made(api(viewer), filled)
    export_jobs.export(pk)
    url = shown(api(viewer), pk)["files"][0]["url"]
    client = api(stranger)
    listed = f"/api/v1/pipelines/{filled.version.pipeline_id}/logs/exports"
    assert ask(client, filled).status_code == 404
    for address in (listed, f"/api/v1/logs/exports/{pk}", url):
        assert client.get(address).status_code == 404
    assert client.post(f"/api/v1/logs/exports/{pk}/cancel").status_code == 404
    assert client.delete(f"/api/v1/logs/exports/{pk}").status_code == 404
    assert api().get(url).status_code == 401


def test_others_see_and_fetch_but_only_its_maker_or_a_collaborator_removes(
    filled: Device, api: Api, viewer: User, member: User
) -> None:
    pk = made(api(member), filled)
    export_jobs.export(pk)
    listed = api(viewer).get(f"/api/v1/pipelines/{filled.version.pipeline_id}/logs/exports").json()
    assert [one["id"] for one in listed["results"]] == [pk]
    assert len(fetched(api(viewer), pk)) == 1
    assert api(viewer).delete(f"/api/v1/logs/exports/{pk}").status_code == 403
    assert api(member).delete(f"/api/v1/logs/exports/{pk}").status_code == 204
    assert not folder_of(uuid.UUID(pk)).exists()
    assert api(viewer).get(f"/api/v1/logs/exports/{pk}").status_code == 404


def test_missing_file_is_404(filled: Device, api: Api, viewer: User) -> None:
    pk = made(api(viewer), filled)
    assert api(viewer).get(f"/api/v1/logs/exports/{pk}/files/1").status_code == 404


def test_asking_sends_the_job_to_a_worker(
    filled: Device, api: Api, viewer: User, django_capture_on_commit_callbacks: Any
) -> None:
    """Through Celery, so that what is sent can be sent."""
    current_app.conf.task_always_eager = True
    try:
        with django_capture_on_commit_callbacks(execute=True):
            pk = made(api(viewer), filled, limit=5)
    finally:
        current_app.conf.task_always_eager = False
    assert shown(api(viewer), pk)["status"] == "Done"
    assert ids(fetched(api(viewer), pk)) == [3999, 3998, 3997, 3996, 3995]


def test_progress_is_told_while_it_is_written(
    filled: Device, api: Api, viewer: User, monkeypatch: pytest.MonkeyPatch, small_steps: None
) -> None:
    monkeypatch.setattr(export_jobs, "RECORD_SECONDS", 0)
    client, told = api(viewer), []
    pk = made(client, filled, order="asc")
    whole = export_jobs.Run.tell

    def tell(self: Any, batch: Any) -> None:
        whole(self, batch)
        seen = shown(client, pk)
        told.append((seen["progress"], seen["rows"]))

    monkeypatch.setattr(export_jobs.Run, "tell", tell)
    assert export_jobs.export(pk)
    assert len(told) > 5
    assert told == sorted(told)
    assert 0 < told[2][0] < told[-3][0] < 1
    assert told[-1][1] == 4000
