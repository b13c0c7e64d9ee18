"""`manage.py rotate_encryption`: afterwards the old key is not needed."""

from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command

from common.encryption import UnreadableSecret
from publishing.models import RegistrySettings

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture
def stored(db: None, settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [OLD]
    RegistrySettings.objects.create(pk=1, registry="r.io", repository="ml", password="s3cret")


def test_the_old_key_can_go(stored: None, settings: Any):
    settings.ENCRYPTION_KEYS = [NEW, OLD]
    out = StringIO()
    call_command("rotate_encryption", stdout=out)
    assert out.getvalue().startswith("1 stored secrets")
    settings.ENCRYPTION_KEYS = [NEW]
    assert RegistrySettings.objects.get().password == "s3cret"


def test_without_the_old_key_nothing_changes(stored: None, settings: Any):
    settings.ENCRYPTION_KEYS = [NEW]
    with pytest.raises(CommandError, match="add the key that encrypted it"):
        call_command("rotate_encryption")
    settings.ENCRYPTION_KEYS = [OLD]
    assert RegistrySettings.objects.get().password == "s3cret"
    settings.ENCRYPTION_KEYS = [NEW]
    with pytest.raises(UnreadableSecret):
        RegistrySettings.objects.get()
