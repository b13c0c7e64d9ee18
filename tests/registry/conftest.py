"""A client of the registry with its account, and the few pushes that most tests begin with."""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pytest
from django.http import HttpResponseBase
from django.test import Client

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def descriptor_of(content: bytes, media_type: str, algorithm: str = "sha256") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content, algorithm), "size": len(content)}


@dataclass
class Robot:
    """Speaks to the registry as its robot account. Addresses are given from behind `/v2/`."""

    client: Client

    def call(self, method: str, path: str, content: bytes = b"", **arguments: Any) -> Any:
        arguments.setdefault("content_type", "application/octet-stream")
        address = path if path.startswith("/v2/") else f"/v2/{path}"
        return self.client.generic(method, address, content, **arguments)

    def begin(self, name: str = "site/app") -> str:
        """Begin an upload and return where to send it."""
        answer = self.call("POST", f"{name}/blobs/uploads/")
        assert answer.status_code == 202
        return str(answer["Location"])

    def patch(self, location: str, content: bytes, content_range: str | None = None) -> Any:
        headers = {} if content_range is None else {"Content-Range": content_range}
        return self.call("PATCH", location, content, headers=headers)

    def push_blob(self, content: bytes, name: str = "site/app", algorithm: str = "sha256") -> str:
        digest = digest_of(content, algorithm)
        answer = self.call("POST", f"{name}/blobs/uploads/?digest={digest}", content)
        assert answer.status_code == 201, answer.content
        return digest

    def push_manifest(
        self,
        document: dict[str, Any],
        reference: str | None = None,
        name: str = "site/app",
        media_type: str = OCI_MANIFEST,
    ) -> Any:
        content = json.dumps(document).encode()
        path = f"{name}/manifests/{reference or digest_of(content)}"
        return self.call("PUT", path, content, content_type=media_type)

    def push_artifact(self, reference: str | None = None, name: str = "site/app", **fields: Any) -> str:
        """Push a manifest of one layer with its blobs, and return its digest."""
        self.push_blob(b"{}", name)
        self.push_blob(b"layer", name)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor_of(b"{}", EMPTY_TYPE),
            "layers": [descriptor_of(b"layer", "text/plain")],
        }
        answer = self.push_manifest(document | fields, reference, name)
        assert answer.status_code == 201, answer.content
        return str(answer["Docker-Content-Digest"])

    def index_of(self, *digests: str, **fields: Any) -> dict[str, Any]:
        entries = [{"mediaType": OCI_MANIFEST, "digest": digest, "size": 1} for digest in digests]
        return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries} | fields


@pytest.fixture
def robot(settings: Any) -> Robot:
    settings.REGISTRY_USERNAME = "robot"
    settings.REGISTRY_PASSWORD = "robot-password-1"
    token = base64.b64encode(b"robot:robot-password-1").decode()
    return Robot(Client(headers={"Authorization": f"Basic {token}"}))


@pytest.fixture
def codes() -> Any:
    """The error codes of an answer, after a look at its form."""

    def read(answer: HttpResponseBase) -> list[str]:
        assert answer["Content-Type"] == "application/json"
        assert answer["Docker-Distribution-API-Version"] == "registry/2.0"
        errors = json.loads(answer.content)["errors"]  # type: ignore[attr-defined]
        assert all(error["message"] for error in errors)
        return [error["code"] for error in errors]

    return read


@pytest.fixture
def sha256() -> Any:
    return digest_of


@pytest.fixture
def descriptor() -> Any:
    return descriptor_of
