"""`operations.publish`: what is accepted, and every refusal."""

from collections.abc import Callable
from typing import Any

import pytest

from catalog.models import ModelVersion, PipelineVersion, User, Workspace
from common.errors import Forbidden, NotFound
from publishing import operations
from publishing.errors import ModelsNotReady, NotPublished, RegistryNotConfigured, UnusableEngineConfig
from publishing.models import Publish, RegistrySettings
from tests.fakes.oci import FakeRegistry

Status = Publish.Status


@pytest.fixture
def version(make_pipeline_version: Callable[..., PipelineVersion], to_fake: FakeRegistry) -> PipelineVersion:
    return make_pipeline_version()


def test_a_publish_is_accepted_and_sent_to_a_worker_after_the_commit(
    owner: User, version: PipelineVersion, sent: list[Any], django_capture_on_commit_callbacks: Any
):
    with django_capture_on_commit_callbacks(execute=True):
        made = operations.publish(actor=owner, version=version)
        assert sent == []
    assert made.status == Status.PENDING and made.created_by == owner
    assert made.engine_config["engine"]["resources"]["limits"] == {"cpu": 1.0, "memory": "512Mi"}
    assert made.enqueued_at is not None
    assert sent == [("publishing.tasks.publish_version", [made.pk])]


def test_a_broker_that_is_down_refuses_nobody(
    owner: User, version: PipelineVersion, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
):
    def down(*args: Any, **options: Any) -> None:
        raise ConnectionError("the broker is down")

    monkeypatch.setattr("celery.app.task.Task.apply_async", down)
    with django_capture_on_commit_callbacks() as callbacks:
        made = operations.publish(actor=owner, version=version)
    assert Publish.objects.get(pk=made.pk).status == Status.PENDING
    assert len(callbacks) == 1


def test_a_collaborator_may_publish(member: User, version: PipelineVersion):
    assert operations.publish(actor=member, version=version).created_by == member


def test_a_viewer_may_not(viewer: User, version: PipelineVersion):
    with pytest.raises(Forbidden, match="needs the role collaborator"):
        operations.publish(actor=viewer, version=version)
    assert not Publish.objects.exists()


def test_a_stranger_sees_no_version(stranger: User, version: PipelineVersion):
    with pytest.raises(NotFound):
        operations.publish(actor=stranger, version=version)


def test_without_a_registry_it_says_where_to_configure_one(owner: User, version: PipelineVersion):
    RegistrySettings.objects.all().delete()
    with pytest.raises(RegistryNotConfigured, match=r"admin console under Registry settings \(or by OCI_REGISTRY\)"):
        operations.publish(actor=owner, version=version)


def test_a_registry_that_is_switched_off_is_told(owner: User, version: PipelineVersion):
    RegistrySettings.objects.update(enabled=False)
    with pytest.raises(RegistryNotConfigured, match="Publishing is switched off"):
        operations.publish(actor=owner, version=version)


def test_a_model_that_is_not_ready_is_named_with_its_reason(owner: User, version: PipelineVersion):
    ModelVersion.objects.update(status="error", error="The file is not ONNX.")
    with pytest.raises(ModelsNotReady, match=r"The model house-price cannot be published: The file is not ONNX\."):
        operations.publish(actor=owner, version=version)


def test_a_version_without_models_is_refused(owner: User, version: PipelineVersion):
    empty = PipelineVersion.objects.create(
        pipeline=version.pipeline, definition={"id": "houseprice", "steps": []}, created_by=owner
    )
    with pytest.raises(ModelsNotReady, match="has no model: add a model step"):
        operations.publish(actor=owner, version=empty)


def test_a_model_version_that_is_gone_is_refused(owner: User, version: PipelineVersion):
    version.definition["steps"][0]["ModelInference"]["models"][0]["version"] = "693e19b5-0dc7-4afb-9922-e3f7feefe66d"
    version.save()
    with pytest.raises(ModelsNotReady, match="names a model version that is gone"):
        operations.publish(actor=owner, version=version)


def test_engine_config_is_checked(owner: User, version: PipelineVersion):
    with pytest.raises(UnusableEngineConfig, match="cpu in engine"):
        operations.publish(actor=owner, version=version, engine_config={"engine": {"cpu": "lots"}})


def test_the_versions_own_deployment_config_is_the_default(owner: User, version: PipelineVersion):
    version.deployment_config = {"engine": {"cpu": 3}}
    version.save()
    made = operations.publish(actor=owner, version=version)
    assert made.engine_config["engine"]["resources"]["limits"]["cpu"] == 3


def test_the_models_architecture_is_the_default(owner: User, version: PipelineVersion):
    ModelVersion.objects.update(arch="arm", accel="jetson")
    resources = operations.publish(actor=owner, version=version).engine_config["engine"]["resources"]
    assert (resources["arch"], resources["accel"]) == ("arm", "jetson")


def test_published_ones_are_replaced_also_of_another_pipeline(
    owner: User,
    version: PipelineVersion,
    make_publish: Callable[..., Publish],
    make_pipeline_version: Callable[..., PipelineVersion],
):
    other = make_publish(make_pipeline_version(name="other"), status=Status.PUBLISHED)
    made = operations.publish(actor=owner, version=version, replaces=[other.pk, other.pk])
    assert list(made.replaces.all()) == [other]


def test_an_unknown_one_cannot_be_replaced(owner: User, version: PipelineVersion):
    with pytest.raises(NotFound, match="There is no publish 999 for you"):
        operations.publish(actor=owner, version=version, replaces=[999])
    assert not Publish.objects.exists()


@pytest.mark.parametrize("status", [Status.PENDING, Status.PUBLISHING, Status.ERROR])
def test_one_that_is_not_published_cannot_be_replaced(
    owner: User, version: PipelineVersion, make_publish: Callable[..., Publish], status: str
):
    with pytest.raises(NotPublished, match=f"is {status}; only a Published one can be replaced"):
        operations.publish(actor=owner, version=version, replaces=[make_publish(status=status).pk])


def test_one_where_the_actor_may_not_collaborate_cannot_be_replaced(
    stranger: User, owner: User, viewer: User, version: PipelineVersion, make_publish: Callable[..., Publish]
):
    theirs = make_publish(status=Status.PUBLISHED)
    mine = Workspace.objects.create(name="mine", created_by=stranger)
    for person in (stranger, viewer):
        mine.memberships.create(user=person, role="owner")
    pipeline = mine.pipelines.create(name="p", created_by=stranger)
    own = pipeline.versions.create(definition=version.definition, created_by=stranger)
    with pytest.raises(NotFound):
        operations.publish(actor=stranger, version=own, replaces=[theirs.pk])
    with pytest.raises(Forbidden, match="You are a viewer here"):
        operations.publish(actor=viewer, version=own, replaces=[theirs.pk])


def test_the_same_version_may_be_published_again(owner: User, version: PipelineVersion):
    first, second = (operations.publish(actor=owner, version=version) for _ in range(2))
    assert first.pk != second.pk
