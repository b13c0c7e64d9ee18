from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from rest_framework.test import APIClient

from catalog.models import Membership, Role, User, Workspace

Api = Callable[..., APIClient]


@pytest.fixture(autouse=True)
def no_throttle_history() -> None:
    cache.clear()


def test_a_password_gives_a_token_that_works(owner: User) -> None:
    client = APIClient()
    answer = client.post("/api/v1/auth/token", {"email": owner.email, "password": "owner-password-1"})
    assert answer.status_code == 201
    client.credentials(HTTP_AUTHORIZATION=f"Token {answer.json()['token']}")
    assert client.get("/api/v1/me").json()["email"] == owner.email


@pytest.mark.parametrize("given", [{"password": "wrong"}, {"email": "nobody@example.com"}])
def test_a_wrong_password_and_an_unknown_address_look_the_same(owner: User, given: dict[str, str]) -> None:
    body = {"email": owner.email, "password": "owner-password-1"} | given
    answer = APIClient().post("/api/v1/auth/token", body)
    assert answer.status_code == 401
    assert answer.json() == {"code": "not_authenticated", "message": "The e-mail address or the password is wrong."}


def test_guessing_passwords_is_slowed_down(owner: User) -> None:
    answers = [
        APIClient().post("/api/v1/auth/token", {"email": owner.email, "password": "wrong"}).status_code
        for _ in range(25)
    ]
    assert answers[0] == 401
    assert answers[-1] == 429


def test_a_made_up_token_is_refused(owner: User) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION="Token " + "0" * 64)
    answer = client.get("/api/v1/me")
    assert answer.status_code == 401
    assert set(answer.json()) == {"code", "message"}


def test_who_makes_a_workspace_owns_it(api: Api, stranger: User) -> None:
    made = api(stranger).post("/api/v1/workspaces", {"name": "line 7"})
    assert made.status_code == 201
    members = api(stranger).get(f"/api/v1/workspaces/{made.json()['id']}/members").json()["results"]
    assert [(m["user"]["email"], m["role"]) for m in members] == [(stranger.email, "owner")]


def test_a_taken_name_is_a_conflict(api: Api, stranger: User, workspace: Workspace) -> None:
    answer = api(stranger).post("/api/v1/workspaces", {"name": workspace.name})
    assert answer.status_code == 409
    assert answer.json()["code"] == "name_taken"


def test_only_ones_own_workspaces_are_listed(api: Api, viewer: User, stranger: User, workspace: Workspace) -> None:
    assert [w["id"] for w in api(viewer).get("/api/v1/workspaces").json()["results"]] == [workspace.pk]
    assert api(stranger).get("/api/v1/workspaces").json()["results"] == []


def test_an_administrator_sees_every_workspace(api: Api, workspace: Workspace) -> None:
    admin = User.objects.create_superuser("admin@example.com", "admin-password-1")
    assert api(admin).get(f"/api/v1/workspaces/{workspace.pk}").status_code == 200


@pytest.mark.parametrize("path", ["", "/members", "/models", "/pipelines"])
def test_a_stranger_gets_404_and_nobody_401(api: Api, stranger: User, workspace: Workspace, path: str) -> None:
    url = f"/api/v1/workspaces/{workspace.pk}{path}"
    assert api(stranger).get(url).status_code == 404
    assert api().get(url).status_code == 401


def members_url(workspace: Workspace) -> str:
    return f"/api/v1/workspaces/{workspace.pk}/members"


def test_an_owner_lets_a_user_in(api: Api, owner: User, stranger: User, workspace: Workspace) -> None:
    answer = api(owner).post(members_url(workspace), {"email": "Stranger@Example.com", "role": "viewer"})
    assert answer.status_code == 200
    assert api(stranger).get(f"/api/v1/workspaces/{workspace.pk}").status_code == 200


def test_a_collaborator_may_not_let_anybody_in(api: Api, member: User, stranger: User, workspace: Workspace) -> None:
    answer = api(member).post(members_url(workspace), {"email": stranger.email, "role": "viewer"})
    assert answer.status_code == 403
    assert "owner" in answer.json()["message"]


def test_an_unknown_user_cannot_be_let_in(api: Api, owner: User, workspace: Workspace) -> None:
    answer = api(owner).post(members_url(workspace), {"email": "nobody@example.com", "role": "viewer"})
    assert answer.status_code == 404
    assert "administrator" in answer.json()["message"]


@pytest.mark.parametrize("change", ["demote", "remove"])
def test_the_last_owner_stays(api: Api, owner: User, workspace: Workspace, change: str) -> None:
    client = api(owner)
    if change == "demote":
        answer: Any = client.post(members_url(workspace), {"email": owner.email, "role": "viewer"})
    else:
        answer = client.delete(f"{members_url(workspace)}/{owner.public_id}")
    assert answer.status_code == 409
    assert Membership.objects.get(workspace=workspace, user=owner).role == Role.OWNER


def test_a_removed_member_sees_nothing(api: Api, owner: User, viewer: User, workspace: Workspace) -> None:
    assert api(owner).delete(f"{members_url(workspace)}/{viewer.public_id}").status_code == 204
    assert api(viewer).get(f"/api/v1/workspaces/{workspace.pk}").status_code == 404


def test_a_member_may_leave(api: Api, viewer: User, workspace: Workspace) -> None:
    assert api(viewer).delete(f"{members_url(workspace)}/{viewer.public_id}").status_code == 204
