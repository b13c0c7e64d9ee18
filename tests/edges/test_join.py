from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from catalog.models import User
from edges import operations
from edges.models import Edge, EdgeEvent, JoinToken
from tests.edges.conftest import ENGINE, Clock, Device, join_token_in


def kinds(edge: Edge) -> list[str]:
    return list(edge.events.order_by("id").values_list("kind", flat=True))


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_edge_joins_and_its_session_works(clock: Clock, added: operations.Added) -> None:
    device = Device(clock)

    assert device.join(join_token_in(added.bundle)).status_code == 201
    assert device.checkin().status_code == 200
    assert device.token().status_code == 200
    assert kinds(added.edge) == ["added", "joined", "serving"]
    assert Edge.objects.get().report["engine"]["version"] == "0.1.0"


def test_token_is_stored_only_as_a_hash(added: operations.Added, caplog: pytest.LogCaptureFixture) -> None:
    token = join_token_in(added.bundle)

    stored = str(list(JoinToken.objects.values())) + str(list(EdgeEvent.objects.values()))
    assert token not in stored + caplog.text
    assert added.bundle not in repr(added)


def test_token_is_good_for_almost_a_day(clock: Clock, added: operations.Added) -> None:
    clock.forward(hours=23, minutes=59)
    assert Device(clock).join(join_token_in(added.bundle)).status_code == 201


def test_token_older_than_a_day_is_refused_and_not_spent(clock: Clock, added: operations.Added) -> None:
    clock.forward(hours=24, minutes=1)

    assert code(Device(clock).join(join_token_in(added.bundle))) == (403, "join_token_expired")
    assert JoinToken.objects.get().used_at is None
    assert kinds(added.edge) == ["added", "join_refused"]


def test_trying_an_expired_token_does_not_spend_the_reissued_one(
    clock: Clock, added: operations.Added, owner: User
) -> None:
    clock.forward(hours=25)
    again = operations.reissue_token(actor=owner, edge=added.edge)

    assert code(Device(clock).join(join_token_in(added.bundle))) == (403, "join_token_expired")
    assert Device(clock).join(join_token_in(again.bundle)).status_code == 201


def test_same_key_may_repeat_within_ten_minutes(clock: Clock, added: operations.Added) -> None:
    device, token = Device(clock), join_token_in(added.bundle)
    first = device.join(token).json()
    clock.forward(minutes=9, seconds=59)

    second = device.join(token)
    assert second.status_code == 201
    assert second.json()["edge"] == first["edge"]
    assert device.checkin().status_code == 200
    assert kinds(added.edge).count("joined") == 1


def test_same_key_is_refused_after_ten_minutes(clock: Clock, added: operations.Added) -> None:
    device, token = Device(clock), join_token_in(added.bundle)
    device.join(token)
    clock.forward(minutes=10, seconds=1)

    assert code(device.join(token)) == (403, "join_token_used")
    assert device.checkin().status_code == 200, "its session goes on"


def test_other_key_is_refused_and_people_can_see_it(clock: Clock, added: operations.Added) -> None:
    token, thief = join_token_in(added.bundle), Device(clock)
    Device(clock).join(token)

    assert code(thief.join(token)) == (403, "join_token_used")
    refusal = added.edge.events.first()
    assert refusal and refusal.kind == "join_refused"
    assert refusal.detail["code"] == "join_token_used"
    assert refusal.detail["key_thumbprint"]


def test_refusals_cannot_fill_the_history(clock: Clock, added: operations.Added) -> None:
    token = join_token_in(added.bundle)
    Device(clock).join(token)
    for _ in range(5):
        Device(clock).join(token)

    assert kinds(added.edge).count("join_refused") == 1


def test_unknown_token_is_refused(clock: Clock, db: None) -> None:
    assert code(Device(clock).join("26fc1cb8-2512-4be7-94de-6464b50d638b")) == (403, "join_token_unknown")


def test_token_is_read_in_any_case(clock: Clock, added: operations.Added) -> None:
    assert Device(clock).join(join_token_in(added.bundle).upper()).status_code == 201


def test_reissued_token_replaces_the_key_and_keeps_the_edge(
    clock: Clock, device: Device, edge: Edge, owner: User
) -> None:
    before = list(edge.events.values_list("id", flat=True))
    again = operations.reissue_token(actor=owner, edge=edge)
    assert device.checkin().status_code == 200, "the old session goes on until the new token is used"

    newcomer = Device(clock)
    assert newcomer.join(join_token_in(again.bundle)).json()["edge"] == device.joined["edge"]
    assert code(device.checkin()) == (401, "token_invalid")
    assert code(device.token()) == (401, "invalid_assertion")
    assert newcomer.checkin().status_code == 200
    assert set(before) <= set(edge.events.values_list("id", flat=True))


def test_first_key_may_not_repeat_once_another_took_over(clock: Clock, added: operations.Added, owner: User) -> None:
    first, token = Device(clock), join_token_in(added.bundle)
    first.join(token)
    again = operations.reissue_token(actor=owner, edge=added.edge)
    assert Device(clock).join(join_token_in(again.bundle)).status_code == 201

    assert code(first.join(token)) == (403, "join_token_used")


def test_reissue_ends_the_earlier_unused_token(clock: Clock, added: operations.Added, owner: User) -> None:
    again = operations.reissue_token(actor=owner, edge=added.edge)

    refused = Device(clock).join(join_token_in(added.bundle))
    assert code(refused) == (403, "join_token_expired")
    assert "newer bundle" in refused.json()["message"]
    assert Device(clock).join(join_token_in(again.bundle)).status_code == 201


@pytest.mark.parametrize(("verb", "refusal"), [("remove_edge", "edge_removed"), ("ban_edge", "edge_banned")])
def test_shut_out_edge_cannot_join(clock: Clock, added: operations.Added, owner: User, verb: str, refusal: str) -> None:
    getattr(operations, verb)(actor=owner, edge=added.edge)

    assert code(Device(clock).join(join_token_in(added.bundle))) == (403, refusal)
    assert JoinToken.objects.get().used_at is None


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda jwk: jwk.pop(name)


def with_(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda jwk: jwk.update(members)


@pytest.mark.parametrize(
    "spoil",
    [
        with_(kty="RSA"),
        with_(crv="P-384"),
        with_(d="x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"),
        with_(y="x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a1"),
        with_(x="AAAA"),
        with_(x="f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU="),
        with_(x="f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEV"),
        with_(x="f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVE+"),
        with_(x="é" * 43),
        with_(x=7),
        without("y"),
    ],
)
def test_key_that_is_none_is_refused_and_spends_nothing(
    clock: Clock, added: operations.Added, spoil: Callable[[dict[str, Any]], None]
) -> None:
    jwk: dict[str, Any] = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    spoil(jwk)
    body = {"join_token": join_token_in(added.bundle), "public_key": jwk, "engine": ENGINE}

    assert code(APIClient().post("/edge/v1/join", body)) == (400, "invalid")
    assert JoinToken.objects.get().used_at is None


def test_joins_from_one_address_are_limited(clock: Clock, db: None) -> None:
    token = "26fc1cb8-2512-4be7-94de-6464b50d638b"
    answers = [Device(clock).join(token) for _ in range(61)]

    assert {answer.status_code for answer in answers[:60]} == {403}
    assert code(answers[60]) == (429, "rate_limited")
    assert int(answers[60]["Retry-After"]) >= 1
    assert "server_time" in answers[60].json()


def test_client_cannot_choose_the_address_it_is_limited_by(db: None) -> None:
    for number in range(60):
        APIClient().post("/edge/v1/join", {}, HTTP_X_FORWARDED_FOR=f"203.0.113.{number}")

    assert APIClient().post("/edge/v1/join", {}, HTTP_X_FORWARDED_FOR="203.0.113.99").status_code == 429


def test_sites_behind_our_proxy_are_limited_each_for_itself(db: None, settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    for _ in range(60):
        APIClient().post("/edge/v1/join", {}, HTTP_X_FORWARDED_FOR="198.51.100.7, 203.0.113.1")

    assert APIClient().post("/edge/v1/join", {}, HTTP_X_FORWARDED_FOR="9.9.9.9, 203.0.113.1").status_code == 429
    assert APIClient().post("/edge/v1/join", {}, HTTP_X_FORWARDED_FOR="203.0.113.1, 203.0.113.2").status_code == 400
