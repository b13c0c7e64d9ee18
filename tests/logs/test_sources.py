"""`POST /api/v1/pipelines/<id>/logs`: rows of sources in the center, beside those of edges."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from django.test import override_settings
from django.utils import timezone
from rest_framework.test import APIClient

from catalog.models import PipelineVersion, User
from logs import compaction, pages, rollups
from logs.models import LogMark, LogPage, LogSource
from tests.logs import rows
from tests.logs.conftest import STREAM, Device, full_disk

pytestmark = pytest.mark.django_db

Api = Callable[..., APIClient]


def ship(client: APIClient, version: PipelineVersion, body: bytes | None = None, **changes: Any) -> Any:
    """`POST logs` of the source `nightly`, three rows unless a body is given."""
    if body is None:
        body = rows.page(rows.run(3), version=version.uuid, partition="whatever")
    kind = changes.pop("content_type", STREAM)
    pipeline = changes.pop("pipeline", version.pipeline_id)
    query = {"source": "nightly", "epoch": rows.EPOCH, "first": 1, "pipeline_version": version.uuid} | changes
    address = f"/api/v1/pipelines/{pipeline}/logs?" + "&".join(f"{name}={value}" for name, value in query.items())
    return client.generic("POST", address, body, content_type=kind)


def read(client: APIClient, pipeline: int, **query: str) -> list[dict[str, Any]]:
    response = client.get(f"/api/v1/pipelines/{pipeline}/logs", query)
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()
    return found


def accounts(client: APIClient, pipeline: int) -> list[dict[str, Any]]:
    response = client.get(f"/api/v1/pipelines/{pipeline}/logs/sources")
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()
    return found


def test_rows_of_a_source_are_read_at_once_beside_an_edges(device: Device, api: Api, member: User) -> None:
    device.ship(device.page(rows.run(2, begin=rows.START + 100)))
    response = ship(api(member), device.version)
    assert (response.status_code, response.json()) == (200, {"acked": 3})
    pipeline = device.version.pipeline_id
    found = [row["metadata"]["partition"] for row in read(api(member), pipeline)]
    assert found == [device.edge.name] * 2 + ["center:nightly"] * 3
    assert len(read(api(member), pipeline, edge="center:*")) == 3
    assert len(read(api(member), pipeline, edge=device.edge.name)) == 2


def test_rows_sent_again_are_stored_once(api: Api, member: User, make_pipeline_version: Any) -> None:
    version, client = make_pipeline_version(), api(member)
    for _ in range(2):
        assert ship(client, version).json() == {"acked": 3}
    longer = rows.page(rows.run(5), version=version.uuid)
    assert ship(client, version, longer).json() == {"acked": 5}
    assert sorted(LogPage.objects.values_list("first", "rows")) == [(1, 3), (4, 2)]
    assert (LogMark.objects.get().acked, LogMark.objects.get().rows) == (5, 5)


def test_sources_and_epochs_count_for_themselves(api: Api, member: User, make_pipeline_version: Any) -> None:
    version, client = make_pipeline_version(), api(member)
    ship(client, version)
    ship(client, version, source="weekly")
    again = str(uuid.uuid4())
    ship(client, version, epoch=again)
    nightly, weekly = accounts(client, version.pipeline_id)
    assert (nightly["name"], nightly["partition"], nightly["created_by"]) == ("nightly", "center:nightly", member.email)
    assert [epoch["epoch"] for epoch in nightly["epochs"]] == [again, str(rows.EPOCH)]
    assert [(epoch["received"], epoch["acked"], epoch["left_behind"]) for epoch in nightly["epochs"]] == [(3, 3, 0)] * 2
    assert [epoch["received"] for epoch in weekly["epochs"]] == [3]
    assert len(read(client, version.pipeline_id)) == 9


def test_same_name_in_another_pipeline_is_another_source(api: Api, member: User, make_pipeline_version: Any) -> None:
    first, second = make_pipeline_version(), make_pipeline_version(name="churn")
    for version in (first, second):
        assert ship(api(member), version).json() == {"acked": 3}
    assert LogSource.objects.count() == 2
    assert [len(read(api(member), version.pipeline_id)) for version in (first, second)] == [3, 3]


def test_records_in_json_are_rows_too(api: Api, member: User, make_pipeline_version: Any) -> None:
    version = make_pipeline_version()
    body = b'[{"time": 1763683200000, "in": {"x": 1}, "out": {"y": 0.5}}]'
    assert ship(api(member), version, body, content_type="application/json").json() == {"acked": 1}
    assert read(api(member), version.pipeline_id)[0]["metadata"]["partition"] == "center:nightly"


def test_rows_of_a_source_become_segments_like_others(api: Api, member: User, make_pipeline_version: Any) -> None:
    version = make_pipeline_version()
    ship(api(member), version)
    rollups.roll_up_waiting(timezone.now)
    later = timezone.now() + timedelta(hours=1)
    assert compaction.compact(version.pipeline_id, lambda: later) == 1
    assert not LogPage.objects.exists()
    assert [row["metadata"]["partition"] for row in read(api(member), version.pipeline_id)] == ["center:nightly"] * 3
    assert ship(api(member), version).json() == {"acked": 3}  # and the mark outlives the page
    assert not LogPage.objects.exists()


def test_hole_is_409_with_the_row_to_begin_at(api: Api, member: User, make_pipeline_version: Any) -> None:
    response = ship(api(member), make_pipeline_version(), first=7)
    assert (response.status_code, response.json()["code"], response.json()["expected"]) == (409, "log_hole", 1)


def test_body_above_the_limit_is_413(api: Api, member: User, make_pipeline_version: Any) -> None:
    response = ship(api(member), make_pipeline_version(), b"x" * (pages.MAX_BYTES + 1))
    assert (response.status_code, response.json()["code"]) == (413, "page_too_large")
    assert response.json()["limit"] == pages.MAX_BYTES
    assert not LogSource.objects.exists()


def test_more_rows_than_a_page_may_have_are_413(api: Api, member: User, make_pipeline_version: Any) -> None:
    version = make_pipeline_version()
    response = ship(api(member), version, rows.page(rows.run(pages.MAX_ROWS + 1), version=version.uuid))
    assert (response.status_code, response.json()["code"]) == (413, "page_too_large")
    assert response.json()["limit"] == pages.MAX_ROWS
    assert not LogSource.objects.exists()


@override_settings(EDGE_CALLS_PER_MINUTE=2)
def test_too_many_pages_are_429(api: Api, member: User, make_pipeline_version: Any) -> None:
    version = make_pipeline_version()
    answers = [ship(api(member), version) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert int(answers[-1]["Retry-After"]) >= 1
    assert ship(api(member), version, source="weekly").status_code == 200  # each source has its own


def test_full_disk_is_507_and_the_page_may_be_sent_again(api: Api, member: User, make_pipeline_version: Any) -> None:
    version, client = make_pipeline_version(), api(member)
    ship(client, version)
    body = rows.page(rows.run(9000), version=version.uuid)
    with full_disk():
        response = ship(client, version, body, first=4)
    assert (response.status_code, response.json()["code"]) == (507, "storage_full")
    assert list(LogPage.objects.values_list("first", "rows")) == [(1, 3)]
    assert (LogMark.objects.get().acked, LogMark.objects.get().rows) == (3, 3)
    assert ship(client, version, body, first=4).json() == {"acked": 9003}


def test_version_of_another_pipeline_is_404(api: Api, member: User, make_pipeline_version: Any) -> None:
    version, other = make_pipeline_version(), make_pipeline_version(name="churn")
    assert ship(api(member), version, pipeline=other.pipeline_id).status_code == 404
    assert not LogSource.objects.exists()


@pytest.mark.parametrize(
    "wrong", [{"source": ""}, {"source": "a:b"}, {"source": "a" * 65}, {"first": 0}, {"first": "x"}, {"epoch": "x"}]
)
def test_wrong_place_is_400_and_makes_no_source(
    api: Api, member: User, make_pipeline_version: Any, wrong: dict[str, Any]
) -> None:
    response = ship(api(member), make_pipeline_version(), **wrong)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert not LogSource.objects.exists()


def pages_that_are_none(version: uuid.UUID) -> dict[str, tuple[bytes, str]]:
    """Bodies, and what of the answer says why."""
    whole = rows.page(rows.run(3), version=version)
    mixed = [rows.table(rows.run(2), version=version), rows.table(rows.run(1), version=uuid.uuid4())]
    return {
        "nothing": (b"", "no Arrow schema"),
        "no Arrow": (b"nothing", "not an Arrow IPC stream"),
        "cut short": (whole[: len(whole) // 2], "ends in the middle"),
        "no rows": (rows.page([], version=version), "no rows"),
        "without a time": (rows.stream(rows.table([1], version=version).drop_columns(["time"])), "time"),
        "flat inputs": (
            rows.stream(pa.table(rows.columns([1], version=version) | {"in": pa.array([1.0])})),
            "it must be a struct of the inputs",
        ),
        "another version": (rows.page([1], version=uuid.uuid4()), "send them apart"),
        "two versions": (rows.stream(pa.concat_tables(mixed)), "send them apart"),
    }


@pytest.mark.parametrize("name", pages_that_are_none(rows.VERSION))
def test_what_is_no_page_is_400_with_the_reason_and_makes_no_source(
    api: Api, member: User, make_pipeline_version: Any, name: str
) -> None:
    version = make_pipeline_version()
    body, why = pages_that_are_none(version.uuid)[name]
    response = ship(api(member), version, body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_page")
    assert why in response.json()["message"]
    assert not LogSource.objects.exists()


def test_rows_are_taken_while_edges_may_ship_none(
    api: Api, member: User, make_pipeline_version: Any, settings: Any
) -> None:
    settings.EDGE_OBSERVABILITY = False
    assert ship(api(member), make_pipeline_version()).json() == {"acked": 3}


@pytest.mark.parametrize(
    ("who", "writes", "lists"),
    [("owner", 200, 200), ("member", 200, 200), ("viewer", 403, 200), ("stranger", 404, 404), (None, 401, 401)],
)
def test_who_may_write_and_who_may_see(
    api: Api, request: Any, make_pipeline_version: Any, who: str | None, writes: int, lists: int
) -> None:
    version = make_pipeline_version()
    client = api(request.getfixturevalue(who)) if who else APIClient()
    assert ship(client, version).status_code == writes
    assert client.get(f"/api/v1/pipelines/{version.pipeline_id}/logs/sources").status_code == lists
    assert LogPage.objects.exists() == (writes == 200)


def test_api_describes_it(api: Api, member: User) -> None:
    described = api(member).get("/api/v1/schema?format=json").json()["paths"]["/api/v1/pipelines/{id}/logs"]["post"]
    named = {parameter["name"] for parameter in described["parameters"]}
    assert {"source", "epoch", "first", "pipeline_version"} <= named
    assert STREAM in described["requestBody"]["content"]
