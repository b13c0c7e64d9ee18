from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from common.encryption import UnreadableSecret
from common.errors import DomainError
from publishing import exports
from publishing.oci.faults import RegistryFault, Unavailable


class Command(BaseCommand):
    help = "Writes a publish with everything it needs to one OCI-layout tar: for a site without a network."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The id is that of the publish, as its page and the API show it."""
        parser.add_argument("id", type=int)
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises `CommandError`."""
        try:
            found = exports.export_publish(options["id"], options["file"])
        except (DomainError, RegistryFault, Unavailable, UnreadableSecret, OSError) as exc:
            raise CommandError(str(exc)) from exc
        self.stdout.write(f"{options['file']}: {found.size} bytes with {', '.join(found.names)}.")
        self.stdout.write(f"Take it along and run: manage.py import_publish {options['file'].name}")
