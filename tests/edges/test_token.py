import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from catalog.models import User
from edges import contacts, jobs, jwts, operations, sessions
from edges.errors import InvalidAssertion, TokenInvalid
from edges.models import Edge, SigningKey, UsedAssertion
from tests.edges.conftest import Clock, Device, join_token_in


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_assertion_gives_an_access_token_that_works(clock: Clock, device: Device) -> None:
    clock.forward(minutes=61)
    assert code(device.checkin()) == (401, "token_expired")

    assert device.token().status_code == 200
    assert device.checkin().status_code == 200


def test_access_token_is_a_jwt_svid(clock: Clock, device: Device, edge: Edge) -> None:
    token = device.token().json()["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})

    header = jwt.get_unverified_header(token)
    assert header == {"alg": "ES256", "typ": "JWT", "kid": SigningKey.objects.get().kid}
    assert claims["sub"] == f"spiffe://opscenter/ns/deployments/edge/{edge.pk}"
    assert claims["aud"] == [sessions.audience()]
    assert claims["exp"] == int(clock.now.timestamp()) + 3600


@pytest.mark.parametrize("span", [{"minutes": 4}, {"minutes": -4}])
def test_clock_that_is_a_little_off_is_forgiven(clock: Clock, device: Device, span: dict[str, float]) -> None:
    clock.forward(hours=1)
    assertion = device.assertion()
    clock.forward(**span)

    assert device.token(assertion).status_code == 200


@pytest.mark.parametrize("span", [{"minutes": 6}, {"minutes": -6}])
def test_clock_that_is_far_off_is_refused(clock: Clock, device: Device, span: dict[str, float]) -> None:
    clock.forward(hours=1)
    assertion = device.assertion()
    clock.forward(**span)

    refused = device.token(assertion)
    assert code(refused) == (401, "invalid_assertion")
    assert "server_time" in refused.json()["message"]


def test_assertion_works_once(device: Device) -> None:
    assertion = device.assertion()

    assert device.token(assertion).status_code == 200
    assert code(device.token(assertion)) == (401, "invalid_assertion")


def test_two_edges_may_use_the_same_jti(clock: Clock, device: Device, owner: User, edge: Edge) -> None:
    other = Device(clock)
    added = operations.add_edge(actor=owner, publish=edge.publish, name="houseprice-edge-02")
    other.join(join_token_in(added.bundle))

    assert device.token(device.assertion(jti="1")).status_code == 200
    assert other.token(other.assertion(jti="1")).status_code == 200


def test_replay_is_remembered_for_as_long_as_it_could_work(clock: Clock, device: Device) -> None:
    assertion = device.assertion()
    device.token(assertion)
    clock.forward(minutes=5, seconds=59)
    jobs.prune_assertions(clock.now)
    assert code(device.token(assertion)) == (401, "invalid_assertion")

    clock.forward(seconds=1)
    assert jobs.prune_assertions(clock.now) == 1
    assert not UsedAssertion.objects.exists()
    assert code(device.token(assertion)) == (401, "invalid_assertion")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://other.example.com/edge/v1/token"},
        {"aud": None},
        {"aud": []},
        {"iss": "spiffe://opscenter/ns/deployments/edge/9f9d9afa-b6bc-4a75-b811-2a56da74f02b"},
        {"iss": None},
        {"sub": "spiffe://elsewhere/ns/deployments/edge/9f9d9afa-b6bc-4a75-b811-2a56da74f02b"},
        {"sub": None},
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 256},
        {"jti": 7},
        {"exp": None},
        {"iat": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 10**30},
        {"iat": float("nan")},
    ],
)
def test_wrong_claim_is_refused(device: Device, changes: dict[str, Any]) -> None:
    assert code(device.token(device.assertion(**changes))) == (401, "invalid_assertion")


def test_two_audiences_are_refused(device: Device) -> None:
    endpoint = device.joined["session"]["token_endpoint"]

    assert code(device.token(device.assertion(aud=[endpoint, "https://x.example"]))) == (401, "invalid_assertion")
    assert device.token(device.assertion(aud=[endpoint])).status_code == 200


def test_life_of_more_than_five_minutes_is_refused(clock: Clock, device: Device) -> None:
    issued = int(clock.now.timestamp())

    assert code(device.token(device.assertion(exp=issued + 301))) == (401, "invalid_assertion")
    assert code(device.token(device.assertion(exp=issued))) == (401, "invalid_assertion")
    assert device.token(device.assertion(exp=issued + 300)).status_code == 200


def test_other_trust_domain_is_refused(device: Device, edge: Edge) -> None:
    stranger = f"spiffe://elsewhere/ns/deployments/edge/{edge.pk}"

    assert code(device.token(device.assertion(iss=stranger, sub=stranger))) == (401, "invalid_assertion")


def test_other_key_is_refused(clock: Clock, device: Device) -> None:
    forged = jwt.encode(device.claims(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256")

    assert code(device.token(forged)) == (401, "invalid_assertion")


def test_no_signature_is_refused(device: Device) -> None:
    assert code(device.token(jwt.encode(device.claims(), None, algorithm="none"))) == (401, "invalid_assertion")


def test_public_key_used_as_hmac_secret_is_refused(device: Device) -> None:
    pem = device.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header, claims = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, device.claims())
    )
    hmac = jwt.algorithms.get_default_algorithms()["HS256"]
    # PyJWT itself refuses to sign with such a key, so the parts are put together by hand.
    signature = hmac.sign(header + b"." + claims, pem)
    forged = b".".join([header, claims, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()

    assert code(device.token(forged)) == (401, "invalid_assertion")


@pytest.mark.parametrize("headers", [{"jku": "https://x.example/keys"}, {"crit": ["exp"]}, {"jwk": {"kty": "EC"}}])
def test_headers_that_bring_their_own_key_are_refused(device: Device, headers: dict[str, Any]) -> None:
    forged = jwt.encode(device.claims(), device.key, algorithm="ES256", headers=headers)

    assert code(device.token(forged)) == (401, "invalid_assertion")


@pytest.mark.parametrize("assertion", ["x", "a.b.c", "é.é.é", ".."])
def test_what_is_no_jwt_is_refused(device: Device, assertion: str) -> None:
    assert code(device.token(assertion)) == (401, "invalid_assertion")


def test_edge_that_never_joined_gets_no_token(clock: Clock, device: Device, owner: User, edge: Edge) -> None:
    other = operations.add_edge(actor=owner, publish=edge.publish, name="houseprice-edge-02").edge
    claims = {"iss": other.spiffe_id, "sub": other.spiffe_id}

    assert code(device.token(device.assertion(**claims))) == (401, "invalid_assertion")


def test_session_lives_almost_seven_days_without_contact(clock: Clock, device: Device) -> None:
    clock.forward(days=6, hours=23)

    assert device.token().status_code == 200
    clock.forward(days=6, hours=23)
    assert device.token().status_code == 200, "every contact moves the end on"


def test_session_ends_after_seven_days_without_contact(clock: Clock, device: Device, edge: Edge) -> None:
    clock.forward(days=7, hours=1)

    assert code(device.token()) == (403, "session_expired")
    refusal = edge.events.first()
    assert refusal and (refusal.kind, refusal.detail["code"]) == ("token_refused", "session_expired")


def test_reissue_revives_a_lapsed_edge_with_its_history(clock: Clock, device: Device, edge: Edge, owner: User) -> None:
    clock.forward(days=30)
    assert code(device.token()) == (403, "session_expired")
    again = operations.reissue_token(actor=owner, edge=edge)

    assert device.join(join_token_in(again.bundle)).status_code == 201
    assert device.checkin().status_code == 200
    assert device.joined["edge"]["id"] == str(edge.pk)
    assert edge.events.count() == 6


@pytest.mark.parametrize(("verb", "refusal"), [("remove_edge", "edge_removed"), ("ban_edge", "edge_banned")])
def test_shut_out_edge_is_refused_at_its_next_request(
    device: Device, edge: Edge, owner: User, verb: str, refusal: str
) -> None:
    getattr(operations, verb)(actor=owner, edge=edge)

    assert code(device.checkin()) == (403, refusal)
    assert code(device.token()) == (403, refusal)


def test_unbanned_edge_goes_on(device: Device, edge: Edge, owner: User) -> None:
    operations.ban_edge(actor=owner, edge=edge)
    operations.unban_edge(actor=owner, edge=edge)

    assert device.checkin().status_code == 200


def test_token_of_another_center_is_refused(clock: Clock, device: Device, edge: Edge) -> None:
    signer = SigningKey.objects.get()
    forged = jwt.encode(
        {"sub": edge.spiffe_id, "aud": [sessions.audience()], "exp": 9999999999, "cnf": {"jkt": edge.key_thumbprint}},
        ec.generate_private_key(ec.SECP256R1()),
        algorithm="ES256",
        headers={"kid": signer.kid},
    )
    device.use(forged)
    assert code(device.checkin()) == (401, "token_invalid")


def test_client_assertion_is_no_access_token(device: Device) -> None:
    device.use(device.assertion())

    assert code(device.checkin()) == (401, "token_invalid")


@pytest.mark.parametrize("header", ["Bearer", "Bearer x", "Bearer a.b.c", "Token abc", "Bearer é", "Basic eDp5"])
def test_what_is_no_access_token_is_refused(device: Device, header: str) -> None:
    device.client.credentials(HTTP_AUTHORIZATION=header)
    response = device.checkin()

    assert code(response) == (401, "token_invalid")
    assert response["WWW-Authenticate"] == "Bearer"


def test_missing_token_is_told(device: Device) -> None:
    device.client.credentials()

    assert code(device.checkin()) == (401, "token_missing")


def test_logged_in_person_is_not_an_edge(device: Device, owner: User) -> None:
    device.client.credentials()
    device.client.force_login(owner)

    assert code(device.checkin()) == (401, "token_missing")


def test_private_key_is_encrypted_at_rest(device: Device) -> None:
    stored = SigningKey.objects.extra(select={"raw": "private_key"}).values_list("raw", flat=True).get()

    assert "PRIVATE KEY" not in stored
    assert "PRIVATE KEY" in SigningKey.objects.get().private_key


def signed(edge: Edge, clock: Clock, audience: str) -> str:
    """An access token that our own key signed."""
    signer = SigningKey.objects.get()
    key = serialization.load_pem_private_key(signer.private_key.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return jwts.sign_access_token(
        subject=edge.spiffe_id,
        audience=audience,
        thumbprint=edge.key_thumbprint,
        key=key,
        kid=signer.kid,
        now=clock.now,
    )


def test_access_token_for_something_else_is_refused(clock: Clock, device: Device, edge: Edge) -> None:
    edge.refresh_from_db()
    device.use(signed(edge, clock, "https://elsewhere.example.com"))
    assert code(device.checkin()) == (401, "token_invalid")

    device.use(signed(edge, clock, sessions.audience()))
    assert device.checkin().status_code == 200


def test_lapsed_session_ends_access_tokens_too(clock: Clock, device: Device, edge: Edge) -> None:
    Edge.objects.update(session_lapses_at=clock.now)

    assert code(device.checkin()) == (403, "session_expired")


def test_edge_that_joined_again_since_it_was_read_is_refused(
    clock: Clock, device: Device, edge: Edge, owner: User
) -> None:
    stale = Edge.objects.get()
    again = operations.reissue_token(actor=owner, edge=edge)
    Device(clock).join(join_token_in(again.bundle))

    with pytest.raises(TokenInvalid):
        contacts.checkin(edge=stale, report={"serving": None})


def test_assertion_for_somebody_else_is_refused(clock: Clock, device: Device, edge: Edge) -> None:
    with pytest.raises(InvalidAssertion, match="SPIFFE ID"):
        jwts.verify_assertion(
            device.assertion(),
            key=device.key.public_key(),
            subject="spiffe://opscenter/ns/deployments/edge/other",
            audience=sessions.token_endpoint(),
            now=clock.now,
        )


def test_only_whole_spiffe_ids_of_this_center_name_an_edge(edge: Edge) -> None:
    assert sessions.edge_named(edge.spiffe_id) == edge
    for name in (f"spiffe://elsewhere/ns/deployments/edge/{edge.pk}", str(edge.pk), edge.spiffe_id + "/", ""):
        assert sessions.edge_named(name) is None


def test_process_that_is_second_to_make_the_signing_key_takes_the_first_ones(
    clock: Clock, added: operations.Added, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, make = Device(clock), ec.generate_private_key

    def late(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        monkeypatch.setattr(ec, "generate_private_key", make)
        sessions.start(added.edge, clock.now)
        return make(curve)

    monkeypatch.setattr(ec, "generate_private_key", late)
    assert device.join(join_token_in(added.bundle)).status_code == 201
    assert SigningKey.objects.count() == 1
    assert device.checkin().status_code == 200
