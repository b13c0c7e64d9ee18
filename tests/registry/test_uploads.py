import io
import uuid
from typing import Any

import pytest

CONTENT = b"0123456789" * 1000


def test_post_then_put_stores_the_blob(robot: Any, sha256: Any) -> None:
    digest = sha256(CONTENT)
    answer = robot.call("PUT", f"{robot.begin()}?digest={digest}", CONTENT)
    assert answer.status_code == 201
    assert answer["Location"] == f"/v2/site/app/blobs/{digest}"
    assert answer["Docker-Content-Digest"] == digest
    assert answer["Content-Length"] == "0"
    assert robot.call("GET", answer["Location"]).getvalue() == CONTENT


def test_begun_upload_says_where_it_goes_on(robot: Any) -> None:
    answer = robot.call("POST", "site/app/blobs/uploads/")
    upload_id = answer["Docker-Upload-UUID"]
    assert str(uuid.UUID(upload_id)) == upload_id
    assert answer["Location"] == f"/v2/site/app/blobs/uploads/{upload_id}"
    assert answer["Range"] == "0-0"


def test_single_post_stores_the_blob(robot: Any, sha256: Any) -> None:
    answer = robot.call("POST", f"site/app/blobs/uploads/?digest={sha256(CONTENT)}", CONTENT)
    assert answer.status_code == 201
    assert robot.call("GET", answer["Location"]).getvalue() == CONTENT


def test_streamed_patch_then_empty_put_stores_the_blob(robot: Any, sha256: Any) -> None:
    answer = robot.patch(robot.begin(), CONTENT)
    assert answer.status_code == 202
    assert answer["Range"] == f"0-{len(CONTENT) - 1}"
    assert robot.call("PUT", f"{answer['Location']}?digest={sha256(CONTENT)}").status_code == 201
    assert robot.call("GET", f"site/app/blobs/{sha256(CONTENT)}").getvalue() == CONTENT


def test_body_of_unknown_length_is_read_to_its_end(robot: Any, sha256: Any) -> None:
    # As granian hands over a chunked transfer: no CONTENT_LENGTH, and an input that ends by itself.
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": io.BytesIO(CONTENT), "wsgi.input_terminated": True}
    answer = robot.call("PATCH", robot.begin(), **environ)
    assert answer["Range"] == f"0-{len(CONTENT) - 1}"
    assert robot.call("PUT", f"{answer['Location']}?digest={sha256(CONTENT)}").status_code == 201


def test_body_of_unknown_length_needs_a_server_that_ends_it(robot: Any, codes: Any) -> None:
    answer = robot.call("PATCH", robot.begin(), headers={"Transfer-Encoding": "chunked"})
    assert answer.status_code == 411
    assert codes(answer) == ["SIZE_INVALID"]


@pytest.mark.parametrize("closing", [b"", CONTENT[7000:]])
def test_chunks_in_order_become_the_blob(robot: Any, sha256: Any, closing: bytes) -> None:
    location = robot.begin()
    end = len(CONTENT) - len(closing)
    for first, last in ((0, 99), (100, 4999), (5000, end - 1)):
        answer = robot.patch(location, CONTENT[first : last + 1], f"{first}-{last}")
        assert (answer.status_code, answer["Range"]) == (202, f"0-{last}")
        location = answer["Location"]
    headers = {"Content-Range": f"{end}-{len(CONTENT) - 1}"} if closing else {}
    answer = robot.call("PUT", f"{location}?digest={sha256(CONTENT)}", closing, headers=headers)
    assert answer.status_code == 201
    assert robot.call("GET", answer["Location"]).getvalue() == CONTENT


def test_sha512_upload_in_chunks_is_checked(robot: Any, sha256: Any) -> None:
    answer = robot.patch(robot.begin(), CONTENT)
    digest = sha256(CONTENT, "sha512")
    assert robot.call("PUT", f"{answer['Location']}?digest={digest}").status_code == 201
    assert robot.call("GET", f"site/app/blobs/{digest}").getvalue() == CONTENT


@pytest.mark.parametrize("content_range", ["100-109", "0-9", "19-28"])
def test_chunk_out_of_order_is_416_and_changes_nothing(robot: Any, codes: Any, sha256: Any, content_range: str) -> None:
    location = robot.patch(robot.begin(), CONTENT[:20], "0-19")["Location"]
    answer = robot.patch(location, CONTENT[20:30], content_range)
    assert answer.status_code == 416
    assert answer["Range"] == "0-19"
    assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
    assert robot.call("PUT", f"{location}?digest={sha256(CONTENT[:20])}").status_code == 201


@pytest.mark.parametrize("content_range", ["bytes 20-29", "20", "29-20", "-20", "20-29/30", "a-b"])
def test_malformed_content_range_is_416(robot: Any, content_range: str) -> None:
    location = robot.patch(robot.begin(), CONTENT[:20])["Location"]
    answer = robot.patch(location, CONTENT[20:30], content_range)
    assert (answer.status_code, answer["Range"]) == (416, "0-19")


def test_last_chunk_out_of_order_is_416_and_the_upload_lives(robot: Any, sha256: Any) -> None:
    location = robot.patch(robot.begin(), CONTENT[:20])["Location"]
    put = f"{location}?digest={sha256(CONTENT[:30])}"
    assert robot.call("PUT", put, CONTENT[20:30], headers={"Content-Range": "21-30"}).status_code == 416
    assert robot.call("PUT", put, CONTENT[20:30], headers={"Content-Range": "20-29"}).status_code == 201


def test_range_and_length_must_agree(robot: Any, codes: Any) -> None:
    location = robot.begin()
    answer = robot.patch(location, CONTENT[:20], "0-29")
    assert answer.status_code == 400
    assert codes(answer) == ["SIZE_INVALID"]
    assert robot.call("GET", location)["Range"] == "0-0"


@pytest.mark.parametrize("content_range", ["0-5", "0-15"])
def test_chunk_of_unknown_length_must_fill_its_range(robot: Any, codes: Any, content_range: str) -> None:
    location = robot.begin()
    environ = {
        "HTTP_CONTENT_RANGE": content_range,
        "wsgi.input": io.BytesIO(CONTENT[:10]),
        "wsgi.input_terminated": True,
    }
    answer = robot.call("PATCH", location, **environ)
    assert answer.status_code == 400
    assert codes(answer) == ["SIZE_INVALID"]
    assert robot.call("GET", location)["Range"] == "0-0"


def test_broken_connection_keeps_what_came(robot: Any, codes: Any, sha256: Any) -> None:
    location = robot.begin()
    environ = {"CONTENT_LENGTH": "30", "wsgi.input": io.BytesIO(CONTENT[:20])}
    answer = robot.call("PATCH", location, **environ)
    assert answer.status_code == 400
    assert codes(answer) == ["SIZE_INVALID"]
    assert robot.call("GET", location)["Range"] == "0-19"
    assert robot.patch(location, CONTENT[20:30], "20-29").status_code == 202
    assert robot.call("PUT", f"{location}?digest={sha256(CONTENT[:30])}").status_code == 201


def test_state_tells_the_offset(robot: Any) -> None:
    location = robot.patch(robot.begin(), CONTENT[:20])["Location"]
    answer = robot.call("GET", location)
    assert (answer.status_code, answer["Range"], answer["Location"]) == (204, "0-19", location)


def test_cancelled_upload_is_gone(robot: Any, codes: Any, data_folder: Any) -> None:
    location = robot.patch(robot.begin(), CONTENT)["Location"]
    assert robot.call("DELETE", location).status_code == 204
    assert list((data_folder / "registry/uploads").iterdir()) == []
    for method in ("GET", "PATCH", "DELETE"):
        answer = robot.call(method, location)
        assert answer.status_code == 404
    assert codes(robot.patch(location, CONTENT)) == ["BLOB_UPLOAD_UNKNOWN"]


@pytest.mark.parametrize("upload_id", ["00000000-0000-4000-8000-000000000000", "x", "..", "0" * 32, "%2e%2e"])
def test_unknown_upload_is_404(robot: Any, codes: Any, sha256: Any, upload_id: str) -> None:
    location = f"site/app/blobs/uploads/{upload_id}"
    for answer in (
        robot.call("GET", location),
        robot.patch(location, CONTENT),
        robot.call("PUT", f"{location}?digest={sha256(CONTENT)}", CONTENT),
    ):
        assert answer.status_code == 404
    assert codes(robot.patch(location, CONTENT)) == ["BLOB_UPLOAD_UNKNOWN"]


def test_upload_belongs_to_its_repository(robot: Any) -> None:
    location = robot.begin("site/app").replace("site/app", "site/other")
    assert robot.patch(location, CONTENT).status_code == 404


def test_finished_upload_cannot_be_written_again(robot: Any, sha256: Any) -> None:
    location = robot.patch(robot.begin(), CONTENT)["Location"]
    robot.call("PUT", f"{location}?digest={sha256(CONTENT)}")
    assert robot.patch(location, b"more").status_code == 404
    assert robot.call("GET", f"site/app/blobs/{sha256(CONTENT)}").getvalue() == CONTENT


def test_put_without_digest_is_refused(robot: Any, codes: Any) -> None:
    answer = robot.call("PUT", robot.begin(), CONTENT)
    assert answer.status_code == 400
    assert codes(answer) == ["DIGEST_INVALID"]


@pytest.mark.parametrize("digest", ["sha256:1", "md5:" + "0" * 32, "latest"])
def test_malformed_digest_is_refused(robot: Any, codes: Any, digest: str) -> None:
    assert codes(robot.call("PUT", f"{robot.begin()}?digest={digest}", CONTENT)) == ["DIGEST_INVALID"]
    assert codes(robot.call("POST", f"site/app/blobs/uploads/?digest={digest}", CONTENT)) == ["DIGEST_INVALID"]


def test_wrong_digest_stores_nothing(robot: Any, codes: Any, sha256: Any, data_folder: Any) -> None:
    wrong = sha256(b"something else")
    answers = [
        robot.call("PUT", f"{robot.begin()}?digest={wrong}", CONTENT),
        robot.call("PUT", f"{robot.patch(robot.begin(), CONTENT)['Location']}?digest={wrong}"),
        robot.call("POST", f"site/app/blobs/uploads/?digest={wrong}", CONTENT),
    ]
    for answer in answers:
        assert answer.status_code == 400
        assert codes(answer) == ["DIGEST_INVALID"]
    for digest in (wrong, sha256(CONTENT)):
        assert robot.call("HEAD", f"site/app/blobs/{digest}").status_code == 404
    assert [path for path in (data_folder / "registry").rglob("*") if path.is_file()] == []


def test_blob_that_is_there_already_may_be_pushed_again(robot: Any) -> None:
    assert robot.push_blob(CONTENT) == robot.push_blob(CONTENT)
