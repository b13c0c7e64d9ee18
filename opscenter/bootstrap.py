"""Brings a center to the state in which it can serve: schema, first administrator, first workspace, registry."""

import fcntl
import os
import secrets as random_secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.validators import validate_email
from django.db import connection

from catalog import operations as catalog
from catalog.models import User, Workspace
from common import env, secrets
from common.errors import Invalid
from publishing import operations as publishing

WORKSPACE = "default"
LOCK = 0x6F70_7363  # "opsc": any number, as long as all versions of OpsCenter use the same


@dataclass(frozen=True)
class Administrator:
    """Who may do everything. `password` is there only when it was made just now; `kept_in` when it was kept."""

    email: str
    password: str | None = None
    kept_in: Path | None = None


def password_file() -> Path:
    """Where the embedded default keeps the administrator's generated password, readable by its owner only."""
    return Path(settings.DATA) / "secrets/admin.password"


def bring_up() -> Administrator:
    """Does what is missing, however many processes do it at the same time. Raises `DatabaseError`, `DomainError`."""
    with _one_at_a_time():
        call_command("migrate", interactive=False, verbosity=0)
        administrator = _first_administrator()
        if not Workspace.objects.exists():
            owner = User.objects.filter(is_superuser=True, is_active=True).earliest("pk")
            catalog.create_workspace(actor=owner, name=WORKSPACE)
        publishing.ensure_registry_settings()
    return administrator


def _first_administrator() -> Administrator:
    """The oldest superuser, made now when there is none; an existing one is never changed."""
    existing = User.objects.filter(is_superuser=True).order_by("pk").first()
    if existing is not None:
        return Administrator(existing.email, kept_in=password_file() if password_file().exists() else None)
    email = env.text("OPSCENTER_ADMIN_EMAIL") or "admin@example.com"
    try:
        validate_email(email)
    except ValidationError as exc:
        raise Invalid(f"OPSCENTER_ADMIN_EMAIL={email} is not an e-mail address.") from exc
    given = env.text("OPSCENTER_ADMIN_PASSWORD")
    if given:
        User.objects.create_superuser(email, given)
        return Administrator(email)
    # On one machine the file stands beside the keys of the same database, so it gives nothing more away.
    kept_in = password_file() if connection.vendor == "sqlite" else None
    password = secrets.kept(kept_in, _password) if kept_in else _password()
    User.objects.create_superuser(email, password)
    return Administrator(email, password, kept_in)


def _password() -> str:
    return random_secrets.token_urlsafe(15)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
        return
    path = Path(settings.DATA) / "run/bootstrap.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
