"""Pages of models."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog import storage
from catalog.models import ModelVersion, User, Workspace


@pytest.fixture
def address(workspace: Workspace) -> str:
    return f"/workspaces/{workspace.pk}/models"


def upload(content: bytes, **changes: Any) -> dict[str, Any]:
    file = SimpleUploadedFile("house.onnx", content)
    return {"name": "house-price", "file": file, "arch": "x86", "accel": "none"} | changes


def test_everybody_in_the_workspace_sees_models(
    statuses: Callable[..., dict[str, int]], address: str, make_model_version: Callable[..., ModelVersion]
) -> None:
    version = make_model_version()
    seen = {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}
    assert statuses(address) == seen
    assert statuses(f"/models/{version.model.pk}") == seen


def test_upload_needs_a_collaborator(statuses: Callable[..., dict[str, int]], address: str) -> None:
    assert statuses(f"{address}/upload") == {"owner": 200, "member": 200, "viewer": 403, "stranger": 404}
    answers = statuses(f"{address}/upload", "post", without=("owner", "member"))
    assert answers == {"viewer": 403, "stranger": 404}


def test_member_uploads_a_model(
    browser: Callable[..., Client], address: str, member: User, make_onnx: Callable[..., bytes]
) -> None:
    client = browser(member)
    answer = client.post(f"{address}/upload", upload(make_onnx(), tensor_fields="tensor"))
    version = ModelVersion.objects.get()
    assert answer["Location"] == f"/models/{version.model.pk}"
    assert version.status == ModelVersion.Status.READY
    assert version.configs.get().tensor_fields == ["tensor"]
    page = client.get(answer["Location"]).content.decode()
    assert f"Version {str(version.uuid)[:8]} of house-price is ready." in page
    assert version.sha256 in page
    assert "[n, 18]" in page
    assert str(version.uuid) in page


def test_unusable_file_is_kept_with_its_reason(browser: Callable[..., Client], address: str, member: User) -> None:
    client = browser(member)
    answer = client.post(f"{address}/upload", upload(b"not a model"))
    version = ModelVersion.objects.get()
    assert version.status == ModelVersion.Status.ERROR
    page = client.get(answer["Location"]).content.decode()
    assert "no engine can serve it" in page
    assert "Not usable" in page


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "House Price"}, "Use lower-case letters, digits and hyphens"),
        ({"file": ""}, "This field is required."),
        ({"tensor_fields": "a, b, c"}, "tensor_fields names 3 columns, the model has 1 inputs"),
        ({"arch": "z80"}, "Select a valid choice"),
    ],
)
def test_refused_upload_says_why_and_stores_no_version(
    browser: Callable[..., Client],
    address: str,
    member: User,
    make_onnx: Callable[..., bytes],
    changes: dict[str, Any],
    told: str,
) -> None:
    answer = browser(member).post(f"{address}/upload", upload(make_onnx(), **changes))
    assert answer.status_code == 422
    assert told in answer.content.decode()
    assert not ModelVersion.objects.exists()


def test_nobody_writes_to_disk_before_it_is_known_who_sends(
    browser: Callable[..., Client], address: str, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("a draft was begun")

    monkeypatch.setattr(storage.Writer, "__init__", never)
    assert browser(viewer).post(f"{address}/upload", upload(b"x" * 10_000)).status_code == 403
    assert browser().post(f"{address}/upload", upload(b"x" * 10_000)).status_code == 302


def test_upload_without_the_forms_token_is_refused(workspace: Workspace, address: str, owner: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    answer = client.post(f"{address}/upload", upload(b"x"))
    assert answer.status_code == 403
    assert not ModelVersion.objects.exists()


def test_empty_list_teaches_the_next_step_to_who_can_take_it(
    browser: Callable[..., Client], address: str, member: User, viewer: User
) -> None:
    assert "Upload the first model" in browser(member).get(address).content.decode()
    page = browser(viewer).get(address).content.decode()
    assert "No models yet" in page
    assert f"{address}/upload" not in page


def test_list_needs_as_many_queries_for_many_models_as_for_one(
    browser: Callable[..., Client], address: str, owner: User, make_model_version: Callable[..., ModelVersion]
) -> None:
    client = browser(owner)
    make_model_version("model-0")
    client.get(address)
    with CaptureQueriesContext(
        connection,
    ) as one:
        client.get(address)
    for number in range(1, 20):
        make_model_version(f"model-{number}")
        make_model_version(f"model-{number}", b"second")
    with CaptureQueriesContext(connection) as many:
        client.get(address)
    assert len(many) == len(one)
