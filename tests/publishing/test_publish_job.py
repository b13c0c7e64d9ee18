"""`jobs.publish`: from waiting to the registry, and what is recorded when it does not get there."""

import json
import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet

from catalog import storage
from catalog.models import ModelVersion, PipelineVersion
from publishing import artifact, jobs, tasks
from publishing.models import Publish, RegistrySettings
from tests.fakes.oci import FakeRegistry

Status = Publish.Status


def arrived(publish: Publish) -> Publish:
    assert jobs.publish(publish.pk) is True
    found = Publish.objects.get(pk=publish.pk)
    assert found.status == Status.PUBLISHED, found.error
    return found


def failed(publish: Publish) -> Publish:
    assert jobs.publish(publish.pk) is False
    found = Publish.objects.get(pk=publish.pk)
    assert found.status == Status.ERROR
    return found


def test_it_arrives_with_urls_digests_and_everything_behind_them(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish]
):
    found = arrived(make_publish())
    version = found.pipeline_version.uuid
    assert found.pipeline_url == f"{to_fake.host}/ml/pipelines/houseprice:{version}"
    assert found.chart_url == f"{to_fake.host}/ml/charts/houseprice"
    assert found.chart_version == f"0.0.1-{version}"
    assert found.plain_http is True and found.published_at is not None
    assert found.bytes_done == found.bytes_total > 0 and found.step == "" and found.error == ""
    for name, reference in (("pipelines/houseprice", found.pipeline_digest), ("charts/houseprice", found.chart_digest)):
        manifest = json.loads(to_fake.manifests[(f"ml/{name}", reference)][0])
        for part in (manifest["config"], *manifest["layers"]):
            assert artifact.manifests.digest_of(to_fake.blobs[f"ml/{name}"][part["digest"]]) == part["digest"]


def test_without_an_engine_image_it_arrives_and_says_so(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish], settings: Any
):
    settings.ENGINE_IMAGE = ""
    found = arrived(make_publish())
    assert found.engine_url == ""
    assert found.notes[0].startswith("No engine image is configured (ENGINE_IMAGE, or the admin console)")


def test_a_second_publish_of_the_same_version_sends_nothing_and_has_the_same_digests(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish]
):
    first = arrived(make_publish())
    sent = to_fake.blob_bytes()
    second = arrived(make_publish(first.pipeline_version))
    assert (second.pipeline_digest, second.chart_digest) == (first.pipeline_digest, first.chart_digest)
    assert to_fake.blob_bytes() == sent
    assert second.pk != first.pk


def test_a_model_of_another_pipeline_is_mounted_not_sent(
    to_fake: FakeRegistry,
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
):
    model = make_model_version(content=b"m" * 500_000)
    arrived(make_publish(make_pipeline_version(model, name="first")))
    before = to_fake.blob_bytes()
    arrived(make_publish(make_pipeline_version(model, name="second")))
    assert to_fake.blob_bytes() - before < 100_000
    assert f"sha256:{model.sha256}" in to_fake.blobs["ml/pipelines/second"]


def test_a_new_version_sends_only_what_is_new(
    to_fake: FakeRegistry,
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
):
    old = make_model_version("old", b"o" * 500_000)
    arrived(make_publish(make_pipeline_version(old)))
    before = to_fake.blob_bytes()
    arrived(make_publish(make_pipeline_version(old, make_model_version("new", b"n" * 1000))))
    assert to_fake.blob_bytes() - before < 100_000


def test_progress_grows_to_the_total(
    to_fake: FakeRegistry,
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    monkeypatch: pytest.MonkeyPatch,
):
    seen: list[dict[str, Any]] = []
    write = jobs.Attempt.write

    def watched(attempt: jobs.Attempt, **fields: Any) -> None:
        seen.append(fields)
        write(attempt, **fields)

    monkeypatch.setattr(jobs.Attempt, "write", watched)
    monkeypatch.setattr("publishing.oci.transport.PIECE", 4096)
    model = make_model_version(content=b"m" * 6_000_000)
    found = arrived(make_publish(make_pipeline_version(model)))
    done = [fields["bytes_done"] for fields in seen if "bytes_done" in fields]
    assert [fields["step"] for fields in seen if fields.get("step")] == [
        "Logging in to the registry",
        "Pushing the pipeline",
        "Pushing the Helm chart",
        "Describing",
    ]
    assert done == sorted(done) and done[-1] == found.bytes_total > 6_000_000


@pytest.mark.parametrize("status", [Status.PUBLISHED, Status.ERROR])
def test_what_is_finished_is_left_alone(to_fake: FakeRegistry, make_publish: Callable[..., Publish], status: str):
    done = make_publish(status=status)
    assert jobs.publish(done.pk) is False
    assert to_fake.seen == [] and Publish.objects.get().status == status


def test_what_is_gone_is_no_error(db: None):
    assert jobs.publish(12345) is False


def test_a_wrong_password_ends_it_with_the_remedy(
    make_publish: Callable[..., Publish], to_registry: Callable[..., RegistrySettings]
):
    with FakeRegistry(auth="basic") as fake:
        to_registry(fake.host, username=fake.username, password="wrong")
        found = failed(make_publish())
    assert "refused the login (401" in found.error and "check the username and the password" in found.error
    assert "wrong" not in found.error


def test_a_registry_that_is_down_ends_it_after_some_tries(
    make_publish: Callable[..., Publish], to_registry: Callable[..., RegistrySettings]
):
    with FakeRegistry() as fake:
        pass
    to_registry(fake.host)
    found = failed(make_publish())
    assert "cannot be reached (connection refused): is it up" in found.error and "gave up after 6 tries" in found.error


@pytest.mark.parametrize(("status", "words"), [(403, "give it push rights"), (404, "create it"), (413, "client_max")])
def test_a_permanent_refusal_ends_it_at_once(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish], status: int, words: str
):
    to_fake.fail("POST", "/uploads/", status=status, times=99)
    found = failed(make_publish())
    assert words in found.error and f"({status}" in found.error


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_fault_that_passes_is_not_seen(to_fake: FakeRegistry, make_publish: Callable[..., Publish], status: int):
    to_fake.fail("PUT", "/uploads/", status=status, times=2)
    to_fake.fail("PUT", "/manifests/", status=status, times=2)
    arrived(make_publish())


def test_a_dropped_connection_in_the_middle_of_a_model_is_not_seen(
    to_fake: FakeRegistry,
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
):
    to_fake.fail("PUT", "/uploads/", drop_after=100, times=3)
    arrived(make_publish(make_pipeline_version(make_model_version(content=b"m" * 2_000_000))))


def test_a_registry_without_settings_ends_it(to_fake: FakeRegistry, make_publish: Callable[..., Publish]):
    RegistrySettings.objects.update(enabled=False)
    assert "Publishing is switched off" in failed(make_publish()).error


def test_a_password_that_no_key_opens_ends_it_with_the_setting(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish], settings: Any
):
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    assert "OPSCENTER_ENCRYPTION_KEYS" in failed(make_publish()).error


def test_a_model_file_that_is_gone_is_named(to_fake: FakeRegistry, make_publish: Callable[..., Publish]):
    waiting = make_publish()
    storage.path_of(ModelVersion.objects.get().sha256).unlink()
    assert "The stored file of model house-price cannot be read" in failed(waiting).error


def test_a_bug_of_ours_is_logged_and_told_plainly(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish], monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    monkeypatch.setattr(jobs.artifact, "build", lambda *args: 1 / 0)
    found = failed(make_publish())
    assert found.error.startswith("Publishing failed inside OpsCenter")
    assert "ZeroDivisionError" in caplog.text and "ZeroDivisionError" not in found.error


def test_a_failed_one_can_arrive_later(to_fake: FakeRegistry, make_publish: Callable[..., Publish]):
    to_fake.fail("POST", "/uploads/", status=403)
    found = failed(make_publish())
    Publish.objects.update(status=Status.PENDING, error="")
    arrived(found)


def test_those_who_wait_are_told_once_it_has_arrived(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish], sent: list[Any], settings: Any
):
    settings.PUBLISHED_TASKS = ["edges.tasks.follow_publish", "other.tasks.see"]
    waiting = make_publish()
    tasks.publish_version(waiting.pk)
    assert sent == [("edges.tasks.follow_publish", [waiting.pk]), ("other.tasks.see", [waiting.pk])]
    tasks.publish_version(waiting.pk)
    assert len(sent) == 2


def test_nobody_is_told_of_a_failure(to_fake: FakeRegistry, make_publish: Callable[..., Publish], sent: list[Any]):
    to_fake.fail("POST", "/uploads/", status=403)
    tasks.publish_version(make_publish().pk)
    assert sent == []


def test_the_heartbeat_is_recorded_while_nothing_moves(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish], monkeypatch: pytest.MonkeyPatch
):
    beats: list[dict[str, Any]] = []
    write = jobs.Attempt.write

    def watched(attempt: jobs.Attempt, **fields: Any) -> None:
        beats.append(fields)
        write(attempt, **fields)
        if len(beats) > 30 and to_fake.gate:
            to_fake.gate.set()

    monkeypatch.setattr(jobs.Attempt, "write", watched)
    monkeypatch.setattr(jobs, "HEARTBEAT_SECONDS", 0.0)
    to_fake.gate = threading.Event()
    arrived(make_publish())
    still = [fields for fields in beats if set(fields) == {"bytes_done"}]
    assert len(still) > 20


def test_a_run_that_lost_its_publish_stops_and_writes_nothing(
    to_fake: FakeRegistry,
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
):
    waiting = make_publish(make_pipeline_version(make_model_version(content=b"m" * 5_000_000)))
    other = uuid.uuid4()
    write = jobs.Attempt.write

    def taken(attempt: jobs.Attempt, **fields: Any) -> None:
        if fields.get("step") == "Pushing the pipeline":
            write(attempt, **fields)
            Publish.objects.filter(pk=waiting.pk).update(attempt=other)
        else:
            write(attempt, **fields)

    monkeypatch.setattr(jobs.Attempt, "write", taken)
    with caplog.at_level(logging.WARNING):
        assert jobs.publish(waiting.pk) is False
    found = Publish.objects.get(pk=waiting.pk)
    assert (found.status, found.attempt, found.pipeline_url, found.error) == (Status.PUBLISHING, other, "", "")
    assert "taken over" in caplog.text
