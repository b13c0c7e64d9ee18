import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from opscenter import bootstrap, supervisor
from opscenter.management.commands.bootstrap import bring_up, refuse_wrong_settings


class Command(BaseCommand):
    help = "Runs the whole center on this machine, in the foreground until stopped: web, worker and beat."
    requires_system_checks: list[str] = []  # done below: one line a refusal

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises `SystemExit` with a line when it cannot start; does not return when it can."""
        os.umask(0o077)  # the database, models and the registry are for this user only
        refuse_wrong_settings()
        try:
            supervisor.check_machine()
        except supervisor.CannotStart as exc:
            raise SystemExit(f"opscenter: {exc}") from exc
        self._greet(bring_up())
        self.stdout.flush()
        supervisor.become_supervisor()

    def _greet(self, administrator: bootstrap.Administrator) -> None:
        password = f", password in {administrator.kept_in}" if administrator.kept_in else ""
        self.stdout.write(f"OpsCenter starts on {settings.PUBLIC_URL}/ (data in {settings.DATA}). Ctrl-C stops it.")
        self.stdout.write(f"Log in as {administrator.email}{password}.")
