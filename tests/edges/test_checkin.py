import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from rest_framework.test import APIClient

from catalog.models import User
from edges import operations, queries
from edges.models import Edge
from logs.models import LogMark
from publishing.models import Publish
from tests.edges.conftest import Clock, Device, golden


def test_check_in_tells_what_to_serve_and_keeps_the_proof(device: Device, edge: Edge, publish: Publish) -> None:
    answer = device.checkin(serving=device.serving(publish))

    assert answer.json()["desired"] == {
        "publish_id": publish.pk,
        "pipeline": "houseprice",
        "pipeline_version": str(publish.pipeline_version.uuid),
        "pipeline_url": publish.pipeline_url,
        "digest": publish.pipeline_digest,
    }
    edge.refresh_from_db()
    assert edge.serving_digest == publish.pipeline_digest
    assert edge.report["counters"] == golden("checkin.request.json")["counters"]


def test_change_of_what_is_served_is_an_event_and_the_same_again_is_none(
    device: Device, edge: Edge, publish: Publish
) -> None:
    for _ in range(3):
        device.checkin(serving=device.serving(publish))

    assert list(edge.events.filter(kind="serving").values_list("detail", flat=True)) == [
        {"from": "", "to": publish.pipeline_digest}
    ]


def test_edge_that_serves_nothing_yet_checks_in(device: Device, edge: Edge) -> None:
    assert device.checkin(serving=None).status_code == 200
    edge.refresh_from_db()
    assert edge.serving_digest == ""


def test_replaced_publish_is_never_told_again(
    device: Device, edge: Edge, publish: Publish, make_publish: Callable[..., Publish]
) -> None:
    newer = make_publish(publish, pipeline="condoprice")

    answer = device.checkin(serving=device.serving(publish)).json()
    assert answer["desired"]["publish_id"] == newer.pk
    assert answer["desired"]["pipeline"] == "condoprice"
    assert edge.events.filter(kind="moved").get().detail == {"from": publish.pk, "to": newer.pk}
    assert set(edge.assignments.values_list("publish", flat=True)) == {publish.pk, newer.pk}


def test_acknowledged_rows_of_the_edges_own_store_are_told(clock: Clock, device: Device, edge: Edge) -> None:
    epoch = golden("checkin.request.json")["logs"]["epoch"]
    assert device.checkin().json()["logs"] == {"acked": 0}
    LogMark.objects.create(edge=edge, epoch=epoch, acked=800, updated_at=clock.now)
    LogMark.objects.create(edge=edge, epoch=UUID(int=7), acked=5, updated_at=clock.now)

    assert device.checkin().json()["logs"] == {"acked": 800}


def test_clock_offset_of_the_edge_is_kept(clock: Clock, device: Device, edge: Edge) -> None:
    device.checkin(clock=int(clock.now.timestamp() * 1000) - 3_600_000)

    edge.refresh_from_db()
    assert edge.report["clock_offset"] == -3_600_000


def test_contact_moves_the_end_of_the_session_on(clock: Clock, device: Device, edge: Edge) -> None:
    first = device.checkin().json()["lapses_at"]
    clock.forward(seconds=30)

    assert device.checkin().json()["lapses_at"] == first + 30_000


def test_calls_within_ten_seconds_write_no_contact(
    clock: Clock, device: Device, edge: Edge, django_assert_num_queries: Any
) -> None:
    # The other device calls authenticate in the same way and must not cost a write each.
    clock.forward(seconds=9)
    with django_assert_num_queries(1):
        device.client.post("/edge/v1/gaps", {})

    clock.forward(seconds=2)
    with django_assert_num_queries(2):
        device.client.post("/edge/v1/gaps", {})
    edge.refresh_from_db()
    assert edge.last_contact == clock.now


def test_failed_update_is_explained(device: Device, edge: Edge, owner: User) -> None:
    device.checkin(serving=None, update={"state": "failed", "error": "the disk is full"})

    state = queries.edge_state(queries.edge_for(owner, edge.pk), device.clock.now)
    assert not state.is_serving
    assert "the disk is full" in state.explain


def test_odd_error_text_is_kept_as_far_as_it_goes(device: Device, edge: Edge) -> None:
    body = json.dumps(spoiled(update={"state": "failed", "error": "a\x00b\ud800" + "x" * 5000}))

    assert device.client.post("/edge/v1/checkin", body, content_type="application/json").status_code == 200
    edge.refresh_from_db()
    assert edge.report["update"]["error"].startswith("a\ufffdb?x")
    assert len(edge.report["update"]["error"]) == 2000


def spoiled(**changes: Any) -> dict[str, Any]:
    return {**golden("checkin.request.json"), **changes}


@pytest.mark.parametrize(
    "body",
    [
        {},
        spoiled(serving={"digest": "sha256:x"}),
        spoiled(serving={**golden("checkin.request.json")["serving"], "pipeline": "a\x00b"}),
        spoiled(serving={**golden("checkin.request.json")["serving"], "digest": "sha256:" + "A" * 64}),
        spoiled(clock=2**63),
        spoiled(clock=-1),
        spoiled(logs={**golden("checkin.request.json")["logs"], "epoch": "1"}),
        spoiled(update={"state": "failed", "error": {}}),
        [],
        "text",
    ],
)
def test_report_that_breaks_the_contract_is_refused(device: Device, edge: Edge, body: Any) -> None:
    response = device.client.post("/edge/v1/checkin", body)

    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert "server_time" in response.json()
    edge.refresh_from_db()
    assert "at" not in edge.report


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 16_000, b'{"clock": NaN}', b'{"update": {"error": "\\ud800"}}']
)
def test_body_that_is_no_json_is_refused(device: Device, body: bytes) -> None:
    response = device.client.post("/edge/v1/checkin", body, content_type="application/json")

    assert (response.status_code, response.json()["code"]) == (400, "invalid")


def test_other_content_types_are_refused(device: Device) -> None:
    response = device.client.post("/edge/v1/checkin", b"a=b", content_type="application/x-www-form-urlencoded")

    assert (response.status_code, response.json()["code"]) == (400, "invalid")


@pytest.mark.parametrize("address", ["/edge/v1/join", "/edge/v1/token", "/edge/v1/checkin"])
def test_large_body_is_refused_unread_before_anything_else(db: None, address: str) -> None:
    class Unread:
        """Fails as soon as somebody reads the body."""

        def read(self, *args: Any) -> bytes:
            raise AssertionError("the body was read")

        readline = read

    client = APIClient()
    response = client.generic(
        "POST", address, b"", CONTENT_LENGTH=str(10**12), CONTENT_TYPE="application/json", **{"wsgi.input": Unread()}
    )
    assert (response.status_code, response.json()["code"]) == (413, "page_too_large")
    assert response.json()["limit"] == 16 * 1024
    assert "server_time" in response.json()


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "9" * 5000, "٣"])
def test_length_that_is_no_number_is_refused(db: None, length: str) -> None:
    response = APIClient().generic("POST", "/edge/v1/join", b"", CONTENT_LENGTH=length)

    assert response.status_code in {400, 413}


def test_chunked_body_is_told_to_bring_its_length(db: None) -> None:
    response = APIClient().generic("POST", "/edge/v1/join", b"{}", HTTP_TRANSFER_ENCODING="chunked")

    assert (response.status_code, response.json()["code"]) == (400, "invalid")


def test_other_methods_are_refused_in_the_same_shape(device: Device) -> None:
    response = device.client.get("/edge/v1/checkin")

    assert response.status_code == 405
    assert set(response.json()) >= {"code", "message", "server_time"}


def test_assignment_decides_whose_logs_an_edge_may_write(
    device: Device, edge: Edge, publish: Publish, owner: User, make_publish: Callable[..., Publish]
) -> None:
    newer, other = make_publish(publish, pipeline="condoprice"), make_publish(pipeline="other")
    device.checkin()
    edge.refresh_from_db()

    for mine in (publish, newer):
        assert queries.assigned_pipeline_version(edge, mine.pipeline_version.uuid) == mine.pipeline_version
    with pytest.raises(Exception, match="never told to run") as refused:
        queries.assigned_pipeline_version(edge, other.pipeline_version.uuid)
    assert refused.value.code == "pipeline_not_assigned"  # type: ignore[attr-defined]
    assert operations.add_edge(actor=owner, publish=other, name="b").edge.assignments.count() == 1
