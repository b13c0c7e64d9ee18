"""The registry's password is used, and is in no answer, log line, task argument, artifact or chart."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from catalog.models import PipelineVersion, User
from publishing import jobs
from publishing.models import Publish, RegistrySettings
from tests.fakes.oci import FakeRegistry

SECRET = "Xy7-very-secret"
Api = Callable[..., APIClient]


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("refused", [False, True])
def test_a_whole_publish_leaks_no_password(
    api: Api,
    member: User,
    make_pipeline_version: Callable[..., PipelineVersion],
    to_registry: Callable[..., RegistrySettings],
    sent: list[Any],
    caplog: Any,
    django_capture_on_commit_callbacks: Any,
    auth: str,
    refused: bool,
):
    caplog.set_level(logging.DEBUG)
    version = make_pipeline_version()
    with FakeRegistry(auth=auth, password=SECRET) as fake:
        to_registry(fake.host, username=fake.username, password=SECRET)
        if refused:  # a registry that repeats what it was told
            body = f'{{"errors":[{{"code":"DENIED","message":"token {SECRET} may not write"}}]}}'.encode()
            fake.fail("POST", "/uploads/", status=403, body=body, times=9)
        with django_capture_on_commit_callbacks(execute=True):
            made = api(member).post(f"/api/v1/pipelines/{version.pipeline_id}/publishes", {})
        assert jobs.publish(made.json()["id"]) is not refused
        answer = api(member).get(f"/api/v1/publishes/{made.json()['id']}")
        kept = b"".join(blob for blobs in fake.blobs.values() for blob in blobs.values())
        assert any(fake.username in seen or seen.startswith("B") for seen in (s.authorization for s in fake.seen))
    assert "may not write" in answer.content.decode() if refused else answer.json()["status"] == "Published"
    for text in (answer.content.decode(), made.content.decode(), caplog.text, repr(sent), kept.decode("latin-1")):
        assert SECRET not in text
    assert SECRET not in repr(Publish.objects.values().get())


def test_settings_answers_never_show_it(api: Api, to_registry: Callable[..., RegistrySettings], caplog: Any):
    caplog.set_level(logging.DEBUG)
    admin = User.objects.create_superuser("admin@example.com", "admin-password-1")
    to_registry("ghcr.io", password=SECRET)
    body = {"registry": "ghcr.io", "repository": "ml", "password": SECRET}
    answers = [api(admin).get("/api/v1/registry-settings"), api(admin).put("/api/v1/registry-settings", body)]
    answers.append(api(admin).put("/api/v1/registry-settings", body | {"registry": "https://wrong"}))
    assert [answer.status_code for answer in answers] == [200, 200, 400]
    for answer in answers:
        assert SECRET not in answer.content.decode()
    assert SECRET not in caplog.text
