"""Secrets at rest: a text field that is encrypted in the database.

Keys come from `settings.ENCRYPTION_KEYS`, newest first (Fernet keys): the first encrypts, all decrypt, so a key is
rotated by putting a new one in front and saving the rows again.
"""

from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.apps import apps
from django.conf import settings
from django.db import models, transaction


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


def rotate() -> int:
    """Encrypts every stored secret again with the newest key; answers how many there are.

    All or nothing. Raises `UnreadableSecret` when one was encrypted with a key that is not configured.
    """
    with transaction.atomic():
        return sum(
            _rotate(model, field.name)
            for model in apps.get_models()
            for field in model._meta.local_fields
            if isinstance(field, EncryptedTextField)
        )


def _rotate(model: type[models.Model], name: str) -> int:
    rows = list(model._default_manager.select_for_update().exclude(**{name: ""}).values_list("pk", name))
    for pk, secret in rows:
        model._default_manager.filter(pk=pk).update(**{name: secret})
    return len(rows)
