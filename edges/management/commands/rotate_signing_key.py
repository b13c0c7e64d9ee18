"""`manage.py rotate_signing_key [--forget-old]`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from edges import signing


class Command(BaseCommand):
    help = "Makes a new key that signs access tokens of edges. Edges notice nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--forget-old",
            action="store_true",
            help="delete the older keys at once, because one leaked: edges get new tokens at their next call",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        kid = signing.rotate(timezone.now(), forget=options["forget_old"])
        self.stdout.write(f"Access tokens of edges are signed with key {kid} from now on.")
