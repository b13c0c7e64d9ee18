"""Every address of the admin console: who is answered how, how dear it is, and what it must never show."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, reverse
from django.utils import timezone
from knox.models import AuthToken

from catalog.models import Membership, Role, User, Workspace
from edges import operations as edges
from edges import provisioning
from edges import signing as edge_signing
from edges.models import FleetToken, JoinToken
from edges.models import SigningKey as EdgeKey
from logs import observability
from logs.models import LogRetention
from publishing import engine_images
from publishing import operations as publishing
from publishing.models import Publish, RegistrySettings, SigningKey
from rollouts.models import Rollout, RolloutEvent
from tests.logs.conftest import make_publish  # noqa: F401

PASSWORD = "Reg1stry-pass,word"
FORMS = ("changelist", "add", "change", "delete", "history")
# What an administrator is answered at the list, to add, to change, to delete and for the history of each kind.
LOOK, KEEP, ALL = (200, 403, 200, 403, 200), (200, 200, 200, 403, 200), (200, 200, 200, 200, 200)
KINDS = {
    "admin_logentry": LOOK,
    "catalog_user": ALL,
    "catalog_workspace": (200, 403, 200, 200, 200),
    "edges_edge": LOOK,
    "edges_edgeevent": LOOK,
    "edges_fleettoken": LOOK,
    "edges_signingkey": LOOK,
    "knox_authtoken": (200, 403, 200, 200, 200),
    "logs_logretention": ALL,
    "logs_observabilitychange": KEEP,
    "publishing_engineimageschange": KEEP,
    "publishing_publish": LOOK,
    "publishing_registrysettings": (302, 403, 200, 403, 200),  # one row, whose form is the page
    "publishing_signingkey": KEEP,
    "rollouts_rollout": LOOK,
    "rollouts_rolloutevent": LOOK,
}
# Addresses of no kind: the administrator, other staff.
OTHERS = {
    "index": (200, 200),
    "search": (200, 200),
    "jsi18n": (200, 200),
    "autocomplete": (403, 403),  # without saying for which field
    "password_change": (200, 200),
    "password_change_done": (200, 200),
    "app_list": (200, 404),
    "view_on_site": (404, 404),
    "publishing_registrysettings_test_connection": (302, 403),
    "publishing_engineimageschange_check": (405, 405),
    "publishing_signingkey_rotate": (200, 403),
    "edges_signingkey_rotate": (200, 403),
    "auth_user_password_change": (200, 403),
}
# Leads to another, or ends the session.
ELSEWHERE = {None, "login", "logout", "catalog_user_password_change"}


@pytest.fixture
def administrator(db: None) -> User:
    return User.objects.create_superuser("admin@example.com", "admin-password-1")


@pytest.fixture
def staff(db: None) -> User:
    """With every permission that Django knows: none counts here."""
    user = User.objects.create_user("staff@example.com", "staff-password-1", is_staff=True)
    user.user_permissions.set(Permission.objects.all())
    return user


@pytest.fixture
def make_things(
    administrator: User,
    workspace: Workspace,
    make_publish: Callable[..., Publish],  # noqa: F811
) -> Callable[[int], dict[str, Model]]:
    """One more of everything that the console lists; `number` is in their names."""
    publishing.change_registry(actor=administrator, enabled=True, registry="reg.example.com", repository="ml")
    publishing.change_registry(actor=administrator, username="robot", password=PASSWORD)

    def make(number: int) -> dict[str, Model]:
        publish, now = make_publish(), timezone.now()
        publish.engine_config = {}
        publish.save()
        edge = edges.add_edge(actor=administrator, publish=publish, name=f"edge-{number}").edge
        user = User.objects.create_user(f"user{number}@example.com", f"Us3r-password-{number}")
        Membership.objects.create(workspace=workspace, user=user, role=Role.VIEWER)
        place = Workspace.objects.create(name=f"place-{number}", created_by=user)
        rollout = Rollout.objects.create(
            publish=publish,
            created_by=user,
            max_in_flight=1,
            success_percent=100,
            error_percent=0,
            healthy_seconds=1,
            answer_seconds=1,
            auto_rollback=False,
            deadline=now,
        )
        edge_signing.rotate(now)
        fleet = provisioning.make_fleet_token(
            actor=administrator, publish=publish, pattern=f"s{number}-{{n}}", max_edges=3
        ).token
        kind = ContentType.objects.get_for_model(User)
        told = LogEntry.objects.create(
            user=user, content_type=kind, object_id=str(user.pk), object_repr=str(user), action_flag=CHANGE
        )
        observability.switch(actor=administrator, enabled=bool(number % 2), now=now)
        engine_images.change(actor=administrator, images=f"ghcr.io/a/engine:{number}", now=now)
        return {
            "admin_logentry": told,
            "catalog_user": user,
            "catalog_workspace": place,
            "edges_edge": edge,
            "edges_edgeevent": edge.events.get(),
            "edges_fleettoken": fleet,
            "edges_signingkey": EdgeKey.objects.first(),
            "knox_authtoken": AuthToken.objects.create(user)[0],
            "logs_logretention": LogRetention.objects.create(workspace=place, days=number + 1),
            "logs_observabilitychange": observability.current().change,
            "publishing_engineimageschange": engine_images.current().change,
            "publishing_publish": publish,
            "publishing_registrysettings": RegistrySettings.objects.get(),
            "publishing_signingkey": publishing.create_signing_key(actor=administrator, name=f"key-{number}"),
            "rollouts_rollout": rollout,
            "rollouts_rolloutevent": RolloutEvent.objects.create(rollout=rollout, kind="created", at=now, actor=user),
        }  # type: ignore[dict-item]

    return make


def address(kind: str, form: str, thing: Model) -> str:
    return reverse(f"admin:{kind}_{form}", args=[] if form in ("changelist", "add") else [thing.pk])


def addresses(things: dict[str, Model]) -> Iterator[tuple[str, str, int]]:
    """Kind and form, address, and what an administrator is answered."""
    for kind, statuses in KINDS.items():
        for form, status in zip(FORMS, statuses, strict=True):
            yield f"{kind} {form}", address(kind, form, things[kind]), status


def other(name: str, things: dict[str, Model]) -> str:
    given: dict[str, list[Any]] = {
        "app_list": ["publishing"],
        "view_on_site": [ContentType.objects.get_for_model(User).pk, 1],
        "publishing_registrysettings_test_connection": [1],
        "auth_user_password_change": [things["catalog_user"].pk],
    }
    return reverse(f"admin:{name}", args=given.get(name, []))


def test_every_address_of_the_console_is_listed_here() -> None:
    def names(patterns: Any) -> Iterator[str | None]:
        for one in patterns:
            if isinstance(one, URLResolver):
                yield from names(one.url_patterns)
            elif isinstance(one, URLPattern):
                yield one.name

    listed = {f"{kind}_{form}" for kind in KINDS for form in FORMS} | set(OTHERS) | ELSEWHERE
    assert set(names(admin.site.urls[0])) - listed == set()
    assert {f"{model._meta.app_label}_{model._meta.model_name}" for model in admin.site._registry} == set(KINDS)


def test_administrators_are_answered_as_listed_and_nobody_else_gets_in(
    browser: Callable[..., Client],
    administrator: User,
    staff: User,
    owner: User,
    make_things: Callable[[int], dict[str, Model]],
) -> None:
    things, wrong = make_things(1), {}
    asked = [(name, address, (status, 403)) for name, address, status in addresses(things)]
    asked += [(name, other(name, things), statuses) for name, statuses in OTHERS.items()]
    insiders, outsiders = [browser(administrator), browser(staff)], [browser(owner), browser()]
    for name, where, wanted in asked:
        found = tuple(client.get(where).status_code for client in insiders)
        if found != wanted:
            wrong[name] = (found, wanted)
        for client in outsiders:
            answer = client.get(where)
            if (answer.status_code, answer["Location"][:13]) != (302, "/admin/login/"):
                wrong[f"{name} as a stranger"] = (answer.status_code,)
    assert not wrong


def test_nobody_else_may_send_anything(
    browser: Callable[..., Client], staff: User, owner: User, make_things: Callable[[int], dict[str, Model]]
) -> None:
    things, wrong = make_things(1), {}
    keys = (SigningKey.objects.count(), EdgeKey.objects.count())
    sent = {"post": "yes", "source": "these", "enabled": "off", "name": "x"}
    verbs = [f"{kind}_rotate" for kind in ("publishing_signingkey", "edges_signingkey")]
    asked = [(name, where) for name, where, _ in addresses(things)]
    asked += [(name, reverse(f"admin:{name}")) for name in (*verbs, "publishing_engineimageschange_check")]
    clients = {"staff": (browser(staff), 403), "a member": (browser(owner), 302), "nobody": (browser(), 302)}
    for name, where in asked:
        for person, (client, refused) in clients.items():
            if (status := client.post(where, sent).status_code) != refused:
                wrong[f"{name} as {person}"] = status
    assert not wrong
    assert keys == (SigningKey.objects.count(), EdgeKey.objects.count())


def test_who_may_not_go_on_is_sent_to_the_one_login_page_or_told(
    browser: Callable[..., Client], owner: User, administrator: User
) -> None:
    to_login = browser().get("/admin/", follow=True).redirect_chain
    assert to_login == [("/admin/login/?next=/admin/", 302), ("/login?next=%2Fadmin%2F", 302)]
    told = browser(owner).get("/admin/", follow=True)
    assert told.status_code == 403 and "for administrators" in told.content.decode()
    sent = {"username": "admin@example.com", "password": "admin-password-1"}
    assert browser().post("/admin/login/", sent).status_code == 405
    assert browser().post("/login?next=/admin/", sent)["Location"] == "/admin/"
    assert browser(administrator).post("/admin/logout/")["Location"] == "/login"


def test_no_page_shows_a_secret(
    browser: Callable[..., Client], administrator: User, make_things: Callable[[int], dict[str, Model]]
) -> None:
    things = make_things(1)
    secrets = {PASSWORD, "PRIVATE KEY", administrator.password}
    secrets |= {line for key in SigningKey.objects.all() for line in key.private_key.splitlines()[1:-1]}
    secrets |= {line for key in EdgeKey.objects.all() for line in key.private_key.splitlines()[1:-1]}
    secrets |= {user.password for user in User.objects.all()}
    secrets |= {str(token.digest) for token in (*JoinToken.objects.all(), *FleetToken.objects.all())}
    assert len(secrets) > 10
    digests = {token.digest for token in AuthToken.objects.all()}
    client = browser(administrator)
    for name, where, _ in addresses(things):
        page = client.get(where, follow=True).content.decode()
        # A token's own pages have its digest in their address and title. It opens nothing: who has it has no token.
        hidden = secrets if name.startswith("knox_authtoken") else secrets | digests
        shown = [secret for secret in hidden if secret in page]
        assert not shown, f"{name} shows {len(shown)} of them"


def test_lists_and_forms_cost_the_same_however_much_there_is(
    browser: Callable[..., Client], administrator: User, make_things: Callable[[int], dict[str, Model]]
) -> None:
    first = make_things(1)
    client = browser(administrator)

    def costs() -> dict[str, int]:
        found = {}
        for name, where, status in addresses(first | {"catalog_workspace": Workspace.objects.get(name="factory")}):
            if status == 200 and not name.endswith("delete"):
                client.get(where)  # what is remembered for all is read
                with CaptureQueriesContext(connection) as asked:
                    client.get(where)
                found[name] = len(asked)
        return found

    few = costs()
    for number in range(2, 6):
        make_things(number)
    many = costs()
    assert {name: (few[name], many[name]) for name in few if few[name] != many[name]} == {}
    assert max(many.values()) <= 20, many


def test_every_page_is_framed_by_nobody_and_runs_nothing_between_tags(
    browser: Callable[..., Client], administrator: User, make_things: Callable[[int], dict[str, Model]]
) -> None:
    client = browser(administrator)
    for name, where, status in addresses(make_things(1)):
        if status != 200:
            continue
        answer = client.get(where)
        policy = dict(part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";"))
        assert answer["X-Frame-Options"] == "DENY" and policy["frame-ancestors"] == "'none'", name
        assert policy["default-src"] == policy["style-src"] == "'self'", name
        assert policy["script-src"] == "'self' 'unsafe-eval'", name
        assert policy["style-src-attr"] == "'unsafe-inline'", name
        assert answer["X-Content-Type-Options"] == "nosniff" and "private" in answer["Cache-Control"], name
        page = answer.content.decode()
        assert "<style" not in page and not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", page), name
        assert not re.search(r"\son[a-z]+=\"", page), name


def test_every_form_needs_its_token(administrator: User, make_things: Callable[[int], dict[str, Model]]) -> None:
    things = make_things(1)
    client = Client(enforce_csrf_checks=True)
    client.force_login(administrator)
    asked = [where for _, where, _ in addresses(things)]
    asked += [reverse(f"admin:{name}") for name in ("edges_signingkey_rotate", "publishing_signingkey_rotate")]
    asked += [reverse("admin:publishing_engineimageschange_check"), reverse("admin:password_change")]
    for where in asked:
        assert client.post(where, {"post": "yes"}).status_code == 403, where


def test_favicon_of_the_console_is_there(
    browser: Callable[..., Client], administrator: User, settings: Any, tmp_path: Path
) -> None:
    settings.STATIC_ROOT = tmp_path / "static"
    call_command("collectstatic", interactive=False, verbosity=0)
    page = browser(administrator).get("/admin/").content.decode()
    icon = re.search(r'rel="icon" href="/static/([^"]+)"', page)
    assert icon and (settings.STATIC_ROOT / icon[1]).is_file()
