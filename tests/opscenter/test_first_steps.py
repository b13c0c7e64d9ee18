"""The first page of a new center, and the admin console's."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog.models import PipelineVersion, User, Workspace
from publishing import operations as publishing
from publishing.models import RegistrySettings


@pytest.fixture
def administrator(db: None) -> User:
    return User.objects.create_superuser("admin@example.com", "admin-password-1")


def test_new_center_shows_its_administrator_the_first_steps(
    browser: Callable[..., Client], administrator: User
) -> None:
    answer = browser(administrator).get("/", follow=True)
    assert answer.redirect_chain == [("/first-steps", 302)]
    page = answer.content.decode()
    assert "No registry is configured" in page
    assert "Set the registry" in page
    assert "Create a workspace" in page


def test_center_in_use_shows_its_pipelines(
    browser: Callable[..., Client],
    administrator: User,
    workspace: Workspace,
    make_pipeline_version: Callable[..., PipelineVersion],
) -> None:
    make_pipeline_version()
    answer = browser(administrator).get("/")
    assert answer["Location"] == f"/workspaces/{workspace.pk}/pipelines"


def test_steps_that_are_done_say_so_and_only_administrators_reach_the_console(
    browser: Callable[..., Client],
    administrator: User,
    owner: User,
    workspace: Workspace,
    make_pipeline_version: Callable[..., PipelineVersion],
) -> None:
    publishing.change_registry(
        actor=administrator,
        enabled=True,
        registry="ghcr.io",
        repository="ml",
        email="",
        username="",
        plain_http=False,
        ca_certificate="",
        proxy="",
    )
    make_pipeline_version()
    page = browser(owner).get("/first-steps").content.decode()
    assert "ghcr.io/ml is set, not tested yet." in page
    assert "/admin/" not in page
    assert "factory has 1." in page
    RegistrySettings.objects.update(checks=[{"name": "x", "state": "fail", "said": "no", "remedy": "do"}])
    assert "its last test failed" in browser(owner).get("/first-steps").content.decode()


def test_steps_need_as_many_queries_whatever_there_is(
    browser: Callable[..., Client],
    owner: User,
    workspace: Workspace,
    make_pipeline_version: Callable[..., PipelineVersion],
) -> None:
    client = browser(owner)
    client.get("/first-steps")
    with CaptureQueriesContext(connection) as few:
        client.get("/first-steps")
    for number in range(10):
        make_pipeline_version(name=f"pipeline-{number}")
    with CaptureQueriesContext(connection) as many:
        client.get("/first-steps")
    assert len(many) == len(few)


def test_console_tells_how_the_center_stands_and_lists_everything(
    browser: Callable[..., Client], administrator: User
) -> None:
    page = browser(administrator).get("/admin/").content.decode()
    assert "How the center stands" in page
    for name in ("Registry settings", "Signing keys", "Retention", "Users", "Workspaces", "API tokens", "Events"):
        assert name in page, name


def test_console_is_for_staff_only(browser: Callable[..., Client], owner: User) -> None:
    assert browser(owner).get("/admin/")["Location"].startswith("/admin/login")


def test_tokens_are_listed_and_revoked_but_never_made_or_shown(
    browser: Callable[..., Client], administrator: User, api: Callable[..., Client]
) -> None:
    sent = {"email": administrator.email, "password": "admin-password-1"}
    token = api().post("/api/v1/auth/token", sent).json()["token"]
    client = browser(administrator)
    page = client.get("/admin/knox/authtoken/").content.decode()
    assert administrator.email in page
    assert token not in page
    assert client.get("/admin/knox/authtoken/add/").status_code == 403


def test_retention_is_of_a_workspace_or_a_pipeline(
    browser: Callable[..., Client], administrator: User, workspace: Workspace
) -> None:
    client, address = browser(administrator), "/admin/logs/logretention/add/"
    refused = client.post(address, {"days": "30"})
    assert "one of the two" in refused.content.decode()
    assert client.post(address, {"workspace": workspace.pk, "days": "30"}).status_code == 302
    assert workspace.log_retention.days == 30
