"""The registry settings: the API of administrators, and what the environment fills in."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from catalog.models import User
from publishing import operations, queries
from publishing.models import RegistrySettings

Api = Callable[..., APIClient]
URL = "/api/v1/registry-settings"
GHCR = {"registry": "ghcr.io", "repository": "acme/ml", "username": "octo", "password": "ghp_Secret1", "email": ""}


@pytest.fixture
def admin_user(db: None) -> User:
    return User.objects.create_superuser("admin@example.com", "admin-password-1")


@pytest.fixture
def bare(settings: Any, db: None) -> Any:
    """Nothing configured."""
    settings.OCI_REGISTRY = settings.OCI_EMAIL = settings.OCI_USERNAME = settings.OCI_PASSWORD = ""
    settings.OCI_REPOSITORY, settings.OCI_PLAIN_HTTP, settings.REGISTRY_ENABLED = "opscenter", False, False
    return settings


def stored() -> RegistrySettings:
    return RegistrySettings.objects.get(pk=1)


def test_an_administrator_sets_them(api: Api, admin_user: User):
    answer = api(admin_user).put(URL, GHCR)
    assert answer.status_code == 200
    assert answer.json()["registry"] == "ghcr.io" and answer.json()["has_password"] is True
    assert (stored().username, stored().password, stored().source) == ("octo", "ghp_Secret1", "administrator")


def test_the_password_stays_when_left_out_and_goes_when_empty(api: Api, admin_user: User):
    api(admin_user).put(URL, GHCR)
    without = {key: value for key, value in GHCR.items() if key != "password"}
    assert api(admin_user).put(URL, without).json()["has_password"] is True
    assert stored().password == "ghp_Secret1"
    assert api(admin_user).put(URL, GHCR | {"password": ""}).json()["has_password"] is False
    assert stored().password == ""


def test_the_password_is_stored_encrypted(api: Api, admin_user: User):
    api(admin_user).put(URL, GHCR)
    with connection.cursor() as cursor:
        cursor.execute("SELECT password FROM publishing_registrysettings")
        assert "ghp_Secret1" not in cursor.fetchone()[0]


def test_reading_needs_no_key(api: Api, admin_user: User, settings: Any):
    api(admin_user).put(URL, GHCR)
    settings.ENCRYPTION_KEYS = ["A" * 43 + "="]
    assert api(admin_user).get(URL).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"registry": "https://ghcr.io"}, "without https://"),
        ({"registry": "ghcr.io/acme"}, "without a path"),
        ({"registry": ""}, "registry"),
        ({"repository": "/acme/ml"}, "without a slash at either end"),
        ({"repository": "Acme/ML"}, "lower case"),
        ({"ca_certificate": "nonsense"}, "not in PEM format"),
    ],
)
def test_what_no_registry_could_have_is_refused(api: Api, admin_user: User, wrong: dict[str, str], message: str):
    answer = api(admin_user).put(URL, GHCR | wrong)
    assert answer.status_code == 400 and message in answer.json()["message"]
    assert not RegistrySettings.objects.exists()


@pytest.mark.parametrize(
    "registry", ["reg.big.corp:3579", "localhost:5000", "127.0.0.1:8000", "[::1]:5000", "docker.io"]
)
def test_usual_hosts_are_taken(api: Api, admin_user: User, registry: str):
    assert api(admin_user).put(URL, GHCR | {"registry": registry}).status_code == 200


def test_an_owner_is_no_administrator(api: Api, owner: User, admin_user: User):
    api(admin_user).put(URL, GHCR)
    assert api(owner).get(URL).status_code == 403
    assert api(owner).put(URL, GHCR).status_code == 403
    assert api().get(URL).status_code == 401


def test_before_they_are_set_it_is_404(api: Api, admin_user: User):
    assert api(admin_user).get(URL).status_code == 404


def test_nothing_configured_makes_no_row(bare: Any):
    assert operations.ensure_registry_settings() is None
    assert queries.registry_settings() is None


def test_the_environment_fills_them(bare: Any):
    bare.OCI_REGISTRY, bare.OCI_REPOSITORY, bare.OCI_USERNAME, bare.OCI_PASSWORD = "ghcr.io", "acme/ml", "octo", "p1"
    operations.ensure_registry_settings()
    row = stored()
    assert (row.registry, row.repository, row.username, row.password, row.enabled) == (
        "ghcr.io",
        "acme/ml",
        "octo",
        "p1",
        True,
    )
    bare.OCI_PASSWORD, bare.OCI_REPOSITORY = "p2", "acme/edge"
    operations.ensure_registry_settings()
    assert (stored().password, stored().repository) == ("p2", "acme/edge"), "a row that nobody edited follows"


def test_a_wrong_environment_is_refused_with_the_reason(bare: Any):
    bare.OCI_REGISTRY = "https://ghcr.io"
    with pytest.raises(operations.UnusableRegistry, match="without https://"):
        operations.ensure_registry_settings()


def test_an_administrators_edit_outlives_every_start(bare: Any, admin_user: User):
    bare.OCI_REGISTRY, bare.OCI_PASSWORD = "ghcr.io", "p1"
    operations.ensure_registry_settings()
    operations.change_registry(actor=admin_user, username="someone", password="p9")
    operations.ensure_registry_settings()
    assert (stored().username, stored().password, stored().source) == ("someone", "p9", "administrator")


def test_switching_off_outlives_every_start_and_the_rest_still_follows(bare: Any, admin_user: User):
    bare.OCI_REGISTRY, bare.OCI_PASSWORD = "ghcr.io", "p1"
    operations.ensure_registry_settings()
    operations.change_registry(actor=admin_user, enabled=False)
    bare.OCI_PASSWORD = "p2"
    operations.ensure_registry_settings()
    assert (stored().enabled, stored().password) == (False, "p2")


@pytest.mark.parametrize(
    ("public_url", "registry", "plain_http"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("https://ops.example.com", "ops.example.com", False),
        ("http://ops.local:9000", "ops.local:9000", True),
    ],
)
def test_the_built_in_registry_is_where_the_center_is(bare: Any, public_url: str, registry: str, plain_http: bool):
    bare.REGISTRY_ENABLED, bare.PUBLIC_URL = True, public_url
    operations.ensure_registry_settings()
    row = stored()
    assert (row.registry, row.repository, row.plain_http) == (registry, "opscenter", plain_http)
    assert (row.username, row.password) == (bare.REGISTRY_USERNAME, bare.REGISTRY_PASSWORD)


def test_a_changed_port_is_followed_and_the_repository_kept(bare: Any, admin_user: User):
    bare.REGISTRY_ENABLED, bare.PUBLIC_URL = True, "http://127.0.0.1:8000"
    operations.ensure_registry_settings()
    operations.change_registry(actor=admin_user, repository="factory")
    bare.PUBLIC_URL = "http://127.0.0.1:8123"
    operations.ensure_registry_settings()
    assert (stored().registry, stored().repository, stored().source) == ("127.0.0.1:8123", "factory", "built-in")


def test_an_administrators_own_registry_is_not_moved_back_to_the_built_in_one(bare: Any, admin_user: User):
    bare.REGISTRY_ENABLED, bare.PUBLIC_URL = True, "http://127.0.0.1:8000"
    operations.ensure_registry_settings()
    operations.change_registry(actor=admin_user, **GHCR, plain_http=False)
    operations.ensure_registry_settings()
    assert (stored().registry, stored().password) == ("ghcr.io", "ghp_Secret1")


def test_a_registry_in_the_environment_takes_over_from_the_built_in_one(bare: Any):
    bare.REGISTRY_ENABLED, bare.PUBLIC_URL = True, "http://127.0.0.1:8000"
    operations.ensure_registry_settings()
    bare.REGISTRY_ENABLED, bare.OCI_REGISTRY, bare.OCI_USERNAME = False, "ghcr.io", "octo"
    operations.ensure_registry_settings()
    assert (stored().registry, stored().plain_http, stored().username) == ("ghcr.io", False, "octo")
