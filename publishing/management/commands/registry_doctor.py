"""`manage.py registry_doctor [--json]`: what the registry of publishes can do, and what to do where it cannot."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from common.encryption import UnreadableSecret
from common.errors import DomainError
from publishing import doctor, jobs
from publishing.doctor import Report


class Command(BaseCommand):
    help = "Tests the registry that publishes go to; ends with 1 when something fails."

    def add_arguments(self, parser: CommandParser) -> None:
        """`--json` for programs."""
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints a line for each check."""
        try:
            report = jobs.check_registry()
        except (DomainError, UnreadableSecret) as exc:
            raise CommandError(str(exc)) from exc
        self.stdout.write(_json(report) if options["json"] else _text(report))
        if report.state == doctor.FAIL:
            raise SystemExit(1)


def _json(report: Report) -> str:
    plan = report.plan.stored() if report.plan else None
    return json.dumps({"state": report.state, "checks": report.as_json(), "plan": plan}, indent=2)


def _text(report: Report) -> str:
    lines = []
    for check in report.checks:
        lines.append(f"{check.state:5} {check.name}: {check.said}")
        if check.remedy and check.state != doctor.OK:
            lines.append(f"      → {check.remedy}")
    return "\n".join(lines)
