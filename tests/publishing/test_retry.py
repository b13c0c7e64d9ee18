"""`operations.retry`: a failed publish goes again, nothing else does."""

from collections.abc import Callable
from typing import Any

import pytest

from catalog.models import User
from common.errors import Forbidden, NotFound
from publishing import operations
from publishing.errors import NotFailed, RegistryNotConfigured
from publishing.models import Publish, RegistrySettings
from tests.fakes.oci import FakeRegistry

Status = Publish.Status


@pytest.fixture
def failed(make_publish: Callable[..., Publish], to_fake: FakeRegistry) -> Publish:
    return make_publish(status=Status.ERROR, error="ghcr.io refused the login", step="x", bytes_done=7)


def test_a_failed_one_goes_again(
    member: User, failed: Publish, sent: list[Any], django_capture_on_commit_callbacks: Any
):
    with django_capture_on_commit_callbacks(execute=True):
        again = operations.retry(actor=member, publish=failed)
    assert (again.pk, again.status, again.error, again.bytes_done) == (failed.pk, Status.PENDING, "", 0)
    assert sent == [("publishing.tasks.publish_version", [failed.pk])]


@pytest.mark.parametrize("status", [Status.PENDING, Status.PUBLISHING, Status.PUBLISHED])
def test_one_that_did_not_fail_is_refused(member: User, failed: Publish, status: str):
    Publish.objects.update(status=status)
    with pytest.raises(NotFailed, match="did not fail"):
        operations.retry(actor=member, publish=failed)


def test_a_viewer_may_not(viewer: User, failed: Publish):
    with pytest.raises(Forbidden):
        operations.retry(actor=viewer, publish=failed)


def test_a_stranger_sees_none(stranger: User, failed: Publish):
    with pytest.raises(NotFound):
        operations.retry(actor=stranger, publish=failed)


def test_without_a_registry_it_stays_failed(member: User, failed: Publish):
    RegistrySettings.objects.all().delete()
    with pytest.raises(RegistryNotConfigured):
        operations.retry(actor=member, publish=failed)
    assert Publish.objects.get().status == Status.ERROR
