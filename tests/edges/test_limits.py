"""Every device call is limited, per address and per edge."""

import os
from typing import Any

import pytest
import redis
from rest_framework.test import APIClient

from common.errors import RateLimited
from edges import limits, operations
from edges.limits import Count
from tests.edges.conftest import Device, join_token_in

CALLS = [
    ("post", "join"),
    ("post", "token"),
    ("post", "checkin"),
    ("get", "desired"),
    ("get", "jwks"),
    ("post", "logs"),
    ("post", "gaps"),
]


@pytest.mark.parametrize(("method", "call"), CALLS)
def test_address_is_limited_on_every_call(db: None, settings: Any, method: str, call: str) -> None:
    settings.EDGE_ADDRESS_CALLS_PER_MINUTE = 3
    answers = [getattr(APIClient(), method)(f"/edge/v1/{call}", {}) for _ in range(4)]

    assert 429 not in {answer.status_code for answer in answers[:3]}
    assert (answers[3].status_code, answers[3].json()["code"]) == (429, "rate_limited")
    assert int(answers[3]["Retry-After"]) >= 1
    assert "server_time" in answers[3].json()


@pytest.mark.parametrize(("method", "call"), [one for one in CALLS if one[1] not in {"join", "token", "jwks"}])
def test_edge_is_limited_on_every_call_of_its_session(device: Device, settings: Any, method: str, call: str) -> None:
    settings.EDGE_CALLS_PER_MINUTE = 2
    answers = [getattr(device.client, method)(f"/edge/v1/{call}", {}) for _ in range(3)]

    assert [answer.status_code == 429 for answer in answers] == [False, False, True]


def test_one_edge_does_not_use_up_anothers(device: Device, settings: Any, owner: Any, edge: Any) -> None:
    settings.EDGE_CALLS_PER_MINUTE = 2
    other = Device(device.clock)
    other.join(join_token_in(operations.add_edge(actor=owner, publish=edge.publish, name="b").bundle))
    for _ in range(3):
        device.checkin()

    assert other.checkin().status_code == 200


@pytest.mark.parametrize("call", ["join", "token", "checkin", "gaps"])
def test_body_is_bounded_before_it_is_read(db: None, call: str) -> None:
    class Unread:
        def read(self, *args: Any) -> bytes:
            raise AssertionError("the body was read")

        readline = read

    answer = APIClient().generic(
        "POST",
        f"/edge/v1/{call}",
        b"",
        CONTENT_LENGTH="16385",
        CONTENT_TYPE="application/json",
        **{"wsgi.input": Unread()},
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "page_too_large")


def test_window_begins_anew(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.REDIS_URL = ""
    moment = [100.0]
    monkeypatch.setattr("edges.limits.time.monotonic", lambda: moment[0])
    limits.spend(Count("calls", "a", 1))
    with pytest.raises(RateLimited) as refused:
        limits.spend(Count("calls", "a", 1))
    assert refused.value.data["retry_after"] == 60
    moment[0] += 60
    limits.spend(Count("calls", "a", 1))


def test_strangers_cannot_make_the_counter_grow(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.REDIS_URL = ""
    monkeypatch.setattr(limits, "CALLERS", 10)
    for number in range(100):
        limits.spend(Count("calls", str(number), 1))
    assert len(limits._local._windows) <= 10


def test_counts_are_shared_by_redis(settings: Any, socket_enabled: None) -> None:
    url = os.environ.get("TEST_REDIS_URL")
    if not url:
        pytest.skip("TEST_REDIS_URL is not set: no Redis on this machine")
    redis.Redis.from_url(url).flushdb()
    settings.REDIS_URL = url
    try:
        limits.spend(Count("calls", "a", 1), Count("calls", "b", 2))
        limits.forget()
        with pytest.raises(RateLimited):
            limits.spend(Count("calls", "a", 1))
        limits.spend(Count("calls", "b", 2))
    finally:
        limits._client.cache_clear()


def test_redis_that_is_gone_shuts_no_edge_out(settings: Any, socket_enabled: None) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    try:
        limits.spend(Count("calls", "a", 1))
        with pytest.raises(RateLimited):
            limits.spend(Count("calls", "a", 1))
    finally:
        limits._client.cache_clear()
