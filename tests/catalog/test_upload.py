import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from rest_framework.test import APIClient

from catalog import storage
from catalog.models import ModelVersion, User, Workspace

Api = Callable[..., APIClient]
MakeOnnx = Callable[..., bytes]


def upload(client: APIClient, workspace: Workspace, content: bytes, **fields: Any) -> Any:
    body = {"name": "house-price", "file": SimpleUploadedFile("m.onnx", content)} | fields
    return client.post(f"/api/v1/workspaces/{workspace.pk}/models", body, format="multipart")


def drafts(settings: Any) -> list[Path]:
    return list((Path(settings.MODEL_ROOT) / "incoming").glob("*"))


def test_an_uploaded_model_is_stored_by_its_digest_and_described(
    api: Api, member: User, workspace: Workspace, make_onnx: MakeOnnx, settings: Any
) -> None:
    content = make_onnx()
    answer = upload(api(member), workspace, content, tensor_fields=["tensor"])
    assert answer.status_code == 201, answer.json()
    body = answer.json()
    assert body["sha256"] == hashlib.sha256(content).hexdigest()
    assert body["size"] == len(content)
    assert body["status"] == "ready"
    assert body["inputs"] == [{"name": "x", "type": "float32", "shape": [None, 18]}]
    assert body["config"]["tensor_fields"] == ["tensor"]
    assert storage.path_of(body["sha256"]).read_bytes() == content
    assert drafts(settings) == []


def test_uploading_a_known_name_adds_a_version(
    api: Api, member: User, workspace: Workspace, make_onnx: MakeOnnx
) -> None:
    first = upload(api(member), workspace, make_onnx()).json()
    second = upload(api(member), workspace, make_onnx(features=4)).json()
    assert first["model"]["id"] == second["model"]["id"]
    versions = api(member).get(f"/api/v1/models/{first['model']['id']}/versions").json()["results"]
    assert [version["id"] for version in versions] == [second["id"], first["id"]]


def test_something_that_is_not_onnx_becomes_a_version_with_the_reason(
    api: Api, member: User, workspace: Workspace
) -> None:
    body = upload(api(member), workspace, b"this is a picture").json()
    assert body["status"] == "error"
    assert "not an ONNX model" in body["error"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "Not A Name"}, "lower-case"),
        ({"name": "x" * 64}, "63"),
        ({"framework": "tensorflow-lite"}, "framework is one of"),
        ({"arch": "z80"}, "arch is one of"),
        ({"accel": "abacus"}, "accel is one of"),
        ({"tensor_fields": ["a", "b"]}, "1 inputs"),
        ({"tensor_fields": ["a", "a"]}, "different column names"),
        ({"file": "not a file"}, "file"),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(
    api: Api, member: User, workspace: Workspace, make_onnx: MakeOnnx, settings: Any, fields: dict[str, Any], says: str
) -> None:
    answer = upload(api(member), workspace, make_onnx(), **fields)
    assert answer.status_code == 400, answer.json()
    assert says in answer.json()["message"]
    assert not ModelVersion.objects.exists()
    assert drafts(settings) == []


def test_an_empty_file_is_refused(api: Api, member: User, workspace: Workspace) -> None:
    answer = upload(api(member), workspace, b"")
    assert answer.status_code == 400
    assert "empty" in answer.json()["message"]


def test_a_model_past_the_limit_is_refused_and_leaves_nothing(
    api: Api, member: User, workspace: Workspace, settings: Any
) -> None:
    settings.MODEL_MAX_BYTES = 3 << 20
    answer = upload(api(member), workspace, b"x" * ((3 << 20) + 1))
    assert answer.status_code == 413
    assert answer.json()["limit"] == 3 << 20
    assert drafts(settings) == []


def test_a_body_far_past_the_limit_is_refused_by_its_length(
    api: Api, member: User, workspace: Workspace, settings: Any
) -> None:
    settings.MODEL_MAX_BYTES = 1 << 20
    assert upload(api(member), workspace, b"x" * (4 << 20)).status_code == 413


def test_a_full_disk_is_507_and_leaves_nothing(
    api: Api, member: User, workspace: Workspace, make_onnx: MakeOnnx, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    answer = upload(api(member), workspace, make_onnx())
    assert answer.status_code == 507
    assert "No space left" in answer.json()["message"]
    assert not ModelVersion.objects.exists()
    assert drafts(settings) == []


def test_a_viewer_may_not_upload(api: Api, viewer: User, workspace: Workspace, make_onnx: MakeOnnx) -> None:
    assert upload(api(viewer), workspace, make_onnx()).status_code == 403


def test_a_stranger_gets_404(api: Api, stranger: User, workspace: Workspace, make_onnx: MakeOnnx) -> None:
    assert upload(api(stranger), workspace, make_onnx()).status_code == 404


def test_nobody_gets_401(api: Api, workspace: Workspace, make_onnx: MakeOnnx) -> None:
    assert upload(api(), workspace, make_onnx()).status_code == 401


@pytest.mark.parametrize("path", ["/login", "/api/v1/auth/token", "/api/v1/workspaces"])
def test_a_file_that_nobody_asked_for_is_not_written_to_disk(
    client: Client, db: None, settings: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def refuse() -> None:
        raise AssertionError("a file was begun")

    monkeypatch.setattr(storage, "Writer", refuse)
    answer = client.post(path, {"file": SimpleUploadedFile("m.onnx", b"x" * 100_000)})
    assert 400 <= answer.status_code < 500 or path == "/login"
