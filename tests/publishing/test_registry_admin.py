"""The registry settings and publishes in the admin console."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from catalog.models import User
from publishing.models import Publish, RegistrySettings

URL = "/admin/publishing/registrysettings/"
FORM = {"enabled": "on", "registry": "ghcr.io", "repository": "acme/ml", "email": "", "username": "octo"}
FORM |= {"new_password": "", "ca_certificate": ""}


@pytest.fixture
def admin(browser: Callable[..., Client], db: None) -> Client:
    return browser(User.objects.create_superuser("admin@example.com", "admin-password-1"))


@pytest.fixture
def stored(to_registry: Callable[..., RegistrySettings]) -> RegistrySettings:
    return to_registry("reg.example:5000", username="me", password="Kept-Secret1")


def test_the_first_visit_is_an_empty_form_and_makes_the_one_row(admin: Client):
    answer = admin.get(URL, follow=True)
    assert answer.redirect_chain == [(f"{URL}add/", 302)]
    assert admin.post(f"{URL}add/", FORM | {"new_password": "New-Secret2"}).status_code == 302
    row = RegistrySettings.objects.get()
    assert (row.pk, row.registry, row.password) == (1, "ghcr.io", "New-Secret2")


def test_the_form_shows_everything_but_the_password(admin: Client, stored: RegistrySettings):
    answer = admin.get(URL, follow=True)
    assert answer.redirect_chain == [(f"{URL}1/change/", 302)]
    page = answer.content.decode()
    assert "reg.example:5000" in page and 'type="password"' in page
    assert "Kept-Secret1" not in page and RegistrySettings.objects.get().password == "Kept-Secret1"


def test_an_empty_password_keeps_the_stored_one(admin: Client, stored: RegistrySettings):
    assert admin.post(f"{URL}1/change/", FORM).status_code == 302
    row = RegistrySettings.objects.get()
    assert (row.registry, row.username, row.password, row.plain_http) == ("ghcr.io", "octo", "Kept-Secret1", False)


def test_a_new_password_replaces_it_and_forgetting_removes_it(admin: Client, stored: RegistrySettings):
    admin.post(f"{URL}1/change/", FORM | {"new_password": " New-Secret2 "})
    assert RegistrySettings.objects.get().password == " New-Secret2 ", "a password is taken as it is"
    admin.post(f"{URL}1/change/", FORM | {"forget_password": "on"})
    assert RegistrySettings.objects.get().password == ""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"registry": "https://ghcr.io"}, "without https://"),
        ({"repository": "/ml"}, "without a slash at either end"),
        ({"ca_certificate": "x"}, "not in PEM format"),
    ],
)
def test_a_mistake_is_shown_at_its_field(admin: Client, stored: RegistrySettings, wrong: dict[str, Any], message: str):
    answer = admin.post(f"{URL}1/change/", FORM | wrong)
    assert answer.status_code == 200 and message in answer.content.decode()
    assert RegistrySettings.objects.get().registry == "reg.example:5000"


def test_there_is_no_second_row_and_no_deleting(admin: Client, stored: RegistrySettings):
    assert admin.get(f"{URL}add/").status_code == 403
    assert admin.get(f"{URL}1/delete/").status_code == 403


def test_the_history_of_changes_does_not_tell_the_password(admin: Client, stored: RegistrySettings):
    admin.post(f"{URL}1/change/", FORM | {"new_password": "New-Secret2"})
    assert "New-Secret2" not in admin.get(f"{URL}1/history/").content.decode()


def test_staff_who_are_no_administrators_get_403_whatever_permission_they_have(
    browser: Callable[..., Client], stored: RegistrySettings
):
    person = User.objects.create_user("staff@example.com", "x", is_staff=True)
    person.user_permissions.set(Permission.objects.filter(content_type__app_label="publishing"))
    staff = browser(person)
    assert staff.get(f"{URL}add/").status_code == 403
    assert staff.get(f"{URL}1/change/").status_code == 403
    assert staff.post(f"{URL}1/change/", FORM).status_code == 403


def test_publishes_are_looked_at_not_changed(admin: Client, make_publish: Callable[..., Publish]):
    made = make_publish(status=Publish.Status.ERROR, error="ghcr.io refused the login")
    assert admin.get("/admin/publishing/publish/").status_code == 200
    page = admin.get(f"/admin/publishing/publish/{made.pk}/change/")
    assert page.status_code == 200 and "ghcr.io refused the login" in page.content.decode()
    assert admin.post(f"/admin/publishing/publish/{made.pk}/change/", {"status": "Published"}).status_code == 403
    assert admin.post(f"/admin/publishing/publish/{made.pk}/delete/", {"post": "yes"}).status_code == 403
