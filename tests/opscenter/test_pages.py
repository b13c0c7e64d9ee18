"""Login, the list of pipelines, and what holds for every page."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.db import DatabaseError, connection
from django.templatetags.static import static
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver

from catalog.models import Model, Pipeline, PipelineVersion, User, Workspace
from tests.opscenter.test_page_access import PROGRAMS

SOME = {"int": "1", "uuid": "11111111-1111-4111-8111-111111111111"}


def page_addresses() -> list[str]:
    """An address of every page that there is."""

    def walk(patterns: Any, prefix: str) -> Iterator[str]:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, route)
            elif isinstance(pattern, URLPattern) and not route.startswith(PROGRAMS):
                for kind, value in SOME.items():
                    while (begin := route.find(f"<{kind}:")) >= 0:
                        route = route[:begin] + value + route[route.index(">", begin) + 1 :]
                yield f"/{route}"

    return sorted(walk(get_resolver().url_patterns, ""))


@pytest.mark.parametrize("address", [page for page in page_addresses() if page not in {"/login", "/logout"}])
def test_nobody_is_sent_to_login_whatever_the_page(client: Client, db: None, address: str) -> None:
    answers = [client.get(address), client.post(address)]
    assert 302 in [answer.status_code for answer in answers], address
    for answer in answers:
        assert answer.status_code in {302, 405}
        assert answer.status_code == 405 or answer["Location"].startswith("/login")


def test_login_comes_back_to_the_page_that_was_asked_for(
    browser: Callable[..., Client], workspace: Workspace, owner: User
) -> None:
    client, wanted = browser(), f"/workspaces/{workspace.pk}/models"
    login = client.get(wanted)["Location"]
    answer = client.post(
        login, {"username": "owner@example.com", "password": "owner-password-1", "next": wanted}, follow=True
    )
    assert answer.redirect_chain == [(wanted, 302)]
    assert "No models yet" in answer.content.decode()


def test_browser_finds_the_icon_of_what_is_no_page(client: Client) -> None:
    answer = client.get("/favicon.ico")
    assert answer.status_code == 302
    assert answer["Location"] == static("favicon.svg")
    assert "max-age=3600" in answer["Cache-Control"]
    assert not answer.cookies


def test_login_does_not_lead_elsewhere(browser: Callable[..., Client], owner: User) -> None:
    sent = {"username": "owner@example.com", "password": "owner-password-1", "next": "https://evil.example.com/"}
    assert browser().post("/login", sent)["Location"] == "/"


def test_wrong_password_is_told_without_saying_which_is_wrong(browser: Callable[..., Client], owner: User) -> None:
    page = browser().post("/login", {"username": "owner@example.com", "password": "wrong"}).content.decode()
    assert "The e-mail address or the password is wrong." in page


def test_many_wrong_passwords_from_one_address_have_to_wait(
    browser: Callable[..., Client], owner: User, workspace: Workspace
) -> None:
    cache.clear()
    client = browser()
    right = {"username": "owner@example.com", "password": "owner-password-1"}
    for _ in range(3):
        assert client.post("/login", right).status_code == 302
        client.post("/logout")
    wrong = right | {"password": "wrong"}
    assert [client.post("/login", wrong).status_code for _ in range(20)] == [200] * 20
    answer = client.post("/login", right)
    assert answer.status_code == 429
    assert "try again in" in answer.content.decode()
    assert int(answer["Retry-After"]) > 0
    cache.clear()


def test_logout_ends_the_session(browser: Callable[..., Client], owner: User, workspace: Workspace) -> None:
    client = browser(owner)
    assert client.post("/logout")["Location"] == "/login"
    assert client.get("/")["Location"].startswith("/login")


def test_every_form_needs_its_token(owner: User, workspace: Workspace) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    for address in page_addresses():
        if client.get(address).status_code == 405 or address == "/workspaces/new":
            answer = client.post(address, {"name": "x"})
            assert answer.status_code == 403, address
            assert "reload the page and send it again" in answer.content.decode()


def test_pages_forbid_scripts_and_styles_between_tags(
    browser: Callable[..., Client], workspace: Workspace, owner: User
) -> None:
    client = browser(owner)
    for address in ("/login", "/workspaces", f"/workspaces/{workspace.pk}/pipelines", "/nowhere"):
        answer = client.get(address, follow=True)
        assert "default-src 'self'" in answer["Content-Security-Policy"]
        assert "unsafe" not in answer["Content-Security-Policy"]
        page = answer.content.decode()
        assert "style=" not in page
        assert "<script>" not in page


def test_admin_console_may_run_its_widgets_and_no_other_page(browser: Callable[..., Client], owner: User) -> None:
    policy = browser().get("/admin/login/")["Content-Security-Policy"]
    assert "script-src 'self' 'unsafe-eval'" in policy
    assert "script-src 'self' 'unsafe-eval' 'unsafe-inline'" not in policy


def test_pages_are_kept_by_no_shared_cache_and_fragments_not_as_pages(
    browser: Callable[..., Client], workspace: Workspace, owner: User
) -> None:
    answer = browser(owner).get("/workspaces")
    assert "private" in answer["Cache-Control"]
    assert "HX-Request" in answer["Vary"]


def test_unknown_address_is_a_page_for_people_and_json_for_programs(client: Client, db: None) -> None:
    page = client.get("/nowhere")
    assert page.status_code == 404
    assert "There is nothing at this address." in page.content.decode()
    answer = client.get("/api/v1/nowhere")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_refusal_of_a_fragment_goes_beside_the_page(browser: Callable[..., Client], owner: User) -> None:
    answer = browser(owner).get("/pipelines/999", headers={"HX-Request": "true"})
    assert answer.status_code == 404
    assert answer["HX-Retarget"] == "#toasts"
    assert "<html" not in answer.content.decode()


def test_ended_session_leads_to_login_instead_of_into_the_page(client: Client, db: None) -> None:
    answer = client.get("/pipelines/1", headers={"HX-Request": "true"})
    assert answer["HX-Redirect"] == "/login"
    assert not answer.content


def test_fault_of_ours_is_a_page_that_needs_no_database(
    owner: User, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise DatabaseError("gone")

    client = Client(raise_request_exception=False)
    client.force_login(owner)
    monkeypatch.setattr("opscenter.overview.rows_of", broken)
    answer = client.get(f"/workspaces/{workspace.pk}/pipelines")
    assert answer.status_code == 500
    assert "The center failed to answer" in answer.content.decode()
    assert "gone" not in answer.content.decode()
    fragment = client.get(f"/workspaces/{workspace.pk}/pipelines", headers={"HX-Request": "true"})
    assert fragment["HX-Retarget"] == "#toasts"


def test_everybody_in_the_workspace_sees_its_pipelines(
    statuses: Callable[..., dict[str, int]], workspace: Workspace
) -> None:
    address = f"/workspaces/{workspace.pk}/pipelines"
    assert statuses(address) == {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}


def test_empty_list_teaches_the_next_step_to_who_can_take_it(
    browser: Callable[..., Client], workspace: Workspace, member: User, viewer: User
) -> None:
    address = f"/workspaces/{workspace.pk}/pipelines"
    assert "Create the first pipeline" in browser(member).get(address).content.decode()
    assert "Create the first pipeline" not in browser(viewer).get(address).content.decode()


def test_list_needs_as_many_queries_for_many_pipelines_as_for_one(
    browser: Callable[..., Client],
    workspace: Workspace,
    owner: User,
    make_pipeline_version: Callable[..., PipelineVersion],
) -> None:
    client, address = browser(owner), f"/workspaces/{workspace.pk}/pipelines"
    make_pipeline_version(name="pipeline-0")
    client.get(address)
    with CaptureQueriesContext(connection) as one:
        client.get(address)
    for number in range(1, 20):
        make_pipeline_version(name=f"pipeline-{number}")
    with CaptureQueriesContext(connection) as many:
        page = client.get(address).content.decode()
    assert len(many) == len(one)
    assert "pipeline-19" in page


def test_request_for_another_host_is_told_so_on_a_page_and_as_json_to_programs() -> None:
    page = Client().get("/login", headers={"host": "elsewhere.example"})
    assert page.status_code == 400
    assert "cannot be taken as it is" in page.content.decode()
    told = Client().get("/api/v1/workspaces", headers={"host": "elsewhere.example"})
    assert (told.status_code, told.json()["code"]) == (400, "invalid")


def test_pipelines_models_and_workspaces_come_in_pages(
    browser: Callable[..., Client], owner: User, workspace: Workspace
) -> None:
    Pipeline.objects.bulk_create(
        Pipeline(workspace=workspace, name=f"line-{n:03}", created_by=owner) for n in range(51)
    )
    Model.objects.bulk_create(Model(workspace=workspace, name=f"model-{n:03}", created_by=owner) for n in range(51))
    client = browser(owner)
    for part, last in (("pipelines", "line-050"), ("models", "model-050")):
        first = client.get(f"/workspaces/{workspace.pk}/{part}").content.decode()
        assert last not in first
        assert "Page 1 of 2, 51 in all" in first
        assert last in client.get(f"/workspaces/{workspace.pk}/{part}?page=2").content.decode()
