"""The first start, and every later one."""

import stat
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection

from catalog.models import Membership, Role, User, Workspace
from opscenter import bootstrap

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPSCENTER_ADMIN_EMAIL", "OPSCENTER_ADMIN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def test_first_start_makes_administrator_and_workspace() -> None:
    made = bootstrap.bring_up()
    user = User.objects.get()
    assert (user.email, user.is_superuser, user.is_staff) == ("admin@example.com", True, True)
    assert made.password is not None
    assert user.check_password(made.password)
    membership = Membership.objects.get()
    assert (membership.workspace.name, membership.user, membership.role) == ("default", user, Role.OWNER)


def test_generated_password_is_kept_on_one_machine_only(data_folder: Path) -> None:
    made = bootstrap.bring_up()
    file = data_folder / "secrets/admin.password"
    if connection.vendor == "sqlite":
        assert made.kept_in == file
        assert file.read_text().strip() == made.password
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    else:
        assert made.kept_in is None
        assert not file.exists()


def test_given_administrator_is_taken_and_not_stored(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    monkeypatch.setenv("OPSCENTER_ADMIN_EMAIL", "ada@example.com")
    monkeypatch.setenv("OPSCENTER_ADMIN_PASSWORD", "engine-of-1843")
    made = bootstrap.bring_up()
    assert (made.email, made.password, made.kept_in) == ("ada@example.com", None, None)
    assert User.objects.get().check_password("engine-of-1843")
    assert not (data_folder / "secrets/admin.password").exists()


def test_later_start_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = bootstrap.bring_up()
    Workspace.objects.update(name="renamed")
    monkeypatch.setenv("OPSCENTER_ADMIN_EMAIL", "other@example.com")
    monkeypatch.setenv("OPSCENTER_ADMIN_PASSWORD", "another-password")
    again = bootstrap.bring_up()
    assert (again.email, again.password) == (first.email, None)
    assert User.objects.count() == 1
    assert first.password is not None
    assert User.objects.get().check_password(first.password)
    assert [workspace.name for workspace in Workspace.objects.all()] == ["renamed"]


def test_command_says_where_the_password_is(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("bootstrap")
    said = capsys.readouterr().out
    assert "admin@example.com" in said
    call_command("bootstrap")
    assert capsys.readouterr().out == ""


def test_database_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OperationalError("connection refused\nIs the server running?")

    monkeypatch.setattr(bootstrap, "call_command", refuse)
    with pytest.raises(SystemExit, match=r"^opscenter: the database cannot be set up: connection refused$"):
        call_command("bootstrap")


def test_wrong_administrator_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCENTER_ADMIN_EMAIL", "admin")
    with pytest.raises(SystemExit, match=r"^opscenter: OPSCENTER_ADMIN_EMAIL=admin is not an e-mail address"):
        call_command("bootstrap")
