import getpass
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from common.errors import DomainError
from publishing import operations, signing


class Command(BaseCommand):
    help = "Makes the key that publishes are signed with from now on, or takes one; prints its public half."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The password of a key is asked for, or read from standard input where nobody sits."""
        parser.add_argument("name", help="in lower case, for example site-2026")
        parser.add_argument("--import", dest="file", type=Path, help="an ECDSA P-256 private key in PEM")
        parser.add_argument("--password", action="store_true", help="the imported key has a password")
        parser.add_argument("--output", type=Path, help="write the public key to this file too")

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises `CommandError`."""
        try:
            made = operations.create_signing_key(
                actor=None,
                name=options["name"],
                pem=_read(options["file"]) if options["file"] else None,
                password=_password() if options["password"] else "",
            )
            if options["output"]:
                options["output"].write_text(made.public_key)
        except (DomainError, OSError) as exc:
            raise CommandError(str(exc)) from exc
        self.stderr.write(f"Publishes are signed with {made.name} from now on (SHA-256 {made.fingerprint}).")
        self.stdout.write(made.public_key, ending="")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(signing.MOST_KEY + 1)


def _password() -> str:
    return getpass.getpass("Password of the key: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
