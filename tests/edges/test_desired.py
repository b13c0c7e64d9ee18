"""What an edge learns: `GET desired`, the ETag of a check-in, the plain check-in's cost, and clocks of 1970."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from rest_framework.test import APIClient

from catalog.models import User
from edges import operations
from edges.models import Edge
from publishing.models import Publish
from tests.edges.conftest import ENGINE, Clock, Device, golden, join_token_in


def checkin(device: Device, publish: Publish, **headers: Any) -> Any:
    body = {**golden("checkin.request.json"), "serving": device.serving(publish)}
    return device.client.post("/edge/v1/checkin", body, **headers)


def test_edge_reads_its_own_desired_state(device: Device, publish: Publish) -> None:
    answer = device.client.get("/edge/v1/desired")

    assert answer.status_code == 200
    assert answer.json()["desired"] == device.joined["desired"]
    assert answer.json()["desired"]["digest"] == publish.pipeline_digest


def test_nobody_reads_it_without_a_token(db: None) -> None:
    assert APIClient().get("/edge/v1/desired").status_code == 401


@pytest.mark.parametrize("verb", ["remove_edge", "ban_edge"])
def test_edge_that_was_shut_out_reads_nothing(device: Device, edge: Edge, owner: User, verb: str) -> None:
    getattr(operations, verb)(actor=owner, edge=edge)
    assert device.client.get("/edge/v1/desired").status_code == 403


def test_known_desired_state_is_304_until_it_changes(
    device: Device, publish: Publish, make_publish: Callable[..., Publish]
) -> None:
    tag = device.client.get("/edge/v1/desired")["ETag"]
    again = device.client.get("/edge/v1/desired", HTTP_IF_NONE_MATCH=tag)
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", tag)

    newer = make_publish(publish)
    answer = device.client.get("/edge/v1/desired", HTTP_IF_NONE_MATCH=f'W/{tag}, "other"')
    assert (answer.status_code, answer.json()["desired"]["publish_id"]) == (200, newer.pk)


def test_check_in_that_tells_nothing_new_is_304_and_still_counts(
    clock: Clock, device: Device, publish: Publish, edge: Edge, make_publish: Callable[..., Publish]
) -> None:
    tag = checkin(device, publish)["ETag"]
    clock.forward(seconds=30)
    answer = checkin(device, publish, HTTP_IF_NONE_MATCH=tag)

    assert (answer.status_code, answer.content) == (304, b"")
    edge.refresh_from_db()
    assert edge.last_contact == clock.now
    assert edge.report["at"] == int(clock.now.timestamp() * 1000)
    make_publish(publish)
    assert checkin(device, publish, HTTP_IF_NONE_MATCH=tag).status_code == 200


def test_broken_report_is_refused_and_still_contact(clock: Clock, device: Device, edge: Edge) -> None:
    clock.forward(minutes=1)
    assert device.client.post("/edge/v1/checkin", {}).status_code == 400
    edge.refresh_from_db()
    assert edge.last_contact == clock.now


def test_contact_never_moves_backwards(clock: Clock, device: Device, publish: Publish, edge: Edge) -> None:
    checkin(device, publish)
    latest = clock.now
    clock.forward(seconds=-5)

    assert checkin(device, publish).status_code == 200
    edge.refresh_from_db()
    assert edge.last_contact == latest


def test_edge_whose_clock_says_1970_joins_gets_tokens_and_checks_in(clock: Clock, added: operations.Added) -> None:
    born = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    own = Clock()
    own.now = born
    device = Device(own)
    answer = device.join(join_token_in(added.bundle))
    assert answer.status_code == 201, "joining needs no clock"

    wrong = device.token()
    assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_assertion")
    # As the engine does: the offset is learnt from the server's time in any answer, refusals too.
    offset = wrong.json()["server_time"] / 1000 - born.timestamp()
    issued = int(born.timestamp() + offset)
    assert device.token(device.assertion(iat=issued, exp=issued + 60)).status_code == 200
    assert device.checkin(clock=60_000).status_code == 200
    gap = {"epoch": golden("gaps.request.json")["epoch"], "first": 1, "last": 3, "count": 3, "reason": "full"}
    assert device.client.post("/edge/v1/gaps", gap).status_code == 200, "and its logs are taken"
    edge = Edge.objects.get()
    assert edge.report["clock_offset"] == 60_000 - int(clock.now.timestamp() * 1000)
    assert edge.session_lapses_at is not None and edge.session_lapses_at > clock.now, "by the server's time"


def test_engine_may_leave_out_when_it_started(clock: Clock, added: operations.Added) -> None:
    assert "started_at" not in ENGINE
    assert Device(clock).join(join_token_in(added.bundle)).status_code == 201
