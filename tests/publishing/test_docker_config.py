"""Logins from `DOCKER_CONFIG`, and the two ways to ask a token server."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publishing import jobs
from publishing.models import Publish, RegistrySettings
from publishing.oci import auth, docker_config
from publishing.oci.auth import Login
from publishing.oci.client import Client
from publishing.oci.faults import RegistryFault
from tests.fakes.oci import FakeRegistry


def write(folder: Path, **content: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def pair(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("host", "key", "entry", "login"),
    [
        ("r.io:5000", "r.io:5000", pair("robot$x:a:b"), Login("robot$x", "a:b")),
        ("r.io", "https://r.io/v1/", pair("u:p"), Login("u", "p")),
        ("docker.io", "https://index.docker.io/v1/", pair("u:p"), Login("u", "p")),
        ("x.azurecr.io", "x.azurecr.io", pair("0-0:") | {"identitytoken": "t"}, Login("0-0", "", "t")),
    ],
)
def test_a_login_is_found_by_its_registry(tmp_path: Path, host: str, key: str, entry: dict[str, str], login: Login):
    assert docker_config.login_for(host, write(tmp_path, auths={key: entry, "other.io": pair("o:o")})) == login


def test_there_may_be_none(tmp_path: Path):
    assert docker_config.login_for("r.io", tmp_path) is None
    assert docker_config.login_for("r.io", write(tmp_path, auths={"other.io": pair("o:o")})) is None


@pytest.mark.parametrize(
    ("answer", "login"),
    [
        ({"Username": "AWS", "Secret": "s"}, Login("AWS", "s")),
        ({"Username": "<token>", "Secret": "s"}, Login("", "", "s")),
    ],
)
def test_a_credential_helper_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, str], login: Login
):
    program = tmp_path / "docker-credential-test"
    program.write_text(f"#!/bin/sh\ntest \"$1\" = get && grep -q '^r.io$' && echo '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert docker_config.login_for("r.io", write(tmp_path, credHelpers={"r.io": "test"})) == login


@pytest.mark.parametrize("helper", ["absent-helper", "../../bin/sh"])
def test_a_helper_that_cannot_run_is_told(tmp_path: Path, helper: str):
    with pytest.raises(RegistryFault, match="DOCKER_CONFIG"):
        docker_config.login_for("r.io", write(tmp_path, credsStore=helper))


def test_a_broken_file_is_told(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RegistryFault, match="cannot be read as a Docker configuration"):
        docker_config.login_for("r.io", tmp_path)


def test_a_publish_without_a_username_uses_it(
    fake: FakeRegistry,
    to_registry: Callable[..., RegistrySettings],
    make_publish: Callable[..., Publish],
    settings: Any,
    tmp_path: Path,
):
    fake.auth = "bearer"
    settings.DOCKER_CONFIG = str(write(tmp_path, auths={fake.host: pair(f"{fake.username}:{fake.password}")}))
    to_registry(fake.host)
    publish = make_publish()
    assert jobs.publish(publish.pk) is True


def test_an_identity_token_is_exchanged_by_post(fake: FakeRegistry, connect: Callable[..., Client]):
    fake.auth, fake.identity_token = "bearer", "refresh-me"
    connect(fake, username="", password="", identity_token="refresh-me").log_in("ml/a")
    (asked,) = fake.calls("POST", "/token")
    assert asked.authorization == "" and not fake.calls("GET", "/token")


def test_a_token_server_that_knows_post_only_is_asked_so(fake: FakeRegistry, connect: Callable[..., Client]):
    fake.auth, fake.oauth_only = "bearer", True
    connect(fake).log_in("ml/a")
    assert [call.status for call in fake.calls("POST", "/token")] == [200]


def test_a_reduced_grant_names_the_scope_that_is_missing(fake: FakeRegistry, connect: Callable[..., Client]):
    fake.auth, fake.jwt = "bearer", True
    fake.grants = lambda scope: scope != "ml/a:push"
    with pytest.raises(RegistryFault, match=r"did not grant push on ml/a.*give it push rights to ml/a"):
        connect(fake).log_in("ml/a")


def test_of_several_offers_the_one_that_can_be_followed_is_taken():
    authorizer = auth.Authorizer("r.example", Login("u", "p"), lambda url, headers, form: pytest.fail("asked"))
    offers = auth.challenges(['Negotiate, Bearer realm="not a url"', 'Basic realm="x"'])
    authorizer.challenged(offers, ("s",), None)
    assert (authorizer.header(("s",)) or "").startswith("Basic ")


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "a.e30.c", "a.eyJhY2Nlc3MiOjF9.c"])
def test_a_token_that_does_not_tell_is_not_read_into(token: str):
    assert auth.granted_by(token) is None
