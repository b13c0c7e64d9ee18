"""`manage.py rotate_encryption`: stored secrets are encrypted again with the newest key."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from common import encryption


class Command(BaseCommand):
    help = "Encrypts every stored secret with the first of OPSCENTER_ENCRYPTION_KEYS; the others can be removed then."

    def handle(self, *args: Any, **options: Any) -> None:
        """All or nothing."""
        try:
            count = encryption.rotate()
        except encryption.UnreadableSecret as exc:
            raise CommandError(str(exc)) from exc
        self.stdout.write(f"{count} stored secrets are encrypted with the newest key; older keys are not needed now.")
