"""Secrets at rest: a text field that is encrypted in the database.

Keys come from `settings.ENCRYPTION_KEYS`, newest first (Fernet keys): the first encrypts, all decrypt, so a key is
rotated by putting a new one in front and saving the rows again.
"""

from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models


class UnreadableSecret(Exception):
    """A stored secret was encrypted with a key that is no longer configured."""


def fernet() -> MultiFernet:
    """The configured keys, newest first."""
    return MultiFernet([Fernet(key) for key in settings.ENCRYPTION_KEYS])


if TYPE_CHECKING:
    TextField = models.TextField[str, str]
else:
    TextField = models.TextField  # not subscriptable at run time


class EncryptedTextField(TextField):
    """Text that only exists encrypted in the database. It cannot be filtered on."""

    def get_prep_value(self, value: Any) -> Any:
        """Encrypts on the way in; empty stays empty, so "is it set" needs no key."""
        return fernet().encrypt(value.encode()).decode() if value else value

    def from_db_value(self, value: str | None, expression: object, connection: object) -> str | None:
        """Decrypts on the way out. Raises `UnreadableSecret`."""
        if not value:
            return value
        try:
            return fernet().decrypt(value.encode()).decode()
        except InvalidToken as exc:
            raise UnreadableSecret(
                "A stored secret cannot be decrypted: add the key that encrypted it to OPSCENTER_ENCRYPTION_KEYS."
            ) from exc
