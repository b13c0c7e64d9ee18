"""Who is answered how by every verb of every address of the REST API.

A call that is not listed here fails the first test, and so does an address of the center that no list of its kind has:
whoever adds one says who may use it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient

from catalog.models import User
from drift.models import Baseline
from logs.asked import folder_of
from logs.export_files import path_of
from logs.models import LogExport
from publishing import operations as publishing
from publishing.models import GoldenRequest, Publish
from tests.drift.conftest import FIELD, make_assay  # noqa: F401
from tests.logs.conftest import device, make_device, make_publish  # noqa: F401
from tests.opscenter.test_page_access import PROGRAMS, things  # noqa: F401

# Owner, collaborator, viewer and stranger: whether they may, else how they are refused. Nobody is always told 401.
MAY = None
SEE, EDIT, OWN = (MAY, MAY, MAY, 404), (MAY, MAY, 403, 404), (MAY, 403, 403, 404)
EVERYBODY, ADMINISTRATORS = (MAY, MAY, MAY, MAY), (403, 403, 403, 403)
CALLS = {
    ("api-me", "get"): EVERYBODY,
    ("api-workspaces", "get"): EVERYBODY,
    ("api-workspaces", "post"): EVERYBODY,
    ("api-workspace", "get"): SEE,
    ("api-members", "get"): SEE,
    ("api-members", "post"): OWN,
    ("api-member", "delete"): (MAY, MAY, 403, 404),  # it is the collaborator's, who may leave
    ("api-models", "get"): SEE,
    ("api-models", "post"): EDIT,
    ("api-pipelines", "get"): SEE,
    ("api-pipelines", "post"): EDIT,
    ("api-model", "get"): SEE,
    ("api-model-versions", "get"): SEE,
    ("api-model-version", "get"): SEE,
    ("api-model-configs", "post"): EDIT,
    ("api-pipeline", "get"): SEE,
    ("api-pipeline-versions", "get"): SEE,
    ("api-pipeline-versions", "post"): EDIT,
    ("api-pipeline-version", "get"): SEE,
    ("api-publishes", "get"): SEE,
    ("api-publishes", "post"): EDIT,
    ("api-publish", "get"): SEE,
    ("api-publish-golden", "get"): SEE,
    ("api-publish-retry", "post"): EDIT,
    ("api-publish-cancel", "post"): EDIT,
    ("api-registry-check", "post"): ADMINISTRATORS,
    ("api-engine-images", "get"): ADMINISTRATORS,
    ("api-engine-images", "put"): ADMINISTRATORS,
    ("api-engine-images-check", "post"): ADMINISTRATORS,
    ("api-signing-keys", "get"): EVERYBODY,
    ("api-signing-keys", "post"): ADMINISTRATORS,
    ("api-signing-key", "get"): EVERYBODY,
    ("api-signing-key", "patch"): ADMINISTRATORS,
    ("api-signing-key-pem", "get"): EVERYBODY,
    ("api-registry-settings", "get"): ADMINISTRATORS,
    ("api-registry-settings", "put"): ADMINISTRATORS,
    ("api-publish-edges", "get"): SEE,
    ("api-publish-edges", "post"): EDIT,
    ("api-publish-edges-bulk", "post"): EDIT,
    ("api-publish-edge-bundles", "post"): EDIT,
    ("api-fleet-tokens", "get"): SEE,
    ("api-fleet-tokens", "post"): EDIT,
    ("api-fleet-token-revoke", "post"): EDIT,
    ("api-fleet-summary", "get"): EVERYBODY,
    ("api-publish-preview", "post"): EDIT,
    ("api-edges", "get"): EVERYBODY,
    ("api-edge", "get"): SEE,
    ("api-edge", "delete"): EDIT,
    ("api-edge-reissue", "post"): EDIT,
    ("api-edge-ban", "post"): EDIT,
    ("api-edge-unban", "post"): EDIT,
    ("api-edge-events", "get"): SEE,
    ("api-edge-explain", "get"): SEE,
    ("api-observability", "get"): EVERYBODY,
    ("api-observability", "put"): ADMINISTRATORS,
    ("api-pipeline-logs", "get"): SEE,
    ("api-pipeline-logs", "post"): EDIT,
    ("api-pipeline-log-gaps", "post"): EDIT,
    ("api-pipeline-log-sources", "get"): SEE,
    ("api-pipeline-log-series", "get"): SEE,
    ("api-pipeline-log-exact", "get"): SEE,
    ("api-pipeline-log-groups", "get"): SEE,
    ("api-pipeline-log-fields", "get"): SEE,
    ("api-pipeline-log-distribution", "get"): SEE,
    ("api-pipeline-log-retention", "get"): SEE,
    ("api-pipeline-log-retention", "put"): OWN,
    ("api-workspace-log-retention", "get"): SEE,
    ("api-workspace-log-retention", "put"): OWN,
    ("api-edge-log-accounting", "get"): SEE,
    ("api-log-exports", "get"): SEE,
    ("api-log-exports", "post"): SEE,  # who may see rows may take them along
    ("api-log-export", "get"): SEE,
    ("api-log-export", "delete"): EDIT,  # it is the owner's; of their own, viewers may too
    ("api-log-export-cancel", "post"): EDIT,
    ("api-log-export-file", "get"): SEE,
    ("api-rollouts", "get"): EVERYBODY,
    ("api-rollouts", "post"): EDIT,
    ("api-rollout-preview", "post"): EDIT,
    ("api-rollout", "get"): SEE,
    ("api-rollout-members", "get"): SEE,
    ("api-rollout-events", "get"): SEE,
    ("api-rollout-pause", "post"): EDIT,
    ("api-rollout-resume", "post"): EDIT,
    ("api-rollout-abort", "post"): EDIT,
    ("api-pipeline-assays", "get"): SEE,
    ("api-pipeline-assays", "post"): EDIT,
    ("api-pipeline-assay-preview", "post"): SEE,
    ("api-pipeline-assay-baselines", "get"): SEE,
    ("api-pipeline-assay-baselines", "post"): EDIT,
    ("api-assay-baseline", "delete"): EDIT,
    ("api-assay", "get"): SEE,
    ("api-assay", "patch"): EDIT,
    ("api-assay", "delete"): EDIT,
    ("api-assay-pause", "post"): EDIT,
    ("api-assay-resume", "post"): EDIT,
    ("api-assay-results", "get"): SEE,
    ("api-pipeline-version-infer", "post"): EDIT,
    ("sdk-topic-name", "post"): SEE,
    ("sdk-topic", "get"): SEE,
    ("sdk-topic-records", "post"): SEE,
}
# Without a login: the way to one, and the API's own description.
OPEN = {("api-login", "post"), ("schema", "get"), ("api-docs", "get")}
VERBS = ("get", "post", "put", "patch", "delete")
ASSAY = {
    "name": "more",
    "model": "house-price",
    "field_path": FIELD,
    "baseline": {"start": "2026-11-20T00:00:00Z", "end": "2026-11-20T01:00:00Z"},
}
SENT: dict[tuple[str, str], dict[str, Any]] = {
    ("api-workspaces", "post"): {"name": "annex"},
    ("api-members", "post"): {"email": "stranger@example.com", "role": "viewer"},
    ("api-engine-images", "put"): {"images": "ghcr.io/a/engine:1"},
    ("api-signing-keys", "post"): {"name": "more"},
    ("api-signing-key", "patch"): {"active": False},
    ("api-registry-settings", "put"): {"registry": "reg.example.com", "repository": "ml", "enabled": True},
    ("api-fleet-tokens", "post"): {"pattern": "gate-{n}", "max_edges": 2},
    ("api-observability", "put"): {"enabled": False},
    ("api-pipeline-log-gaps", "post"): {
        "epoch": "1d0a9c1e-8a3e-4a53-9a53-3f3ff1a0a6a5",
        "first": 1,
        "last": 2,
        "count": 2,
        "reason": "lost",
    },
    ("api-pipeline-assays", "post"): ASSAY,
    ("api-pipeline-assay-preview", "post"): ASSAY,
}
QUERIES = {
    ("api-pipeline-log-gaps", "post"): "?source=press-7",
    ("api-pipeline-log-distribution", "get"): f"?field={FIELD}",
    ("api-pipeline-assay-baselines", "post"): f"?field_path={FIELD}",
    ("api-pipeline-logs", "post"): (
        "?source=press-7&epoch=1d0a9c1e-8a3e-4a53-9a53-3f3ff1a0a6a5&first=1&pipeline_version={version}"
    ),
}
# The other programs' addresses: each kind is refused by its own rules, which its own tests know.
KINDS = {"api/", "v1/", "edge/", "v2/", "admin/", "healthz", "readyz", "metrics", "favicon.ico"}
DEVICES = {"edge-join", "edge-token", "edge-checkin", "edge-desired", "edge-jwks", "edge-logs", "edge-gaps"}
REGISTRY = {"version", "upload-start", "upload", "blob", "manifest", "tag-list", "referrer-list", "nowhere"}


def addresses(patterns: Any = None, before: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Route and pattern of everything that the center answers."""
    for one in get_resolver().url_patterns if patterns is None else patterns:
        route = before + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from addresses(one.url_patterns, route)
        else:
            yield route, one


def calls() -> Iterator[tuple[str, str, str]]:
    """Name, verb and route of every call of the API."""
    for route, one in addresses():
        if route.startswith(("api/", "v1/")):
            kind = one.callback.cls  # type: ignore[attr-defined]
            yield from ((str(one.name), verb, route) for verb in VERBS if hasattr(kind, verb))


@pytest.fixture
def parts(things: dict[str, Any], device: Any, owner: User, settings: Any) -> dict[str, Any]:  # noqa: F811
    """What the addresses are about, by the word before it."""
    administrator = User.objects.create_superuser("admin@example.com", "admin-password-1")
    key = publishing.create_signing_key(actor=administrator, name="first")
    publish = Publish.objects.get()
    publish.golden = GoldenRequest.objects.create(
        pipeline_version=device.version, digest="sha256:" + "0" * 64, records=1, content="{}"
    )
    publish.save()
    export = LogExport.objects.get()
    export.files.create(number=1, rows=1, size=2)
    file = path_of(folder_of(export.pk), 1, export.format)
    file.parent.mkdir(parents=True)
    file.write_text("[]", encoding="ascii")
    baseline = Baseline.objects.create(pipeline=device.version.pipeline, count=0, created_by=owner, numbers=b"")
    return things | {
        "exports": export.pk,
        "files": 1,
        "signing-keys": key.pk,
        "baselines": baseline.pk,
        "version": device.version.uuid,
        "topic": f"pipeline-{things['pipelines']}",
    }


def address_of(name: str, verb: str, route: str, parts: dict[str, Any]) -> str:
    words, about = [], ""
    for word in route.split("/"):
        words.append(str(parts[about]) if word.startswith("<") else word)
        about = word if word in parts else about
    return "/" + "/".join(words) + QUERIES.get((name, verb), "").format(version=parts["version"])


def sent_by(parts: dict[str, Any], name: str, verb: str) -> dict[str, Any]:
    """What a call needs so that who asks is what decides."""
    publish = {"publish": parts["publishes"], "replaces": [parts["publishes"]]}
    about = {
        "api-publish-preview": {"pipeline_version": parts["pipeline-versions"], "replaces": [parts["publishes"]]},
        "api-rollouts": publish,
        "api-rollout-preview": publish,
        "sdk-topic-name": {"pipeline_pk_id": parts["pipelines"]},
    }
    return SENT.get((name, verb)) or about.get(name, {})


def status_of(client: APIClient, name: str, verb: str, address: str, sent: dict[str, Any]) -> int:
    """How a call is answered, which changes nothing."""
    with transaction.atomic():
        asked = getattr(client, verb)
        if (name, verb) == ("api-pipeline-assay-baselines", "post"):
            answer = asked(address, b"", content_type="application/octet-stream")
        else:
            answer = asked(address) if verb == "get" else asked(address, sent, format="json")
        answer.getvalue()  # read to its end a stream closes its file; close() would close the database too
        transaction.set_rollback(True)
    return int(answer.status_code)


def may(status: int, *, whoever_asks: bool) -> bool:
    """Whether somebody was let in. What is wrong with what was sent says so only where others are refused before."""
    return status < 400 or status in {409, 415} or (status == 400 and not whoever_asks)


def test_every_call_of_the_api_is_listed_and_every_listed_one_is_there() -> None:
    assert {(name, verb) for name, verb, _ in calls()} == set(CALLS) | OPEN


def test_no_address_of_the_center_is_of_no_kind() -> None:
    """Pages are listed in test_page_access.py, the console's in test_console.py, and the API's here."""
    assert set(PROGRAMS) == KINDS
    assert {one.name for route, one in addresses() if route.startswith("edge/")} == DEVICES
    assert {one.name for route, one in addresses() if route.startswith("v2/")} == REGISTRY
    assert {route for route, _ in addresses() if route.startswith(("healthz", "readyz", "metrics", "favicon"))} <= KINDS


def test_everybody_is_answered_as_listed_by_every_call(
    api: Callable[..., APIClient],
    owner: User,
    member: User,
    viewer: User,
    stranger: User,
    parts: dict[str, Any],
) -> None:
    clients, wrong = [api(user) for user in (owner, member, viewer, stranger)], {}
    # What is deleted from a folder does not come back with the row.
    for name, verb, route in sorted(calls(), key=lambda call: call[1] == "delete"):
        if (name, verb) in OPEN:
            continue
        address = address_of(name, verb, route, parts)
        sent, wanted = sent_by(parts, name, verb), CALLS[name, verb]
        found = [status_of(client, name, verb, address, sent) for client in clients]
        for status, refusal in zip(found, wanted, strict=True):
            if not (may(status, whoever_asks=wanted == EVERYBODY) if refusal is MAY else status == refusal):
                wrong[f"{verb} {address}"] = f"{found} instead of {wanted}"
        if (status := status_of(api(), name, verb, address, sent)) != 401:
            wrong[f"{verb} {address}, nobody"] = str(status)
    assert not wrong


def test_no_call_with_a_login_of_the_pages_changes_anything_without_their_token(
    owner: User, parts: dict[str, Any]
) -> None:
    """Another site can make a browser send these with its cookie."""
    client, wrong = Client(enforce_csrf_checks=True), {}
    client.force_login(owner)
    for name, verb, route in calls():
        if verb == "get" or (name, verb) in OPEN:
            continue
        address = address_of(name, verb, route, parts)
        answer = getattr(client, verb)(address, sent_by(parts, name, verb), content_type="application/json")
        if answer.status_code != 403 or "CSRF" not in answer.content.decode():
            wrong[f"{verb} {address}"] = answer.status_code
    assert not wrong


def test_no_answer_of_the_api_is_framed_or_guessed_to_be_a_page(
    browser: Callable[..., Client], owner: User, parts: dict[str, Any]
) -> None:
    client, wrong = browser(owner), {}
    for name, verb, route in calls():
        answer = client.get(address_of(name, verb, route, parts))
        held = (answer["X-Frame-Options"], answer["X-Content-Type-Options"])
        if held != ("DENY", "nosniff") or "frame-ancestors 'none'" not in answer["Content-Security-Policy"]:
            wrong[name] = dict(answer.headers)
        answer.getvalue()
    assert not wrong
