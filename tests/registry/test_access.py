import base64
from typing import Any

import pytest
from django.test import Client


def basic(credentials: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}


def test_robot_is_let_in(robot: Any) -> None:
    answer = robot.call("GET", "/v2/")
    assert answer.status_code == 200
    assert answer["Docker-Distribution-API-Version"] == "registry/2.0"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("robot:wrong"),
        basic("somebody:robot-password-1"),
        basic("robot"),
        basic(":"),
        {"Authorization": "Basic ###"},
        {"Authorization": "Basic"},
        {"Authorization": "Bearer robot:robot-password-1"},
    ],
)
@pytest.mark.parametrize("path", ["/v2/", "/v2/site/app/tags/list", "/v2/no/such/address"])
def test_others_are_asked_to_log_in(robot: Any, codes: Any, headers: dict[str, str], path: str) -> None:
    answer = Client(headers=headers).get(path)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Basic realm="OpsCenter registry"'
    assert codes(answer) == ["UNAUTHORIZED"]


def test_stranger_stores_nothing(robot: Any, data_folder: Any) -> None:
    answer = Client().generic("POST", "/v2/site/app/blobs/uploads/", b"bytes")
    assert answer.status_code == 401
    assert not (data_folder / "registry").exists()


def test_password_may_have_a_colon(robot: Any, settings: Any) -> None:
    settings.REGISTRY_PASSWORD = "a:b"
    assert Client(headers=basic("robot:a:b")).get("/v2/").status_code == 200


def test_unset_password_lets_nobody_in(robot: Any, settings: Any) -> None:
    settings.REGISTRY_PASSWORD = ""
    assert Client(headers=basic("robot:")).get("/v2/").status_code == 401


def test_csrf_check_does_not_stop_a_push(robot: Any, settings: Any) -> None:
    client = Client(enforce_csrf_checks=True, headers=basic("robot:robot-password-1"))
    assert client.post("/v2/site/app/blobs/uploads/").status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", "site/app/blobs/sha256:" + "0" * 64, "DELETE, GET, HEAD"),
        ("GET", "site/app/blobs/uploads/", "POST"),
        ("POST", "site/app/blobs/uploads/0b1c", "DELETE, GET, PATCH, PUT"),
        ("PATCH", "site/app/manifests/v1", "DELETE, GET, HEAD, PUT"),
        ("DELETE", "site/app/tags/list", "GET"),
        ("POST", "site/app/referrers/sha256:" + "0" * 64, "GET"),
    ],
)
def test_other_methods_are_405(robot: Any, codes: Any, method: str, path: str, allowed: str) -> None:
    answer = robot.call(method, path)
    assert answer.status_code == 405
    assert answer["Allow"] == allowed
    assert codes(answer) == ["UNSUPPORTED"]


def test_unknown_address_is_404(robot: Any, codes: Any) -> None:
    answer = robot.call("GET", "site/app/nothing/here")
    assert answer.status_code == 404
    assert codes(answer) == ["UNSUPPORTED"]


@pytest.mark.parametrize(
    "name", ["Site", "site//app", "site/_blobs", "site/app.", "-site", "a/" * 130 + "a", "site/../x"]
)
def test_invalid_name_is_refused(robot: Any, codes: Any, name: str) -> None:
    answer = robot.call("POST", f"{name}/blobs/uploads/")
    assert answer.status_code == 400
    assert codes(answer) == ["NAME_INVALID"]
    assert robot.call("GET", f"{name}/tags/list").status_code == 400


@pytest.mark.parametrize("name", ["app", "a/b/c/d", "a.b/c_d/e__f/g-h/i---j", "blobs/uploads", "a/manifests/b"])
def test_nested_names_are_repositories(robot: Any, name: str) -> None:
    digest = robot.push_blob(b"bytes", name)
    robot.push_artifact("v1", name)
    assert robot.call("GET", f"{name}/blobs/{digest}").getvalue() == b"bytes"
    assert robot.call("GET", f"{name}/tags/list").json() == {"name": name, "tags": ["v1"]}
