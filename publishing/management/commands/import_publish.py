from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from common.encryption import UnreadableSecret
from common.errors import DomainError
from publishing import exports
from publishing.oci.faults import RegistryFault, Unavailable


class Command(BaseCommand):
    help = "Pushes an exported publish to the configured registry and prints the commands that run it from there."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The file is one that export_publish wrote."""
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises `CommandError`."""
        try:
            found = exports.import_publish(options["file"])
        except (DomainError, RegistryFault, Unavailable, UnreadableSecret, OSError) as exc:
            raise CommandError(str(exc)) from exc
        for part in found.parts:
            self.stdout.write(f"{part.name}: {found.registry}/{part.repository}:{part.tag} {part.digest}")
        if found.known:
            self.stdout.write(f"This center knows it as publish {found.known}.")
        for command in found.commands:
            self.stdout.write(f"\n# {command.title}\n{command.text}")
