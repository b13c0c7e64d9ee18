"""Uploads of Python steps: the zip is read and never run."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from catalog import python_files
from catalog.models import User, Workspace
from catalog.onnx_files import UnusableModel
from tests.conftest import CONTRACT

Api = Callable[..., APIClient]
GOLDEN = json.loads((CONTRACT / "python_manifests.json").read_text())


def zipped(manifest: Any, **files: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, text in (files or {"step.py": "raise SystemExit('the center must not run this')"}).items():
            archive.writestr(name, text)
    return sink.getvalue()


def upload(client: APIClient, workspace: Workspace, content: bytes) -> Any:
    body = {"name": "prepare", "framework": "python", "file": SimpleUploadedFile("prepare.zip", content)}
    return client.post(f"/api/v1/workspaces/{workspace.pk}/models", body, format="multipart").json()


def test_an_uploaded_zip_is_described_by_its_manifest(api: Api, member: User, workspace: Workspace) -> None:
    body = upload(api(member), workspace, zipped(GOLDEN["good"][0]))
    assert (body["status"], body["error"], body["framework"]) == ("ready", "", "python")
    assert body["inputs"] == [{"name": "x", "type": "float32", "shape": [None, 2]}]


def test_a_zip_without_a_manifest_becomes_a_version_with_the_reason(
    api: Api, member: User, workspace: Workspace
) -> None:
    assert "not a zip" in upload(api(member), workspace, b"print('hello')")["error"]


@pytest.mark.parametrize("manifest", GOLDEN["good"])
def test_a_good_manifest_is_taken(tmp_path: Path, manifest: Any) -> None:
    path = tmp_path / "step.zip"
    path.write_bytes(zipped(manifest))
    assert [tensor.name for tensor in python_files.read_schema(path).inputs]


@pytest.mark.parametrize("bad", GOLDEN["bad"], ids=lambda bad: bad["says"])
def test_a_bad_manifest_is_refused(tmp_path: Path, bad: Any) -> None:
    path = tmp_path / "step.zip"
    path.write_bytes(zipped(bad["manifest"]))
    with pytest.raises(UnusableModel) as refused:
        python_files.read_schema(path)
    assert bad["says"].lower() in str(refused.value).lower()


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py", "a/../../outside.py"])
def test_a_zip_that_would_write_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "step.zip"
    path.write_bytes(zipped(GOLDEN["good"][0], **{"step.py": "", name: ""}))
    with pytest.raises(UnusableModel, match="outside"):
        python_files.read_schema(path)
