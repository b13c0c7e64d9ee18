"""What operations refuse, and the admin console, in a language that puts every text in brackets.

Whole sentences are in brackets: a part that stays English is a text that was put together. What engines are told stays
English whatever the page before it was in.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.utils.translation import gettext, trans_real
from rest_framework.test import APIClient

from catalog.models import User
from tests.logs.conftest import device, make_device, make_publish  # noqa: F401
from tests.opscenter.test_console import KINDS, addresses, administrator, make_things  # noqa: F401
from tests.opscenter.test_page_access import make_assay, things  # noqa: F401
from tests.opscenter.test_translation import INNERMOST, Bracketed, bracketed, names, untranslated  # noqa: F401

UUID = "00000000-0000-4000-8000-000000000000"
STEP = {"ModelInference": {"models": [{"name": "house-price", "version": UUID}]}}
BOUNDED = {"publish": 999_999, "replaces": [1]}

# Who, how, where, with what, and the code of the refusal. `{pipelines}` is the id of a pipeline, and so on.
REFUSALS: list[tuple[str, str, str, dict[str, Any], str]] = [
    ("owner", "get", "pipelines/999999", {}, "not_found"),
    ("viewer", "post", "workspaces/{workspaces}/pipelines", {"name": "another"}, "forbidden"),
    ("owner", "post", "workspaces", {"name": "factory"}, "name_taken"),
    ("owner", "post", "workspaces/{workspaces}/pipelines", {"name": "houseprice"}, "name_taken"),
    ("owner", "post", "workspaces/{workspaces}/pipelines", {"name": "Not so"}, "invalid"),
    ("owner", "post", "workspaces/{workspaces}/members", {"email": "who@example.com", "role": "viewer"}, "not_found"),
    ("owner", "delete", "workspaces/{workspaces}/members/{owner}", {}, "conflict"),
    ("owner", "delete", "workspaces/{workspaces}/members/" + UUID, {}, "not_found"),
    ("owner", "post", "pipelines/{pipelines}/versions", {"steps": []}, "unusable_definition"),
    ("owner", "post", "pipelines/{pipelines}/versions", {"steps": [{"Guess": {}}]}, "unusable_definition"),
    ("owner", "post", "pipelines/{pipelines}/versions", {"steps": [{"Nth": {"index": 0}}]}, "unusable_definition"),
    ("owner", "post", "pipelines/{pipelines}/versions", {"steps": [STEP]}, "unusable_definition"),
    ("owner", "post", "pipelines/{pipelines}/versions", {"steps": [{"Check": {"tree": ["x"]}}]}, "unusable_definition"),
    ("owner", "post", "pipelines/{pipelines}/publishes", {}, "registry_not_configured"),
    ("owner", "post", "pipelines/{pipelines}/publishes", {"pipeline_version": 999_999}, "not_found"),
    ("owner", "post", "publishes/{publishes}/cancel", {}, "not_running"),
    ("owner", "get", "publishes/{publishes}/golden", {}, "not_found"),
    ("owner", "get", "signing-keys/999999", {}, "not_found"),
    ("owner", "get", "registry-settings", {}, "forbidden"),
    ("owner", "get", "engine-images", {}, "forbidden"),
    ("owner", "post", "publishes/{publishes}/edges", {"name": "houseprice-edge-01"}, "edge_name_taken"),
    ("owner", "post", "publishes/{publishes}/edges", {"name": "no name"}, "invalid"),
    ("owner", "post", "publishes/{publishes}/edges", {"name": "a", "memory": "much"}, "invalid"),
    ("owner", "post", "publishes/{publishes}/edges/bulk", {"edges": [{"name": "a"}, {"name": "a"}]}, "invalid"),
    ("owner", "post", "publishes/{publishes}/edges/bulk", {"edges": [{"name": "no name"}]}, "invalid"),
    ("owner", "post", "publishes/{publishes}/fleet-tokens", {"pattern": "shop", "max_edges": 1}, "invalid"),
    ("owner", "post", "rollouts", {"publish": "{publishes}", "replaces": ["{publishes}"]}, "invalid"),
    ("owner", "post", "rollouts/{rollouts}/resume", {}, "rollout_state"),
    ("owner", "get", "pipelines/{pipelines}/logs?filter=nonsense", {}, "invalid"),
    ("owner", "get", "pipelines/{pipelines}/logs?cursor=x", {}, "invalid"),
    ("owner", "get", "pipelines/{pipelines}/logs?start=soon", {}, "invalid"),
    ("owner", "get", "pipelines/{pipelines}/logs/series?pipeline_version=" + UUID, {}, "not_found"),
    ("owner", "get", "logs/exports/{logs}/files/1", {}, "not_found"),
    ("owner", "put", "observability", {"enabled": False}, "forbidden"),
    ("owner", "post", "assays/{assays}/resume", {}, "assay_status"),
    ("owner", "patch", "assays/{assays}", {"alert": 0.1, "warning": 0.2}, "invalid"),
    ("owner", "patch", "assays/{assays}", {"bins": 3}, "invalid"),
    ("owner", "post", "pipeline-versions/{pipeline-versions}/infer", {}, "not_tried"),
]
ICON = re.compile(r'<span class="[^"]*material-symbols-outlined[^>]*>[^<]*</span>')
SENTENCE = re.compile(r"[A-Za-z]+,? [a-z]+,? [a-z]+")
EDGE = {"publish": "{publishes}", "cpus": "1", "memory": "1Gi"}
# Pages that show what an operation refused: where, what is sent, and how the refusal begins.
FORMS: list[tuple[str, dict[str, Any], str]] = [
    ("workspaces/new", {"name": "factory"}, "There is a workspace"),
    ("workspaces/{workspaces}/members", {"email": "who@example.com", "role": "viewer"}, "There is no user"),
    ("workspaces/{workspaces}/pipelines/new", {"name": "houseprice"}, "There is a pipeline"),
    ("pipelines/{pipelines}/versions/new", {"kind": "json", "s0-json": "?"}, "Step 1 is not JSON"),
    ("model-versions/{model-versions}/configure", {"tensor_fields": "a, a"}, "tensor_fields is a list"),
    ("pipelines/{pipelines}/edges/add", EDGE | {"name": "houseprice-edge-01"}, "There is an edge"),
    ("pipelines/{pipelines}/edges/add-many", EDGE | {"rows": "name\na\na"}, "These names are there"),
    ("workspaces/{workspaces}/edges/selected", {"verb": "x", "edge": "{edges}"}, "Choose what to do"),
    ("workspaces/{workspaces}/edges/selected", {"verb": "ban"}, "Select from 1 to"),
    ("pipelines/{pipelines}/logs?filter=nonsense", {}, "The filter"),
]


def without_brackets(text: str) -> str:
    before = ""
    while text != before:
        text, before = INNERMOST.sub("", text), text
    return text


def filled(given: Any, things: dict[str, Any]) -> Any:  # noqa: F811
    if isinstance(given, dict):
        return {name: filled(value, things) for name, value in given.items()}
    if isinstance(given, list):
        return [filled(value, things) for value in given]
    return re.sub(r"\{([a-z-]+)\}", lambda found: str(things[found[1]]), given) if isinstance(given, str) else given


@pytest.fixture
def other_language(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """German puts everything in brackets."""
    settings.LANGUAGES = [("en", "English"), ("de", "German")]
    monkeypatch.setitem(trans_real._translations, "de", Bracketed())  # type: ignore[attr-defined]
    yield
    trans_real.deactivate()


@pytest.mark.usefixtures("other_language")
def test_what_operations_refuse_is_whole_in_the_language_that_is_asked_for(
    api: Callable[..., APIClient],
    owner: User,
    viewer: User,
    things: dict[str, Any],  # noqa: F811
    settings: Any,
) -> None:
    settings.TRIALS_AT_ONCE = 0
    people, wrong = {"owner": owner, "viewer": viewer}, {}
    known = things | {"owner": owner.public_id}
    for who, method, where, body, code in REFUSALS:
        client, address = api(people[who]), f"/api/v1/{filled(where, known)}"
        client.credentials(HTTP_ACCEPT_LANGUAGE="de")
        answer = getattr(client, method)(address, filled(body, known), format="json")
        told = answer.json()
        if told.get("code") != code or without_brackets(told["message"]):
            wrong[f"{method} {where} {body}"] = (answer.status_code, told)
    assert not wrong, "\n".join(f"{name}: {told}" for name, told in wrong.items())


@pytest.mark.usefixtures("bracketed")
def test_what_operations_refuse_is_translated_on_the_pages_too(
    browser: Callable[..., Client],
    owner: User,
    things: dict[str, Any],  # noqa: F811
    names: set[str],  # noqa: F811
) -> None:
    wrong = {}
    for where, sent, words in FORMS:
        client, address = browser(owner), f"/{filled(where, things)}"
        answer = client.post(address, filled(sent, things)) if sent else client.get(address)
        page = answer.content.decode()
        found = untranslated(page, names)
        if answer.status_code not in (200, 400, 409, 422) or found or f"⟦{words}" not in page:
            wrong[f"{where} {sent}"] = (answer.status_code, found, words in page)
    assert not wrong, "\n".join(f"{where}: {told}" for where, told in wrong.items())


# What the pages of the console say, by their kind and form: navigation, groups of fields, labels, help, verbs.
CONSOLE: dict[str, tuple[str, ...]] = {
    "publishing_publish changelist": ("publishes",),
    "edges_edgeevent changelist": ("edge events",),
    "rollouts_rollout changelist": ("rollouts",),
    "catalog_user change": ("May", "Times", "Publishing", "Registry settings", "What was done here"),
    "publishing_registrysettings change": ("Login", "Password or token", "Left empty, the stored one stays.", "set"),
    "publishing_registrysettings history": ("Events of rollouts",),
    "publishing_signingkey changelist": ("Rotate the key", "Sign with this key from now on", "Sign with it no more"),
    "publishing_signingkey add": ("Private key", "Of the private key, when it has one."),
    "publishing_engineimageschange changelist": ("Engine images", "In force"),
    "publishing_engineimageschange add": ("Publishes take", "The images below", "Images"),
    "edges_signingkey changelist": ("State", "signs"),
    "edges_signingkey change": ("Public halves",),
    "edges_edge change": ("what it should run", "a Kubernetes quantity"),
    "logs_observabilitychange changelist": ("Observability", "Switched"),
    "logs_observabilitychange add": ("On: rows arrive as they are inferred",),
    "logs_logretention changelist": ("Retention of logs",),
    "logs_logretention change": ("beyond so many rows the oldest go", "days of sums"),
    "rollouts_rollout change": ("edges that may be on their way at once",),
}


@pytest.mark.usefixtures("bracketed")
def test_no_page_of_the_console_has_a_text_of_ours_that_cannot_be_translated(
    browser: Callable[..., Client],
    administrator: User,  # noqa: F811
    make_things: Callable[[int], dict[str, Model]],  # noqa: F811
    names: set[str],  # noqa: F811
) -> None:
    missing, sentences, client = set(), set(), browser(administrator)
    things = make_things(1)  # noqa: F811
    # Fields are called as in REST, and what histories store of a thing is its name.
    kept = {getattr(field, "verbose_name", "") for kind in admin.site._registry for field in kind._meta.get_fields()}
    stored = [str(things[kind]).lower() for kind in ("logs_logretention", "edges_edgeevent", "rollouts_rolloutevent")]
    for name, where, status in addresses(things):
        if status != 200:
            continue
        page = ICON.sub("", client.get(where).content.decode())
        missing |= {f"{name}: {text}" for text in CONSOLE.get(name, ()) if f"⟦{text}⟧" not in page}
        found = [text for text in untranslated(page, names) if text.lower() not in kept and SENTENCE.search(text)]
        sentences |= {f"{name}: {text}" for text in found if not any(said in text.lower() for said in stored)}
    assert not missing and not sentences, "\n".join(sorted(missing | sentences))


@pytest.mark.usefixtures("db", "other_language")
def test_engines_are_told_english_after_a_page_in_another_language(browser: Callable[..., Client]) -> None:
    """A thread answers one after the other, and keeps the language of the one before."""
    browser().get("/login", headers={"Accept-Language": "de"})
    assert gettext("Edges") == "⟦Edges⟧"
    refused = browser().post("/edge/v1/logs", b"", content_type="text/plain", headers={"Accept-Language": "de"})
    assert (refused.status_code, gettext("Edges")) == (401, "Edges")
    assert "⟦" not in refused.json()["message"]
