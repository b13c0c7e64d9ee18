import io
import json
from typing import Any

import pytest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
EMPTY = "application/vnd.oci.empty.v1+json"


@pytest.fixture
def document(robot: Any, descriptor: Any) -> dict[str, Any]:
    """A manifest whose blobs are there."""
    robot.push_blob(b"{}")
    robot.push_blob(b"layer")
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(b"{}", EMPTY),
        "layers": [descriptor(b"layer", "text/plain")],
    }


def test_manifest_comes_back_byte_for_byte(robot: Any, document: dict[str, Any], sha256: Any) -> None:
    content = ("\n " + json.dumps(document, indent=3) + "\n\n").encode()
    pushed = robot.call("PUT", "site/app/manifests/v1", content, content_type=OCI_MANIFEST)
    assert pushed.status_code == 201
    assert pushed["Docker-Content-Digest"] == sha256(content)
    assert pushed["Location"] == f"/v2/site/app/manifests/{sha256(content)}"
    assert "OCI-Subject" not in pushed
    for reference in ("v1", sha256(content)):
        answer = robot.call("GET", f"site/app/manifests/{reference}")
        assert answer.status_code == 200
        assert answer.content == content
        assert answer["Content-Type"] == OCI_MANIFEST
        assert answer["Docker-Content-Digest"] == sha256(content)


def test_head_tells_size_and_digest(robot: Any, document: dict[str, Any], sha256: Any) -> None:
    robot.push_manifest(document, "v1")
    answer = robot.call("HEAD", "site/app/manifests/v1")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["Content-Length"] == str(len(json.dumps(document)))
    assert answer["Docker-Content-Digest"] == sha256(json.dumps(document).encode())
    assert answer["Content-Type"] == OCI_MANIFEST


def test_tag_moves_and_the_older_manifest_stays(robot: Any, document: dict[str, Any]) -> None:
    first = robot.push_manifest(document, "latest")["Docker-Content-Digest"]
    second = robot.push_manifest(document | {"annotations": {"n": "2"}}, "latest")["Docker-Content-Digest"]
    assert robot.call("HEAD", "site/app/manifests/latest")["Docker-Content-Digest"] == second
    assert robot.call("HEAD", f"site/app/manifests/{first}").status_code == 200


def test_manifest_pushed_by_digest_has_no_tag(robot: Any, document: dict[str, Any]) -> None:
    digest = robot.push_manifest(document)["Docker-Content-Digest"]
    assert robot.call("GET", f"site/app/manifests/{digest}").json() == document
    assert robot.call("GET", "site/app/tags/list").json() == {"name": "site/app", "tags": []}


def test_manifest_may_be_named_by_sha512(robot: Any, document: dict[str, Any], sha256: Any) -> None:
    digest = sha256(json.dumps(document).encode(), "sha512")
    assert robot.push_manifest(document, digest)["Docker-Content-Digest"] == digest
    assert robot.call("GET", f"site/app/manifests/{digest}").json() == document


def test_docker_image_and_list_are_taken(robot: Any, document: dict[str, Any]) -> None:
    image = robot.push_manifest(document | {"mediaType": DOCKER_MANIFEST}, "v1", media_type=DOCKER_MANIFEST)
    assert image.status_code == 201
    listing = robot.index_of(image["Docker-Content-Digest"], mediaType=DOCKER_LIST)
    assert robot.push_manifest(listing, "all", media_type=DOCKER_LIST).status_code == 201
    assert robot.call("GET", "site/app/manifests/all")["Content-Type"] == DOCKER_LIST


def test_index_of_indexes_is_taken(robot: Any, document: dict[str, Any]) -> None:
    image = robot.push_manifest(document)["Docker-Content-Digest"]
    index = robot.push_manifest(robot.index_of(image), media_type=OCI_INDEX)["Docker-Content-Digest"]
    assert robot.push_manifest(robot.index_of(index, image), "all", media_type=OCI_INDEX).status_code == 201
    assert robot.push_manifest(robot.index_of(), "none", media_type=OCI_INDEX).status_code == 201


def test_media_type_in_the_document_may_be_left_out(robot: Any, document: dict[str, Any]) -> None:
    del document["mediaType"]
    assert robot.push_manifest(document, "v1").status_code == 201


def test_content_type_may_have_parameters(robot: Any, document: dict[str, Any]) -> None:
    assert robot.push_manifest(document, "v1", media_type=f"{OCI_MANIFEST}; charset=utf-8").status_code == 201
    assert robot.call("GET", "site/app/manifests/v1")["Content-Type"] == OCI_MANIFEST


def test_layers_kept_elsewhere_may_be_absent(robot: Any, document: dict[str, Any], descriptor: Any) -> None:
    for kind in (
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ):
        layers = [*document["layers"], descriptor(b"elsewhere", kind)]
        assert robot.push_manifest(document | {"layers": layers}, "v1").status_code == 201


def test_manifest_is_hidden_from_other_repositories(robot: Any, document: dict[str, Any]) -> None:
    digest = robot.push_manifest(document, "v1")["Docker-Content-Digest"]
    for reference in ("v1", digest):
        assert robot.call("GET", f"site/other/manifests/{reference}").status_code == 404


@pytest.mark.parametrize("reference", ["v2", ".hidden", "-x", "x" * 129, "sha256:" + "0" * 64])
def test_unknown_manifest_is_404(robot: Any, codes: Any, reference: str) -> None:
    robot.push_artifact("v1")
    answer = robot.call("GET", f"site/app/manifests/{reference}")
    assert answer.status_code == 404
    assert codes(answer) == ["MANIFEST_UNKNOWN"]
    assert robot.call("HEAD", f"site/app/manifests/{reference}").status_code == 404
    assert robot.call("DELETE", f"site/app/manifests/{reference}").status_code == 404


def test_missing_blobs_are_each_named(robot: Any, codes: Any, document: dict[str, Any], descriptor: Any) -> None:
    missing = [descriptor(b"one", "text/plain"), descriptor(b"two", "text/plain")]
    answer = robot.push_manifest(document | {"layers": missing}, "v1")
    assert answer.status_code == 404
    assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"] * 2
    assert [error["detail"]["digest"] for error in answer.json()["errors"]] == [entry["digest"] for entry in missing]
    assert robot.call("GET", "site/app/manifests/v1").status_code == 404


def test_blob_of_another_repository_does_not_count(robot: Any, codes: Any, document: dict[str, Any]) -> None:
    assert codes(robot.push_manifest(document, "v1", "site/other")) == ["MANIFEST_BLOB_UNKNOWN"] * 2


def test_index_needs_its_manifests(robot: Any, codes: Any, sha256: Any) -> None:
    # A blob of that digest is no manifest.
    blob = robot.push_blob(b"layer")
    answer = robot.push_manifest(robot.index_of(blob), "all", media_type=OCI_INDEX)
    assert answer.status_code == 404
    assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]


@pytest.mark.parametrize(
    "fields",
    [
        {"schemaVersion": 1},
        {"schemaVersion": "2"},
        {"mediaType": OCI_INDEX},
        {"mediaType": 7},
        {"config": None},
        {"config": {"digest": 7}},
        {"config": {"digest": "sha256:1"}},
        {"layers": {}},
        {"layers": ["x"]},
        {"layers": [{"digest": "md5:1"}]},
        {"manifests": []},
        {"annotations": ["x"]},
        {"subject": {}},
        {"subject": "sha256:1"},
    ],
)
def test_malformed_manifest_is_refused(
    robot: Any, codes: Any, document: dict[str, Any], fields: dict[str, Any]
) -> None:
    answer = robot.push_manifest(document | fields, "v1")
    assert answer.status_code == 400
    assert codes(answer) == ["MANIFEST_INVALID"]
    assert robot.call("GET", "site/app/manifests/v1").status_code == 404


@pytest.mark.parametrize("fields", [{"layers": []}, {"config": {}}, {"manifests": None}, {"manifests": [7]}])
def test_malformed_index_is_refused(robot: Any, codes: Any, fields: dict[str, Any]) -> None:
    answer = robot.push_manifest(robot.index_of() | fields, "v1", media_type=OCI_INDEX)
    assert answer.status_code == 400
    assert codes(answer) == ["MANIFEST_INVALID"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000])
def test_body_that_is_no_document_is_refused(robot: Any, codes: Any, content: bytes) -> None:
    answer = robot.call("PUT", "site/app/manifests/v1", content, content_type=OCI_MANIFEST)
    assert answer.status_code == 400
    assert codes(answer) == ["MANIFEST_INVALID"]


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.docker.distribution.manifest.v1+json", ""])
def test_other_media_types_are_refused(robot: Any, codes: Any, document: dict[str, Any], kind: str) -> None:
    answer = robot.push_manifest(document, "v1", media_type=kind)
    assert answer.status_code == 400
    assert codes(answer) == ["MANIFEST_INVALID"]


@pytest.mark.parametrize("tag", [".x", "-x", "x" * 129, "a b"])
def test_invalid_tag_is_refused(robot: Any, codes: Any, document: dict[str, Any], tag: str) -> None:
    answer = robot.push_manifest(document, tag)
    assert answer.status_code == 400
    assert codes(answer) == ["MANIFEST_INVALID"]


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha256:1", "sha512:" + "0" * 128])
def test_other_digest_than_its_own_is_refused(robot: Any, codes: Any, document: dict[str, Any], digest: str) -> None:
    answer = robot.push_manifest(document, digest)
    assert answer.status_code == 400
    assert codes(answer) == ["DIGEST_INVALID"]


def test_manifest_of_4_mib_is_taken_and_one_byte_more_is_413(robot: Any, codes: Any, document: dict[str, Any]) -> None:
    limit = 4 * 1024 * 1024
    content = json.dumps(document).encode()
    full = content + b" " * (limit - len(content))
    assert robot.call("PUT", "site/app/manifests/full", full, content_type=OCI_MANIFEST).status_code == 201
    assert robot.call("GET", "site/app/manifests/full").content == full
    answer = robot.call("PUT", "site/app/manifests/more", full + b" ", content_type=OCI_MANIFEST)
    assert answer.status_code == 413
    assert codes(answer) == ["SIZE_INVALID"]


def test_manifest_of_unknown_length_is_bounded_too(robot: Any) -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            self.taken += size
            return b" " * size

    body = Endless()
    environ = {"CONTENT_TYPE": OCI_MANIFEST, "wsgi.input": body, "wsgi.input_terminated": True}
    answer = robot.call("PUT", "site/app/manifests/v1", content_type=OCI_MANIFEST, **environ)
    assert answer.status_code == 413
    assert body.taken <= 6 * 1024 * 1024


def test_deleted_tag_leaves_the_manifest(robot: Any) -> None:
    digest = robot.push_artifact("v1")
    assert robot.call("DELETE", "site/app/manifests/v1").status_code == 202
    assert robot.call("GET", "site/app/manifests/v1").status_code == 404
    assert robot.call("GET", f"site/app/manifests/{digest}").status_code == 200


def test_deleted_manifest_takes_its_tags_along(robot: Any) -> None:
    digest = robot.push_artifact("v1")
    robot.push_artifact("also-v1")
    other = robot.push_artifact("v2", annotations={"n": "2"})
    assert robot.call("DELETE", f"site/app/manifests/{digest}").status_code == 202
    for reference in ("v1", "also-v1", digest):
        assert robot.call("GET", f"site/app/manifests/{reference}").status_code == 404
    assert robot.call("GET", "site/app/tags/list").json()["tags"] == ["v2"]
    assert robot.call("GET", f"site/app/manifests/{other}").status_code == 200
    assert robot.call("DELETE", f"site/app/manifests/{digest}").status_code == 404


def test_malformed_digest_to_delete_is_refused(robot: Any, codes: Any) -> None:
    answer = robot.call("DELETE", "site/app/manifests/sha256:1")
    assert answer.status_code == 400
    assert codes(answer) == ["DIGEST_INVALID"]
