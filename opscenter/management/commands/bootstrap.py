from typing import Any

from django.core.checks import Error, run_checks
from django.core.management.base import BaseCommand
from django.db import DatabaseError

from common.errors import DomainError
from opscenter import bootstrap, checks


class Command(BaseCommand):
    help = "Brings the database, the first administrator, a workspace and the registry settings into being."
    requires_system_checks: list[str] = []  # done below: one line a refusal

    def handle(self, *args: Any, **options: Any) -> None:
        """Safe to run again, and by several machines at once. Raises `SystemExit` with a line when it cannot."""
        refuse_wrong_settings()
        administrator = bring_up()
        if administrator.password and administrator.kept_in:
            self.stdout.write(f"Administrator {administrator.email}, password in {administrator.kept_in}.")
        elif administrator.password:
            self.stdout.write(f"Administrator {administrator.email}, password {administrator.password} (shown once).")


def refuse_wrong_settings() -> None:
    """Raises `SystemExit` with a line for each system check that fails."""
    refusals = [checks.line(message) for message in run_checks() if message.level >= Error("").level]
    if refusals:
        raise SystemExit("\n".join(refusals))


def bring_up() -> bootstrap.Administrator:
    """`bootstrap.bring_up`, with what can go wrong outside of us as one line. Raises `SystemExit`."""
    try:
        return bootstrap.bring_up()
    except DatabaseError as exc:
        reason = str(exc).strip().splitlines()[0]
        raise SystemExit(f"opscenter: the database cannot be set up: {reason}") from exc
    except DomainError as exc:
        raise SystemExit(f"opscenter: {exc.message}") from exc
