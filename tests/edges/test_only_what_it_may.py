"""An edge reads what it should serve and writes its own logs. Nothing else, and not a request longer than it may."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient

from catalog.models import User
from edges import operations
from edges.models import Edge, EdgeEvent
from tests.edges.conftest import Clock, Device, golden

VALUES = {"uuid": "3b49fba8-94d8-4fca-aecc-c75257fd16c6", "int": "1", "str": "x", "slug": "x", "path": "x"}
OPEN_TO_ALL = 12  # such as the login page and whether we are healthy
VERBS = ("get", "post", "delete")


def addresses(patterns: Any = None, before: str = "/") -> Iterator[str]:
    """Every address of the center but the device API, with something in its variable parts."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, before + _text(pattern))
        elif isinstance(pattern, URLPattern) and not before.startswith("/edge/"):
            yield before + _text(pattern)


def _text(pattern: URLPattern | URLResolver) -> str:
    text = re.sub(r"<(?:(\w+):)?\w+>", lambda found: VALUES.get(found[1] or "str", "x"), str(pattern.pattern))
    return re.sub(r"\(\?P<\w+>[^)]*\)|[\^$?\\]", lambda found: "x" if found[0].startswith("(") else "", text)


def test_every_address_is_found() -> None:
    found = set(addresses())
    assert len(found) > 80
    assert {"/api/v1/rollouts", "/api/v1/edges", f"/api/v1/edges/{VALUES['uuid']}/ban"} <= found


@pytest.mark.parametrize("verb", VERBS)
def test_token_of_an_edge_opens_nothing_for_it(device: Device, edge: Edge, verb: str, settings: Any) -> None:
    settings.EDGE_CALLS_PER_MINUTE = 10_000
    before, opened = EdgeEvent.objects.count(), 0
    for address in addresses():
        mine = address.replace(VALUES["uuid"], str(edge.pk))
        answer, nobodys = getattr(device.client, verb)(mine), getattr(APIClient(), verb)(mine)
        assert answer.status_code == nobodys.status_code, (verb, mine)
        opened += answer.status_code < 300
    assert opened <= OPEN_TO_ALL
    assert EdgeEvent.objects.count() == before


def removed(edge: Edge, owner: User, clock: Clock) -> str:
    operations.remove_edge(actor=owner, edge=edge)
    return "edge_removed"


def banned(edge: Edge, owner: User, clock: Clock) -> str:
    operations.ban_edge(actor=owner, edge=edge)
    return "edge_banned"


def expired(edge: Edge, owner: User, clock: Clock) -> str:
    Edge.objects.filter(pk=edge.pk).update(last_contact=clock.now - timedelta(days=7), session_lapses_at=clock.now)
    return "session_expired"


@pytest.mark.parametrize("shut_out", [removed, banned, expired])
@pytest.mark.parametrize(
    ("verb", "address", "body"),
    [
        ("post", "checkin", golden("checkin.request.json")),
        ("get", "desired", None),
        ("post", "gaps", golden("gaps.request.json")),
        ("post", "logs?epoch=1d0a9c1e-8a3e-4a53-9a53-3f3ff1a0a6a5&first=1&pipeline_version=x", None),
        ("post", "token", None),
    ],
)
def test_edge_that_was_shut_out_is_refused_at_its_next_request(
    clock: Clock,
    device: Device,
    edge: Edge,
    owner: User,
    shut_out: Callable[..., str],
    verb: str,
    address: str,
    body: Any,
) -> None:
    if address == "token":
        body = {**golden("token.request.json"), "client_assertion": device.assertion()}
    code = shut_out(edge, owner, clock)
    contact = Edge.objects.get().last_contact
    answer = getattr(device.client, verb)(f"/edge/v1/{address}", body)

    assert (answer.status_code, answer.json()["code"]) == (403, code)
    assert Edge.objects.get().last_contact == contact, "and that is no contact"
