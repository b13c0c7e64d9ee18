"""Pages of workspaces and their members."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog.models import Membership, Role, User, Workspace


def test_owner_creates_a_workspace_and_is_sent_to_its_models(browser: Callable[..., Client], owner: User) -> None:
    answer = browser(owner).post("/workspaces/new", {"name": "Line 7"})
    made = Workspace.objects.get(name="Line 7")
    assert answer.status_code == 302
    assert answer["Location"] == f"/workspaces/{made.pk}/models"
    assert Membership.objects.get(workspace=made).user == owner


def test_taken_name_is_told_at_the_field(browser: Callable[..., Client], workspace: Workspace, member: User) -> None:
    answer = browser(member).post("/workspaces/new", {"name": "factory"})
    assert answer.status_code == 422
    assert "There is a workspace &#x27;factory&#x27; already" in answer.content.decode()


def test_somebody_without_workspaces_is_told_what_to_do(browser: Callable[..., Client], stranger: User) -> None:
    client = browser(stranger)
    assert client.get("/")["Location"] == "/workspaces"
    assert "Create a workspace" in client.get("/workspaces").content.decode()


def test_list_shows_only_own_workspaces_with_counts(
    browser: Callable[..., Client], workspace: Workspace, viewer: User, owner: User
) -> None:
    Workspace.objects.create(name="elsewhere", created_by=owner)
    page = browser(viewer).get("/workspaces").content.decode()
    assert "factory" in page
    assert "elsewhere" not in page
    assert f'<a href="/workspaces/{workspace.pk}/members">2</a>' in page


def test_selected_workspace_is_remembered(browser: Callable[..., Client], workspace: Workspace, owner: User) -> None:
    other = Workspace.objects.create(name="zoo", created_by=owner)
    Membership.objects.create(workspace=other, user=owner, role=Role.OWNER)
    client = browser(owner)
    assert client.get("/")["Location"] == f"/workspaces/{workspace.pk}/pipelines"
    assert client.post("/workspaces/select", {"workspace": other.pk})["Location"] == f"/workspaces/{other.pk}/pipelines"
    assert client.get("/")["Location"] == f"/workspaces/{other.pk}/pipelines"


@pytest.mark.parametrize(("chosen", "status"), [("", 400), ("x", 400), ("9" * 30, 400), ("999", 404)])
def test_a_choice_that_is_none_is_refused(
    browser: Callable[..., Client], workspace: Workspace, owner: User, chosen: str, status: int
) -> None:
    assert browser(owner).post("/workspaces/select", {"workspace": chosen}).status_code == status


def test_stranger_cannot_select_a_workspace(
    browser: Callable[..., Client], workspace: Workspace, stranger: User
) -> None:
    assert browser(stranger).post("/workspaces/select", {"workspace": workspace.pk}).status_code == 404


def test_a_workspace_that_one_left_is_forgotten(
    browser: Callable[..., Client], workspace: Workspace, viewer: User
) -> None:
    client = browser(viewer)
    client.get(f"/workspaces/{workspace.pk}/members")
    Membership.objects.filter(user=viewer).delete()
    assert client.get("/")["Location"] == "/workspaces"


def test_members_are_seen_by_all_and_changed_by_owners(
    statuses: Callable[..., dict[str, int]], workspace: Workspace, stranger: User
) -> None:
    address = f"/workspaces/{workspace.pk}/members"
    assert statuses(address) == {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}
    sent = {"email": stranger.email, "role": "viewer"}
    answers = statuses(address, "post", without=("owner",), **sent)
    assert answers == {"member": 403, "viewer": 403, "stranger": 404}


def test_owner_adds_a_member_and_changes_the_role(
    browser: Callable[..., Client], workspace: Workspace, owner: User, stranger: User
) -> None:
    client, address = browser(owner), f"/workspaces/{workspace.pk}/members"
    assert client.post(address, {"email": stranger.email, "role": "viewer"}).status_code == 302
    page = client.get(address).content.decode()
    assert "stranger@example.com is now viewer of factory." in page
    client.post(address, {"email": stranger.email, "role": "collaborator"})
    assert Membership.objects.get(user=stranger).role == Role.COLLABORATOR


def test_unknown_person_is_told_at_the_field(browser: Callable[..., Client], workspace: Workspace, owner: User) -> None:
    answer = browser(owner).post(f"/workspaces/{workspace.pk}/members", {"email": "who@example.com", "role": "viewer"})
    assert answer.status_code == 422
    assert "There is no user who@example.com" in answer.content.decode()


def test_members_without_the_role_see_no_actions(
    browser: Callable[..., Client], workspace: Workspace, member: User
) -> None:
    page = browser(member).get(f"/workspaces/{workspace.pk}/members").content.decode()
    assert "Remove" not in page
    assert "Save member" not in page


def test_removal_is_asked_with_its_effect_and_then_done(
    browser: Callable[..., Client], workspace: Workspace, owner: User, viewer: User
) -> None:
    client, address = browser(owner), f"/workspaces/{workspace.pk}/members/{viewer.public_id}/remove"
    question = client.get(address).content.decode()
    assert "viewer@example.com will no longer see factory" in question
    assert "<html" in question
    assert "<html" not in client.get(address, headers={"HX-Request": "true"}).content.decode()
    assert client.post(address)["Location"] == f"/workspaces/{workspace.pk}/members"
    assert not Membership.objects.filter(user=viewer).exists()


def test_only_owners_remove(statuses: Callable[..., dict[str, int]], workspace: Workspace, viewer: User) -> None:
    address = f"/workspaces/{workspace.pk}/members/{viewer.public_id}/remove"
    assert statuses(address) == {"owner": 200, "member": 403, "viewer": 403, "stranger": 404}
    answers = statuses(address, "post", without=("owner",))
    assert answers == {"member": 403, "viewer": 403, "stranger": 404}


def test_last_owner_stays_and_is_told_why(browser: Callable[..., Client], workspace: Workspace, owner: User) -> None:
    answer = browser(owner).post(f"/workspaces/{workspace.pk}/members/{owner.public_id}/remove")
    assert answer.status_code == 409
    assert "is the last owner of factory" in answer.content.decode()


def test_lists_need_as_many_queries_for_many_as_for_one(
    browser: Callable[..., Client], workspace: Workspace, owner: User
) -> None:
    client = browser(owner)
    addresses = (f"/workspaces/{workspace.pk}/members", "/workspaces")  # the first is remembered, which saves a query

    def counted(address: str) -> int:
        client.get(address)
        with CaptureQueriesContext(connection) as queries:
            client.get(address)
        return len(queries)

    few = [counted(address) for address in addresses]
    for number in range(20):
        made = Workspace.objects.create(name=f"workspace-{number}", created_by=owner)
        Membership.objects.create(workspace=made, user=owner, role=Role.OWNER)
        user = User.objects.create_user(f"user-{number}@example.com")
        Membership.objects.create(workspace=workspace, user=user, role=Role.VIEWER)
    assert [counted(address) for address in addresses] == few
