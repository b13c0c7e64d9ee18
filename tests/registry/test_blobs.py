from pathlib import Path
from typing import Any, cast

import pytest
from django.http import StreamingHttpResponse
from django.test import RequestFactory

from registry import answers, blobs
from registry.references import Digest

CONTENT = bytes(range(256)) * 4096  # 1 MiB: more than one block of an answer


def test_blob_comes_back_whole(robot: Any) -> None:
    digest = robot.push_blob(CONTENT)
    answer = robot.call("GET", f"site/app/blobs/{digest}")
    assert answer.status_code == 200
    assert answer.getvalue() == CONTENT
    assert answer["Content-Length"] == str(len(CONTENT))
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Docker-Content-Digest"] == digest
    assert answer["Accept-Ranges"] == "bytes"


def test_head_tells_the_size_and_sends_nothing(robot: Any) -> None:
    digest = robot.push_blob(CONTENT)
    answer = robot.call("HEAD", f"site/app/blobs/{digest}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["Content-Length"] == str(len(CONTENT))
    assert answer["Docker-Content-Digest"] == digest


def test_sha512_blob_comes_back(robot: Any, sha256: Any) -> None:
    digest = robot.push_blob(CONTENT, algorithm="sha512")
    assert robot.call("GET", f"site/app/blobs/{digest}").getvalue() == CONTENT
    assert robot.call("GET", f"site/app/blobs/{sha256(CONTENT)}").status_code == 404


def test_empty_blob_comes_back(robot: Any) -> None:
    digest = robot.push_blob(b"")
    answer = robot.call("GET", f"site/app/blobs/{digest}")
    assert (answer.status_code, answer.getvalue(), answer["Content-Length"]) == (200, b"", "0")


def test_unknown_blob_is_404(robot: Any, codes: Any, sha256: Any) -> None:
    answer = robot.call("GET", f"site/app/blobs/{sha256(b'other')}")
    assert answer.status_code == 404
    assert codes(answer) == ["BLOB_UNKNOWN"]
    assert robot.call("HEAD", f"site/app/blobs/{sha256(b'other')}").status_code == 404


def test_blob_is_hidden_from_other_repositories(robot: Any) -> None:
    digest = robot.push_blob(CONTENT)
    assert robot.call("GET", f"site/other/blobs/{digest}").status_code == 404
    assert robot.call("GET", f"site/blobs/{digest}").status_code == 404
    assert robot.call("GET", f"site/app/deeper/blobs/{digest}").status_code == 404


@pytest.mark.parametrize(
    "digest", ["sha256:short", "sha256:" + "A" * 64, "sha256:" + "g" * 64, "md5:" + "0" * 32, "sha512:" + "0" * 64, "x"]
)
def test_malformed_digest_is_refused(robot: Any, codes: Any, digest: str) -> None:
    answer = robot.call("GET", f"site/app/blobs/{digest}")
    assert answer.status_code == 400
    assert codes(answer) == ["DIGEST_INVALID"]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=700000-", 700_000, len(CONTENT) - 1),
        ("bytes=100-700000", 100, 700_000),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT) - 1),
        ("bytes=10-99999999", 10, len(CONTENT) - 1),
        ("bytes=-99999999", 0, len(CONTENT) - 1),
    ],
)
def test_range_is_served(robot: Any, asked: str, first: int, last: int) -> None:
    digest = robot.push_blob(CONTENT)
    answer = robot.call("GET", f"site/app/blobs/{digest}", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer["Content-Range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert answer["Content-Length"] == str(last - first + 1)
    assert answer.getvalue() == CONTENT[first : last + 1]


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=99999999-999999999", "bytes=-0"])
def test_range_behind_the_end_is_416(robot: Any, asked: str) -> None:
    digest = robot.push_blob(CONTENT)
    answer = robot.call("GET", f"site/app/blobs/{digest}", headers={"Range": asked})
    assert answer.status_code == 416
    assert answer["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=-1"])
def test_empty_blob_has_no_ranges(robot: Any, asked: str) -> None:
    digest = robot.push_blob(b"")
    answer = robot.call("GET", f"site/app/blobs/{digest}", headers={"Range": asked})
    assert answer.status_code == 416
    assert answer["Content-Range"] == "bytes */0"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,5-6", "bytes=a-b"])
def test_range_that_cannot_be_read_gets_the_whole(robot: Any, asked: str) -> None:
    digest = robot.push_blob(CONTENT)
    answer = robot.call("GET", f"site/app/blobs/{digest}", headers={"Range": asked})
    assert answer.status_code == 200
    assert answer.getvalue() == CONTENT


def test_head_answers_for_the_range(robot: Any) -> None:
    digest = robot.push_blob(CONTENT)
    answer = robot.call("HEAD", f"site/app/blobs/{digest}", headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer["Content-Length"], answer.content) == (206, "10", b"")


def test_range_of_other_content_gets_the_whole(robot: Any) -> None:
    digest = robot.push_blob(CONTENT)
    path = f"site/app/blobs/{digest}"
    etag = robot.call("HEAD", path)["ETag"]
    assert robot.call("HEAD", path, headers={"Range": "bytes=0-9", "If-Range": etag}).status_code == 206
    assert robot.call("HEAD", path, headers={"Range": "bytes=0-9", "If-Range": '"older"'}).status_code == 200


def test_download_goes_on_after_its_blob_is_deleted(robot: Any) -> None:
    digest = robot.push_blob(CONTENT)
    answer = robot.call("GET", f"site/app/blobs/{digest}")
    assert robot.call("DELETE", f"site/app/blobs/{digest}").status_code == 202
    assert answer.getvalue() == CONTENT


def test_dropped_download_closes_its_file(db: None, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    answer = cast(StreamingHttpResponse, answers.blob(RequestFactory().get("/"), path, Digest.of(CONTENT)))
    assert next(iter(answer))
    answer.close()
    with pytest.raises(ValueError, match="closed file"):
        next(iter(answer))


def test_blob_deleted_while_it_is_looked_up_is_404(robot: Any, codes: Any, monkeypatch: Any) -> None:
    digest = robot.push_blob(CONTENT)
    looked_up = blobs.blob_for

    def and_deleted(*arguments: Any) -> Path:
        path = looked_up(*arguments)
        path.unlink()
        return path

    monkeypatch.setattr(blobs, "blob_for", and_deleted)
    answer = robot.call("GET", f"site/app/blobs/{digest}")
    assert answer.status_code == 404
    assert codes(answer) == ["BLOB_UNKNOWN"]


def test_deleted_blob_is_gone(robot: Any, codes: Any, data_folder: Any) -> None:
    digest = robot.push_blob(CONTENT)
    assert robot.call("DELETE", f"site/app/blobs/{digest}").status_code == 202
    assert robot.call("GET", f"site/app/blobs/{digest}").status_code == 404
    again = robot.call("DELETE", f"site/app/blobs/{digest}")
    assert again.status_code == 404
    assert codes(again) == ["BLOB_UNKNOWN"]
    assert [path for path in (data_folder / "registry").rglob("*") if path.is_file()] == []


def test_deleted_blob_stays_in_other_repositories(robot: Any) -> None:
    digest = robot.push_blob(CONTENT, "site/app")
    robot.push_blob(CONTENT, "site/other")
    robot.call("DELETE", f"site/app/blobs/{digest}")
    assert robot.call("GET", f"site/other/blobs/{digest}").getvalue() == CONTENT
    assert robot.push_blob(CONTENT, "site/app") == digest


def test_same_bytes_are_stored_once(robot: Any, data_folder: Any) -> None:
    for name in ("a", "b", "c"):
        robot.push_blob(CONTENT, name)
    files = [path for path in (data_folder / "registry").rglob("*") if path.is_file()]
    assert len({path.stat().st_ino for path in files}) == 1
