"""Upload sessions of a publish, as its row keeps them: encrypted, since an address may be all one needs to write."""

from cryptography.fernet import InvalidToken

from common.encryption import fernet
from publishing.models import Publish, RegistrySettings
from publishing.oci.sessions import Sessions


def left(publish: Publish, registry: RegistrySettings) -> Sessions:
    """What an earlier run left; none where that cannot be read any more: blobs begin anew then."""
    try:
        stored = fernet().decrypt(publish.uploads.encode()).decode() if publish.uploads else ""
    except InvalidToken:
        stored = ""
    return Sessions.of(registry.registry, stored)


def sealed(sessions: Sessions, registry: RegistrySettings) -> str:
    """Text for the row; empty when nothing is half way."""
    stored = sessions.stored(registry.registry)
    return fernet().encrypt(stored.encode()).decode() if stored else ""
