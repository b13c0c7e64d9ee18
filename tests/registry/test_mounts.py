from typing import Any

CONTENT = b"weights of a model"


def test_mount_shows_the_blob_in_the_other_repository(robot: Any) -> None:
    digest = robot.push_blob(CONTENT, "site/app")
    answer = robot.call("POST", f"site/other/blobs/uploads/?mount={digest}&from=site/app")
    assert answer.status_code == 201
    assert answer["Docker-Content-Digest"] == digest
    assert answer["Location"] == f"/v2/site/other/blobs/{digest}"
    assert robot.call("GET", answer["Location"]).getvalue() == CONTENT


def test_mount_outlives_its_source(robot: Any) -> None:
    digest = robot.push_blob(CONTENT, "site/app")
    robot.call("POST", f"site/other/blobs/uploads/?mount={digest}&from=site/app")
    robot.call("DELETE", f"site/app/blobs/{digest}")
    assert robot.call("GET", f"site/other/blobs/{digest}").getvalue() == CONTENT


def test_mount_from_anywhere_finds_a_known_blob(robot: Any) -> None:
    digest = robot.push_blob(CONTENT, "site/app")
    assert robot.call("POST", f"site/other/blobs/uploads/?mount={digest}").status_code == 201
    assert robot.call("GET", f"site/other/blobs/{digest}").getvalue() == CONTENT


def test_mount_twice_is_no_error(robot: Any) -> None:
    digest = robot.push_blob(CONTENT, "site/app")
    for _ in range(2):
        assert robot.call("POST", f"site/other/blobs/uploads/?mount={digest}&from=site/app").status_code == 201


def test_what_cannot_be_mounted_becomes_an_upload(robot: Any, sha256: Any) -> None:
    digest = robot.push_blob(CONTENT, "site/app")
    unknown = sha256(b"unknown")
    for query in (
        f"mount={unknown}&from=site/app",
        f"mount={unknown}",
        f"mount={digest}&from=site/none",
        f"mount={digest}&from=..",
    ):
        answer = robot.call("POST", f"site/other/blobs/uploads/?{query}")
        assert answer.status_code == 202
        assert robot.call("GET", answer["Location"]).status_code == 204
    assert robot.call("HEAD", f"site/other/blobs/{digest}").status_code == 404


def test_malformed_digest_is_refused(robot: Any, codes: Any) -> None:
    answer = robot.call("POST", "site/other/blobs/uploads/?mount=sha256:1&from=site/app")
    assert answer.status_code == 400
    assert codes(answer) == ["DIGEST_INVALID"]
