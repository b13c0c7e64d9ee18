"""The device API says and takes exactly what `contract/` holds."""

import base64
from typing import Any

import pytest
from rest_framework.test import APIClient

from edges import bundle, errors, tokens
from edges.models import Edge, JoinToken
from tests.edges.conftest import CONTRACT, Clock, Device, golden, read


def shape(value: Any) -> Any:
    """The keys of a message, all the way down, and the kinds of its values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return type(value).__name__


@pytest.fixture
def golden_token(edge: Edge, settings: Any) -> JoinToken:
    """The join token of the golden request belongs to `edge`."""
    digest = tokens.join_token_digest(golden("join.request.json")["join_token"], settings.SECRET_KEY)
    token = edge.join_tokens.get()
    token.digest = digest
    token.save()
    return token


def test_golden_join_request_is_answered_in_the_golden_shape(golden_token: JoinToken, edge: Edge) -> None:
    response = APIClient().post("/edge/v1/join", golden("join.request.json"))

    assert response.status_code == 201
    assert shape(response.json()) == shape(golden("join.answer.json"))
    answer = response.json()
    assert answer["edge"]["spiffe_id"] == f"spiffe://opscenter/ns/deployments/edge/{edge.pk}"
    assert answer["session"]["expires_in"] == 3600
    assert answer["session"]["token_endpoint"].endswith("/edge/v1/token")
    assert answer["desired"]["digest"] == edge.publish.pipeline_digest
    assert answer["session"]["lapses_at"] - answer["server_time"] == 7 * 86_400_000


def test_golden_checkin_request_is_answered_in_the_golden_shape(device: Device) -> None:
    response = device.client.post("/edge/v1/checkin", golden("checkin.request.json"))

    assert response.status_code == 200
    assert shape(response.json()) == shape(golden("checkin.answer.json"))


def test_golden_token_request_is_read_and_its_answer_has_the_golden_shape(device: Device) -> None:
    refused = APIClient().post("/edge/v1/token", golden("token.request.json"))
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_assertion")

    answered = device.token()
    assert answered.status_code == 200
    assert shape(answered.json()) == shape(golden("token.answer.json"))


def test_unknown_keys_are_ignored(device: Device) -> None:
    body = golden("checkin.request.json")
    body["weather"] = body["serving"]["weather"] = {"rain": True}

    assert device.client.post("/edge/v1/checkin", body).status_code == 200
    assert "weather" not in str(Edge.objects.get().report)


def test_every_refusal_that_the_contract_lists_for_edges_has_its_class() -> None:
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    elsewhere = {"invalid", "invalid_page", "log_hole", "observability_off", "rate_limited", "storage_full"}

    assert set(golden("errors.json")) - elsewhere <= codes


def test_bundle_is_the_golden_one() -> None:
    said = golden("bundle.json")
    encoded = bundle.encode(
        edge_name=said["EDGE_NAME"],
        join_token=said["JOIN_TOKEN"],
        opscenter_host=said["OPSCENTER_HOST"],
        pipeline_url=said["PIPELINE_URL"],
        workspace_id=int(said["WORKSPACE_ID"]),
    )

    assert encoded == (CONTRACT / "bundle.txt").read_text().strip()
    assert read(encoded) == said
    assert "eval" not in base64.b64decode(encoded).decode()


def test_answers_carry_the_servers_time(clock: Clock, device: Device) -> None:
    expected = int(clock.now.timestamp() * 1000)

    assert device.checkin().json()["server_time"] == expected
    assert APIClient().post("/edge/v1/checkin", {}).json()["server_time"] == expected
