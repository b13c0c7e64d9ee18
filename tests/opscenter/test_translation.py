"""Every text of the pages can be translated: in a language in which each text is put in brackets, none is without."""

import ast
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client, RequestFactory
from django.utils.translation import trans_real

from catalog.models import Pipeline, User, Workspace
from common.errors import DomainError
from edges.models import Edge, EdgeEvent
from opscenter import views
from tests.drift.conftest import make_assay  # noqa: F401
from tests.logs.conftest import device, make_device, make_publish  # noqa: F401
from tests.opscenter.test_page_access import (
    ALL,
    EDIT,
    OPEN,
    OWN,
    PAGES,
    address_of,
    patterns,
    things,  # noqa: F401
)

# Read out or shown, besides the text between tags.
ATTRIBUTES = {"aria-label", "title", "placeholder", "alt", "data-label", "data-copied", "data-failed", "data-reading"}
UNREAD = {"script", "style", "code", "pre", "time", "textarea"}
NUMBERS = re.compile(r"\b(sha256:)?[0-9a-f]{8}[-0-9a-f]*\b")  # UUIDs and digests
VOID = {"input", "br", "img", "meta", "link", "hr"}
INNERMOST = re.compile(r"⟦[^⟦⟧]*⟧")
# Names of things, which are the same in every language, and what this test's own things are called.
NAMES = {"OpsCenter", "UTC", "JSON", "SHA", "SPIFFE", "ID", "EDGE_BUNDLE", "Arrow", "Parquet", "Json"}
NAMES |= {"onnx", "python", "arm", "power10", "none", "cuda", "jetson", "openvino", "qaic"}
EXAMPLES = {"out.variable > 500000", "out.variable[0]", "shop-{n:04}", "22:00-04:00 Europe/Berlin", "too_high"}
COMMANDS = {
    "GitOps: Argo CD Application",
    "GitOps: Flux OCIRepository and HelmRelease",
    "GitOps: kubectl create secret",
}
COMMANDS |= {"compose.yaml", "docker run", "podman run", "helm install", "helm upgrade", "opsengine serve"}
# Pages with a form, which say what is wrong when it is sent empty.
FORMS = [
    "catalog:create-workspace",
    "catalog:members",
    "catalog:create-pipeline",
    "catalog:create-version",
    "publishing:replace",
    "edges:add",
    "edges:add-many",
    "edges:make-fleet-token",
    "rollouts:create",
    "drift:create",
]
CALLS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy"}
ROOT = Path(__file__).resolve().parents[2]
OURS = ("catalog", "common", "drift", "edges", "logs", "opscenter", "publishing", "rollouts", "trials")
# What programs are refused: engines and senders of rows, and who types commands. English, as what they log.
ENGLISH = {f"edges/api/{name}.py" for name in ("callers", "calls", "device", "reading")}
ENGLISH |= {f"edges/{name}.py" for name in ("contacts", "enrolment", "jwts", "limits", "queries", "sessions", "tokens")}
ENGLISH |= {f"logs/{name}.py" for name in ("envelope", "operations", "outline", "pages", "records", "schemas")}
ENGLISH |= {"logs/api/device.py", "publishing/exports.py", "opscenter/bootstrap.py"}
WORDS = re.compile(r"[A-Za-z]+ [a-z]+ ")


class Bracketed:
    """Stands in for a language's texts."""

    def gettext(self, text: str) -> str:
        if text == "yes,no,maybe":  # Django's own, which it splits
            return "⟦yes⟧,⟦no⟧,⟦maybe⟧"
        return f"⟦{text.rpartition(trans_real.CONTEXT_SEPARATOR)[2]}⟧" if text else ""

    def ngettext(self, one: str, many: str, count: int) -> str:
        return self.gettext(one if count == 1 else many)

    def language(self) -> str:
        return "en"

    def to_language(self) -> str:
        return "en"


class Seen(HTMLParser):
    """What a page says, in its order, without what `translate="no"` keeps as it is."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.kept: list[str] = []  # the open tags from the outermost that is kept as it is
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if (self.kept or tag in UNREAD or ("translate", "no") in attrs) and tag not in VOID:
            self.kept.append(tag)
        if not self.kept:
            self.texts += [f"\n{value}\n" for name, value in attrs if name in ATTRIBUTES and value]

    def handle_endtag(self, tag: str) -> None:
        if self.kept and self.kept[-1] == tag:
            self.kept.pop()

    def handle_data(self, data: str) -> None:
        if not self.kept:
            self.texts.append(data)

    def words(self) -> str:
        text, before = "".join(self.texts), ""
        while text != before:
            text, before = INNERMOST.sub(" ", text), text
        return text


def untranslated(page: str, names: set[str]) -> list[str]:
    text = NUMBERS.sub(" ", Seen(page).words())
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, " ")
    return sorted({line.strip() for line in text.splitlines() if re.search(r"[A-Za-z]{2,}", line)})


@pytest.fixture
def bracketed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(trans_real._translations, "en", Bracketed())  # type: ignore[attr-defined]
    monkeypatch.setattr(trans_real, "_default", None)
    trans_real.deactivate()
    yield
    trans_real.deactivate()  # the thread keeps the language of the last answer


@pytest.fixture
def names(owner: User, member: User, viewer: User) -> set[str]:
    """What the things on the pages are called, which nobody translates."""
    own = {"factory", "houseprice-edge-01", "houseprice", "house-price", "prices"}
    return {owner.email, member.email, viewer.email, *own, *NAMES, *EXAMPLES, *COMMANDS}


@pytest.mark.usefixtures("bracketed")
def test_no_page_has_a_text_that_cannot_be_translated(
    browser: Callable[..., Client],
    owner: User,
    viewer: User,
    things: dict[str, Any],  # noqa: F811
    names: set[str],
) -> None:
    found = set()
    for (name, route), user in [(page, user) for page in patterns() for user in (owner, viewer)]:
        if PAGES.get(name) not in (ALL, EDIT, OWN, OPEN):
            continue
        page = browser(user).get(address_of(name, route, things)).content.decode()
        found |= {f"{name}: {text}" for text in untranslated(page, names)}
        assert "&lt;" not in page.partition("<main")[2], f"{name}: a part of a sentence is shown as its source"
    assert not found, "\n".join(sorted(found))


@pytest.mark.usefixtures("bracketed")
def test_no_complaint_of_a_form_cannot_be_translated(
    browser: Callable[..., Client],
    owner: User,
    things: dict[str, Any],  # noqa: F811
    names: set[str],
) -> None:
    found = set()
    for name, route in patterns():
        if name not in FORMS:
            continue
        answer = browser(owner).post(address_of(name, route, things), {"x": "1"})
        assert answer.status_code == 422, name
        found |= {f"{name}: {text}" for text in untranslated(answer.content.decode(), names)}
    assert not found, "\n".join(sorted(found))


@pytest.mark.usefixtures("bracketed")
def test_no_page_that_is_empty_or_says_no_cannot_be_translated(
    browser: Callable[..., Client], owner: User, member: User, viewer: User, stranger: User, names: set[str]
) -> None:
    workspace = Workspace.objects.get()
    pipeline = Pipeline.objects.create(workspace=workspace, name="houseprice", created_by=owner)
    empty = [f"/workspaces/{workspace.pk}/{part}" for part in ("pipelines", "edges", "models", "members")]
    empty += [f"/pipelines/{pipeline.pk}{part}" for part in ("", "/edges", "/logs", "/logs/charts", "/logs/exports")]
    empty += [f"/pipelines/{pipeline.pk}/{part}" for part in ("rollouts", "drift", "fleet-tokens", "versions/new")]
    found = set()
    for user in (owner, viewer, stranger, None):
        for address in (*empty, "/workspaces", "/first-steps", "/nothing", "/login"):
            page = browser(user).get(address, follow=True).content.decode()
            found |= {f"{address}: {text}" for text in untranslated(page, names | {stranger.email})}
    found |= set(untranslated(views.server_error(RequestFactory().get("/")).content.decode(), names))
    found |= set(untranslated(Client(enforce_csrf_checks=True).post("/login").content.decode(), names))
    assert not found, "\n".join(sorted(found))


@pytest.mark.usefixtures("bracketed")
def test_what_an_edge_lost_and_how_many_events_it_has_can_be_translated(
    browser: Callable[..., Client],
    viewer: User,
    things: dict[str, Any],  # noqa: F811
    names: set[str],
) -> None:
    edge = Edge.objects.get(pk=things["edges"])
    lost = {"epoch": str(uuid4()), "last_sequence": 4000, "is_copy": False, "rows": 4000}
    edge.events.create(kind=EdgeEvent.Kind.ROWS_LEFT_BEHIND, detail=lost)
    for _number in range(60):
        edge.events.create(kind=EdgeEvent.Kind.SERVING)
    client, found = browser(viewer), set()
    for address in (f"/edges/{edge.pk}", f"/edges/{edge.pk}/events"):
        page = client.get(address).content.decode()
        found |= {f"{address}: {text}" for text in untranslated(page, names)}
        assert "The newest " in page or "Page " in page
    assert "of its rows were not sent" in client.get(f"/edges/{edge.pk}").content.decode()
    assert not found, "\n".join(sorted(found))


def test_texts_in_code_are_written_where_they_are_collected_from() -> None:
    """`makemessages` reads the code: a text that is put together before it is translated is not found."""
    wrong = []
    for file in (file for app in OURS for file in (ROOT / app).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS and node.args:
                text = node.args[0]
                if not isinstance(text, ast.Constant) and not isinstance(text, ast.Attribute):
                    wrong.append(f"{file}:{node.lineno}")
    assert not wrong


def refusals() -> set[str]:
    """The names of all kinds of refusals."""

    def below(kind: type) -> set[str]:
        return {kind.__name__}.union(*(below(one) for one in kind.__subclasses__()))

    return below(DomainError)


def test_what_people_are_refused_is_written_to_be_translated() -> None:
    kinds, wrong = refusals(), []
    for file in (file for app in OURS for file in (ROOT / app).rglob("*.py")):
        name = str(file.relative_to(ROOT))
        for node in ast.walk(ast.parse(file.read_text())) if name not in ENGLISH else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in kinds and node.args:
                text = node.args[0]
                if isinstance(text, ast.Constant | ast.JoinedStr) and WORDS.search(ast.unparse(text)):
                    wrong.append(f"{name}:{node.lineno}")
    assert len(kinds) > 40 and not wrong
