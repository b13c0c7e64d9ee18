"""Which engine images publishes take: stored in the console or given by the environment, and looked up on demand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client as Browser
from rest_framework.test import APIClient

from catalog.models import User
from publishing import jobs
from publishing.models import EngineImagesChange, Publish, RegistrySettings
from publishing.oci.client import Client
from tests.fakes.oci import FakeRegistry

URL = "/api/v1/engine-images"
CONSOLE = "/admin/publishing/engineimageschange/"
PLATFORMS = ("linux/amd64", "linux/arm64")


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("admin@example.com", "admin-password-1")


@pytest.fixture
def change(admin: User, api: Callable[..., APIClient]) -> Callable[[str | None], Any]:
    return lambda images: api(admin).put(URL, {"images": images})


@pytest.fixture
def source(connect: Callable[..., Client], make_image: Callable[..., str], settings: Any) -> Iterator[Any]:
    """A registry that has two engines."""
    with FakeRegistry(auth="basic", username="reader", password="read") as registry:
        digest = make_image(connect(registry), "acme/engine", "1", PLATFORMS)
        make_image(connect(registry), "acme/other", "2", PLATFORMS)
        registry.digest = digest  # type: ignore[attr-defined]
        settings.ENGINE_IMAGE_USERNAME, settings.ENGINE_IMAGE_PASSWORD = "reader", "read"
        yield registry


def arrived(publish: Publish) -> Publish:
    jobs.publish(publish.pk)
    publish.refresh_from_db()
    assert publish.status == Publish.Status.PUBLISHED, publish.error
    return publish


def test_the_environment_says_until_an_administrator_does(
    api: Callable[..., APIClient], admin: User, settings: Any, change: Callable[[str | None], Any]
):
    settings.ENGINE_IMAGE = "ghcr.io/a/engine:1"
    assert api(admin).get(URL).json() == {
        "images": "ghcr.io/a/engine:1",
        "decided_by": "environment",
        "changed_at": None,
        "changed_by": None,
    }
    found = change("ghcr.io/a/engine:2").json()
    assert (found["images"], found["decided_by"]) == ("ghcr.io/a/engine:2", "administrator")
    assert found["changed_by"] == admin.email and found["changed_at"]
    assert change("").json()["images"] == ""
    assert change(None).json()["images"] == "ghcr.io/a/engine:1"
    assert [one.images for one in EngineImagesChange.objects.all()] == [None, "", "ghcr.io/a/engine:2"]


def test_what_is_so_already_is_not_recorded_again(change: Callable[[str | None], Any]):
    change("ghcr.io/a/engine:2")
    change(" ghcr.io/a/engine:2 ")
    assert EngineImagesChange.objects.count() == 1


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ("https://ghcr.io/a/engine:1", "is no registry|is no name of an image"),
        ("me:secret@ghcr.io/a/engine:1", "is no registry"),
        ("ghcr.io/A/engine", "is no name of an image"),
        ("x86=ghcr.io/a/e:1\narm=", "is one image, or"),
        ("X 86=ghcr.io/a/e:1", "is no architecture"),
        ('{"x86": 1}', "as JSON is an object"),
    ],
)
def test_what_cannot_be_an_image_is_refused_by_rest_and_at_its_field(
    change: Callable[[str | None], Any], browser: Callable[..., Browser], admin: User, images: str, says: str
):
    answer = change(images)
    assert answer.status_code == 409 and answer.json()["code"] == "unusable_engine_image"
    assert any(part in answer.json()["message"] for part in says.split("|"))
    page = browser(admin).post(f"{CONSOLE}add/", {"source": "these", "images": images})
    assert page.status_code == 200
    assert any(part in page.context["adminform"].form.errors["images"][0] for part in says.split("|"))
    assert not EngineImagesChange.objects.exists()


def test_nobody_else_may_see_change_or_check_them(api: Callable[..., APIClient], owner: User):
    assert api(owner).get(URL).status_code == 403
    assert api(owner).put(URL, {"images": "ghcr.io/a/e:1"}).status_code == 403
    assert api(owner).post(f"{URL}/check").status_code == 403
    assert api().get(URL).status_code == 401


def test_publishes_take_what_is_stored_and_published_ones_keep_theirs(
    to_fake: FakeRegistry,
    source: Any,
    make_publish: Callable[..., Publish],
    change: Callable[[str | None], Any],
    settings: Any,
):
    settings.ENGINE_IMAGE = f"{source.host}/acme/engine:1"
    first = arrived(make_publish())
    assert change(f"{source.host}/acme/other:2").status_code == 200
    second = arrived(make_publish(first.pipeline_version))
    kept = (first.engine_url, first.engine_digest)
    first.refresh_from_db()
    assert kept == (first.engine_url, first.engine_digest) == (f"{to_fake.host}/ml/engines/engine:1", source.digest)
    assert second.engine_url == f"{to_fake.host}/ml/engines/other:2"
    assert change("").status_code == 200
    third = arrived(make_publish(first.pipeline_version))
    assert third.engine_url == "" and third.notes[0].startswith("No engine image is configured")


def test_an_image_for_each_architecture_may_be_stored_in_lines(
    to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish], change: Callable[[str | None], Any]
):
    change(f"arm={source.host}/acme/other:2\nx86={source.host}/acme/engine:1")
    assert arrived(make_publish()).engine_digest == source.digest


def test_check_tells_digest_and_platforms_or_the_fault_of_each(
    source: Any, change: Callable[[str | None], Any], api: Callable[..., APIClient], admin: User
):
    change(f"x86={source.host}/acme/engine:1\narm={source.host}/acme/engine:9")
    there, absent = api(admin).post(f"{URL}/check").json()
    assert (there["name"], there["digest"], there["fault"]) == ("x86", source.digest, "")
    assert there["platforms"] == list(PLATFORMS)
    assert (absent["name"], absent["digest"]) == ("arm", "") and source.host in absent["fault"]


def test_check_with_a_wrong_login_names_the_settings_of_the_source(
    source: Any, change: Callable[[str | None], Any], api: Callable[..., APIClient], admin: User, settings: Any
):
    settings.ENGINE_IMAGE_PASSWORD = "Wr0ng-secret"
    change(f"{source.host}/acme/engine:1")
    (found,) = api(admin).post(f"{URL}/check").json()
    assert "ENGINE_IMAGE_PASSWORD" in found["fault"] and "Wr0ng-secret" not in found["fault"]


def test_check_uses_the_login_of_the_registry_settings_in_the_same_registry(
    to_registry: Callable[..., RegistrySettings],
    connect: Callable[..., Client],
    make_image: Callable[..., str],
    change: Callable[[str | None], Any],
    api: Callable[..., APIClient],
    admin: User,
):
    with FakeRegistry(auth="basic", username="robot", password="push") as registry:
        digest = make_image(connect(registry), "acme/engine", "1", PLATFORMS)
        to_registry(registry.host, username="robot", password="push")
        change(f"{registry.host}/acme/engine:1")
        (found,) = api(admin).post(f"{URL}/check").json()
    assert (found["digest"], found["fault"]) == (digest, "")


def test_console_shows_what_is_in_force_and_from_where(browser: Callable[..., Browser], admin: User, settings: Any):
    settings.ENGINE_IMAGE = "ghcr.io/a/engine:1"
    window = browser(admin)
    page = window.get(CONSOLE).content.decode()
    assert "ghcr.io/a/engine:1" in page and "From the environment" in page
    form = window.get(f"{CONSOLE}add/").content.decode()
    assert "What ENGINE_IMAGE says: ghcr.io/a/engine:1" in form
    given = {"source": "these", "images": "x86=ghcr.io/b/e:1\r\narm=ghcr.io/b/e-arm:1"}
    assert window.post(f"{CONSOLE}add/", given).status_code == 302
    page = window.get(CONSOLE).content.decode()
    assert "ghcr.io/b/e-arm:1" in page and f"Set by {admin.email}" in page
    assert "It overrides ENGINE_IMAGE, which is ghcr.io/a/engine:1." in page
    assert window.post(f"{CONSOLE}add/", {"source": "environment", "images": "ignored !"}).status_code == 302
    assert EngineImagesChange.objects.first().images is None  # type: ignore[union-attr]


def test_console_tells_of_a_setting_of_the_environment_that_cannot_be_read(
    browser: Callable[..., Browser], admin: User, settings: Any
):
    settings.ENGINE_IMAGE = "{broken"
    window = browser(admin)
    assert "begins like a JSON object but is none" in window.get(CONSOLE).content.decode()
    answer = window.post(f"{CONSOLE}check/", follow=True)
    assert "begins like a JSON object but is none" in answer.content.decode()


def test_console_checks_the_registries(
    browser: Callable[..., Browser], admin: User, source: Any, change: Callable[[str | None], Any]
):
    change(f"{source.host}/acme/engine:1")
    window = browser(admin)
    assert "Check the registries" in window.get(CONSOLE).content.decode()
    page = window.post(f"{CONSOLE}check/", follow=True).content.decode()
    assert source.digest in page and "linux/amd64, linux/arm64" in page
    assert window.get(f"{CONSOLE}check/").status_code == 405
