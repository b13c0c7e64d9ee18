"""When the registry's password was saved, and what is told of an old one."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from catalog.models import User
from publishing import jobs, operations, queries
from publishing.errors import UnusableRegistry
from publishing.models import Publish, RegistrySettings
from tests.fakes.oci import FakeRegistry

ECR = "1.dkr.ecr.eu-west-1.amazonaws.com"


def change(admin: User, **fields: Any) -> RegistrySettings:
    return operations.change_registry(actor=admin, **({"registry": ECR, "repository": "ml"} | fields))


def saved_hours_ago(hours: float) -> None:
    RegistrySettings.objects.update(password_saved_at=timezone.now() - timedelta(hours=hours))


def test_an_old_token_is_told_of_and_a_new_one_is_not(admin_user: User, api: Callable[..., Any]):
    change(admin_user, username="AWS", password="t")
    assert queries.password_warning(queries.registry_settings()) == ""
    saved_hours_ago(13)
    told = api(admin_user).get("/api/v1/registry-settings").json()["warning"]
    assert told == "This token was saved 13 h ago; ECR tokens last 12 h."
    change(admin_user, password="new")
    assert queries.password_warning(queries.registry_settings()) == ""


def test_other_changes_make_it_no_younger(admin_user: User):
    change(admin_user, username="AWS", password="t")
    saved_hours_ago(13)
    change(admin_user, email="a@example.com")
    assert queries.password_warning(queries.registry_settings())


def test_a_restart_with_the_same_password_makes_it_no_younger(db: None, settings: Any):
    settings.OCI_REGISTRY, settings.OCI_USERNAME, settings.OCI_PASSWORD = ECR, "AWS", "t"
    operations.ensure_registry_settings()
    saved_hours_ago(13)
    operations.ensure_registry_settings()
    assert queries.password_warning(queries.registry_settings())
    settings.OCI_PASSWORD = "new"
    operations.ensure_registry_settings()
    assert queries.password_warning(queries.registry_settings()) == ""


def test_a_refused_publish_says_how_old_it_is(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish], monkeypatch: pytest.MonkeyPatch
):
    saved_hours_ago(13)
    monkeypatch.setattr("publishing.doctor.access._ECR", re.compile("127"))
    to_fake.fail("POST", "/uploads/", status=403)
    publish = make_publish()
    assert jobs.publish(publish.pk) is False
    publish.refresh_from_db()
    assert publish.error.endswith("This token was saved 13 h ago; ECR tokens last 12 h.")


def test_another_registry_forgets_what_was_found_out(admin_user: User):
    change(admin_user)
    RegistrySettings.objects.update(plan={"chunked": True}, checks=[{"name": "x"}], checked_at=timezone.now())
    change(admin_user, email="a@example.com")
    assert RegistrySettings.objects.get().plan == {"chunked": True}
    change(admin_user, registry="ghcr.io")
    row = RegistrySettings.objects.get()
    assert (row.plan, row.checks, row.checked_at) == ({}, [], None)


@pytest.mark.parametrize("proxy", ["proxy:3128", "socks5://p:1", "http://user:secret@p:1"])
def test_a_proxy_that_cannot_be_used_is_refused(admin_user: User, proxy: str):
    with pytest.raises(UnusableRegistry, match="proxy: Give http://host:port"):
        change(admin_user, proxy=proxy)


def test_a_publish_goes_through_the_proxy_of_the_settings(to_fake: FakeRegistry, make_publish: Callable[..., Publish]):
    RegistrySettings.objects.update(proxy="http://127.0.0.1:1")
    publish = make_publish()
    assert jobs.publish(publish.pk) is False
    publish.refresh_from_db()
    assert "through the proxy of the settings" in publish.error and to_fake.seen == []


def test_it_can_be_switched_off_by_the_environment(db: None, settings: Any):
    settings.OCI_REGISTRY, settings.OCI_ENABLED = "ghcr.io", False
    row = operations.ensure_registry_settings()
    assert row is not None and row.enabled is False
