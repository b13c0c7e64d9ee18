"""Server signing keys: rotation that no edge notices, JWKS, retirement, and a key that leaked."""

from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from rest_framework.test import APIClient

from catalog.models import User
from edges import jobs, signing
from edges.models import SigningKey
from tests.edges.conftest import Clock, Device


def published() -> list[dict[str, str]]:
    response = APIClient().get("/edge/v1/jwks")
    assert response.status_code == 200
    keys: list[dict[str, str]] = response.json()["keys"]
    return keys


def kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def test_jwks_verifies_the_token_of_an_edge(device: Device) -> None:
    token = device.joined["session"]["access_token"]
    (key,) = published()

    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}, "nothing private"
    claims = jwt.decode(
        token,
        jwt.PyJWK(key),
        algorithms=["ES256"],
        options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
    )
    assert claims["sub"] == device.joined["edge"]["spiffe_id"]


def test_rotation_breaks_no_edge(clock: Clock, device: Device) -> None:
    old = device.joined["session"]["access_token"]
    clock.forward(minutes=10)
    call_command("rotate_signing_key", verbosity=0)

    assert device.checkin().status_code == 200, "the old token lives on"
    new = device.token().json()["access_token"]
    assert kid(new) != kid(old)
    assert [key["kid"] for key in published()] == [kid(new), kid(old)]
    assert device.checkin().status_code == 200


def test_old_key_goes_when_its_last_token_is_over(clock: Clock, device: Device) -> None:
    first = SigningKey.objects.get()
    clock.forward(minutes=1)
    signing.rotate(clock.now)
    device.use(device.joined["session"]["access_token"])
    clock.forward(minutes=58)
    assert jobs.prune_signing_keys(clock.now) == 0
    assert device.checkin().status_code == 200

    clock.forward(minutes=4)
    assert [key["kid"] for key in published()] == [SigningKey.objects.first().kid]  # type: ignore[union-attr]
    assert jobs.prune_signing_keys(clock.now) == 1
    assert not SigningKey.objects.filter(pk=first.pk).exists()


def test_key_that_leaked_is_forgotten_at_once_and_edges_get_new_tokens(clock: Clock, device: Device) -> None:
    assert device.checkin().status_code == 200
    call_command("rotate_signing_key", "--forget-old", verbosity=0)

    refused = device.checkin()
    assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")
    assert device.token().status_code == 200
    assert device.checkin().status_code == 200


def test_another_process_learns_of_a_rotation_from_the_first_token(clock: Clock, device: Device) -> None:
    ring = signing._ring
    signing.rotate(clock.forward(seconds=5))
    token = device.token().json()["access_token"]
    signing._ring = ring  # as a process that has not read the keys since

    device.use(token)
    assert device.checkin().status_code == 200


def test_keys_are_read_once_for_many_calls(clock: Clock, device: Device, django_assert_num_queries: Any) -> None:
    device.checkin()
    device.checkin()
    with django_assert_num_queries(2):  # the edge is read and written
        device.checkin()


def test_tokens_of_strangers_cost_no_query_a_call(clock: Clock, device: Device, django_assert_num_queries: Any) -> None:
    device.checkin()
    stranger = jwt.encode({"sub": "x"}, device.key, algorithm="ES256", headers={"kid": "unknown"})
    device.use(stranger)
    with django_assert_num_queries(0):
        assert device.checkin().status_code == 401


@pytest.mark.parametrize(("superuser", "keys"), [(True, 2), (False, 1)])
def test_only_an_administrator_rotates_in_the_admin(
    device: Device, owner: User, browser: Any, superuser: bool, keys: int
) -> None:
    owner.is_staff = owner.is_superuser = superuser
    owner.save()
    before = SigningKey.objects.get().kid
    window = browser(owner)
    asked = window.get("/admin/edges/signingkey/rotate/")
    assert (asked.status_code == 200) is superuser and SigningKey.objects.count() == 1
    window.post("/admin/edges/signingkey/rotate/")

    assert SigningKey.objects.count() == keys
    if superuser:
        page = window.get("/admin/edges/signingkey/").content.decode()
        assert before in page and "retired, verifies" in page and "Rotate the key" in page
        assert LogEntry.objects.get().user == owner


def test_ring_from_tomorrow_is_read_again(clock: Clock, device: Device) -> None:
    signing.signer(clock.now + timedelta(days=1))
    assert signing.signer(clock.now).kid == SigningKey.objects.get().kid
