"""Who is answered how at every address of a page, and what every answer tells browsers.

A page that is not listed here fails the first test: whoever adds one says who may see it.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from catalog.models import ModelVersion, Pipeline, User, Workspace
from drift.models import Assay
from edges import provisioning
from logs.models import LogExport
from publishing import engine_config
from publishing.models import Publish
from rollouts.models import Rollout
from tests.drift.conftest import BEGIN, USUAL, make_assay, ship  # noqa: F401
from tests.logs.busy import Shipper
from tests.logs.conftest import Device, device, make_device, make_publish  # noqa: F401

PEOPLE = ("owner", "member", "viewer", "stranger")
ALL, EDIT, OWN = (200, 200, 200, 404), (200, 200, 403, 404), (200, 403, 403, 404)
MOVED = (302, 302, 302, 404)  # what is a fragment leads to its page
POST_ONLY = (405, 405, 405, 405)
OPEN = (200, 200, 200, 200)  # nobody's in particular

PAGES = {
    "first-steps": OPEN,
    "pipelines": ALL,
    "catalog:workspaces": OPEN,
    "catalog:create-workspace": OPEN,
    "catalog:select-workspace": POST_ONLY,
    "catalog:members": ALL,
    "catalog:remove-member": OWN,
    "catalog:models": ALL,
    "catalog:upload-model": EDIT,
    "catalog:model": ALL,
    "catalog:configure": EDIT,
    "catalog:create-pipeline": EDIT,
    "catalog:create-version": EDIT,
    "publishing:versions": ALL,
    "publishing:version": MOVED,
    "publishing:publish": POST_ONLY,
    "publishing:replace": EDIT,
    "trials:infer": EDIT,
    "publishing:info": ALL,
    "publishing:cancel": POST_ONLY,
    "publishing:retry": POST_ONLY,
    "edges:edges": ALL,
    "edges:add": EDIT,
    "edges:add-many": EDIT,
    "edges:fleet-tokens": ALL,
    "edges:make-fleet-token": EDIT,
    "edges:revoke-fleet-token": EDIT,
    "edges:fleet": ALL,
    "edges:selected": EDIT,
    "edges:of-publish": MOVED,
    "edges:edge": ALL,
    "edges:events": ALL,
    "edges:reissue": EDIT,
    "edges:ban": EDIT,
    "edges:unban": POST_ONLY,
    "edges:remove": EDIT,
    "logs:rows": ALL,
    "logs:charts": ALL,
    "logs:exports": ALL,
    "logs:sources": ALL,
    "logs:accounting": ALL,
    "logs:cancel-export": POST_ONLY,
    "logs:delete-export": ALL,
    "rollouts:rollouts": ALL,
    "rollouts:create": EDIT,
    "rollouts:live": MOVED,
    "rollouts:rollout": ALL,
    "rollouts:events": ALL,
    "rollouts:pause": POST_ONLY,
    "rollouts:resume": POST_ONLY,
    "rollouts:abort": EDIT,
    "drift:assays": ALL,
    "drift:create": EDIT,
    "drift:assay": ALL,
    "drift:change": EDIT,
    "drift:pause": POST_ONLY,
    "drift:resume": POST_ONLY,
    "drift:delete": EDIT,
}
# Answered by the tests of login, or the way of a person to a page that is listed.
ELSEWHERE = {"home", "login", "logout"}
PROGRAMS = ("api/", "edge/", "v2/", "admin/", "healthz", "readyz", "metrics", "v1/", "favicon.ico")
# What viewers may send: they make exports of what they see, and open a workspace.
VIEWERS_SEND = {"catalog:select-workspace", "logs:exports"}
ANYBODY_SENDS = {"catalog:create-workspace"}  # everybody who is logged in may have a workspace


def patterns() -> Iterator[tuple[str, str]]:
    """Name and route of every page."""

    def walk(found: Any, prefix: str, space: str) -> Iterator[tuple[str, str]]:
        for one in found:
            route = prefix + str(one.pattern)
            if isinstance(one, URLResolver):
                inner = f"{one.app_name}:" if one.app_name else space
                yield from walk(one.url_patterns, route, inner)
            elif isinstance(one, URLPattern) and not route.startswith(PROGRAMS):
                yield f"{space}{one.name}", route

    return walk(get_resolver().url_patterns, "", "")


@pytest.fixture
def things(
    device: Device,  # noqa: F811
    make_assay: Callable[..., Assay],  # noqa: F811
    workspace: Workspace,
    owner: User,
    member: User,
) -> dict[str, Any]:
    """One of everything, by the beginning of the addresses that are about it."""
    ship(Shipper(device), BEGIN, USUAL[:100])
    pipeline, publish = device.version.pipeline, Publish.objects.get()
    publish.engine_config = engine_config.checked(None)
    publish.save()
    rollout = Rollout.objects.create(
        publish=publish,
        created_by=owner,
        max_in_flight=1,
        success_percent=100,
        error_percent=0,
        healthy_seconds=1,
        answer_seconds=1,
        auto_rollback=False,
        deadline=timezone.now(),
    )
    token = provisioning.make_fleet_token(actor=owner, publish=publish, pattern="shop-{n}", max_edges=3).token
    export = LogExport.objects.create(
        pipeline=pipeline,
        created_by=owner,
        format="json",
        data_size_limit=1024**2,
        asked={"filters": {}},
    )
    version = ModelVersion.objects.get()
    return {
        "workspaces": workspace.pk,
        "pipelines": pipeline.pk,
        "models": version.model_id,
        "model-versions": version.pk,
        "pipeline-versions": device.version.pk,
        "publishes": publish.pk,
        "edges": device.edge.pk,
        "fleet-tokens": token.pk,
        "rollouts": rollout.pk,
        "assays": make_assay(device).pk,
        "logs": export.pk,
        "members": member.public_id,
    }


def address_of(name: str, route: str, things: dict[str, Any]) -> str:
    parts, about = [], ""
    for part in route.split("/"):
        if part.startswith("<"):
            part = str(things[about])
        elif part in things:
            about = part
        parts.append(part)
    query = f"?verb=ban&edge={things['edges']}" if name == "edges:selected" else ""
    return f"/{'/'.join(parts)}{query}"


def test_every_page_is_listed_and_every_listed_one_is_there() -> None:
    assert {name for name, _ in patterns()} - ELSEWHERE == set(PAGES)


def test_everybody_is_answered_as_listed_at_every_page(
    browser: Callable[..., Client], owner: User, member: User, viewer: User, stranger: User, things: dict[str, Any]
) -> None:
    clients = [browser(user) for user in (owner, member, viewer, stranger)]
    nobody, wrong = browser(), {}
    for name, route in patterns():
        if name in ELSEWHERE:
            continue
        address = address_of(name, route, things)
        found = tuple(client.get(address).status_code for client in clients)
        if found != PAGES[name]:
            wrong[f"{name} {address}"] = f"{found} instead of {PAGES[name]}"
        answer = nobody.get(address)
        if PAGES[name] != POST_ONLY and (answer.status_code, answer["Location"][:6]) != (302, "/login"):
            wrong[f"{name} {address}, nobody"] = str(answer.status_code)
    assert not wrong


def test_no_page_takes_anything_from_who_may_not_send_it(
    browser: Callable[..., Client], viewer: User, stranger: User, things: dict[str, Any]
) -> None:
    wrong = {}
    for (name, route), user in itertools.product(patterns(), (viewer, stranger, None)):
        if name in ELSEWHERE or (user and name in ANYBODY_SENDS) or (user == viewer and name in VIEWERS_SEND):
            continue
        address = address_of(name, route, things)
        given = {"verb": "ban", "edge": str(things["edges"])} if name == "edges:selected" else {}
        status = browser(user).post(address, given).status_code
        refused = {302} if user is None else {403, 404, 405, 422} | ({400} if name in VIEWERS_SEND else set())
        if status not in refused | {405}:
            wrong[f"{name} {address} as {user}"] = status
    assert not wrong


def test_every_page_is_framed_by_nobody_and_runs_only_our_scripts(
    browser: Callable[..., Client], owner: User, things: dict[str, Any]
) -> None:
    client = browser(owner)
    for name, route in patterns():
        if name in ELSEWHERE or PAGES[name] in (POST_ONLY, MOVED):
            continue
        answer = client.get(address_of(name, route, things))
        policy = answer["Content-Security-Policy"]
        assert answer["X-Frame-Options"] == "DENY", name
        assert "frame-ancestors 'none'" in policy, name
        assert "unsafe" not in policy, name
        page = answer.content.decode()
        assert "style=" not in page, name
        assert "<script>" not in page, name
        assert ' onclick="' not in page, name
        assert '\\"' not in page.partition("<main")[2].replace("\\&quot;", ""), f"{name} has a stray backslash"
        assert answer["X-Content-Type-Options"] == "nosniff", name


def test_every_form_of_every_page_needs_its_token(owner: User, things: dict[str, Any]) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    pipelines = Pipeline.objects.count()
    for name, route in patterns():
        if name in ELSEWHERE:
            continue
        status = client.post(address_of(name, route, things), {"name": "x"}).status_code
        assert status in {403, 405}, f"{name}: {status}"
    assert Pipeline.objects.count() == pipelines


def test_pages_without_a_login_and_pages_that_say_no_are_framed_by_nobody(
    browser: Callable[..., Client], stranger: User
) -> None:
    wrong = {}
    for client, address, status in (
        (browser(), "/login", 200),
        (browser(), "/nowhere", 404),
        (browser(stranger), "/pipelines/1000000", 404),
        (Client(enforce_csrf_checks=True), "/logout", 405),
    ):
        answer = client.get(address)
        policy = answer["Content-Security-Policy"]
        held = (answer.status_code, answer["X-Frame-Options"], "frame-ancestors 'none'" in policy, "unsafe" in policy)
        if held != (status, "DENY", True, False):
            wrong[address] = held
    assert not wrong


@pytest.mark.parametrize("address", ["/login", "/logout"])
def test_nobody_is_logged_in_or_out_by_another_site(address: str, owner: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    sent = {"username": "owner@example.com", "password": "owner-password-1"}
    assert client.post(address, sent).status_code == 403
    assert client.get("/workspaces").status_code == 200
