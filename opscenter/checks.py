"""What is refused at start, and why. Every refusal has an id, so that people and tests can name it."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error

from common import env

SHARED = "DATABASE_URL names a database that several machines share"


def _error(number: int, message: str, hint: str) -> Error:
    return Error(message, hint=hint, id=f"opscenter.E{number:03}")


def database_kind() -> str:
    """The last part of Django's name of the database's backend."""
    return str(settings.DATABASES["default"]["ENGINE"].rpartition(".")[2])


def _is_shared() -> bool:
    return database_kind() != "sqlite3"


def check_database_kind() -> Iterator[CheckMessage]:
    """SQLite and PostgreSQL are the databases that we test."""
    if database_kind() not in {"sqlite3", "postgresql"}:
        yield _error(1, f"DATABASE_URL names {database_kind()}.", "Use postgres://…, or leave it unset for SQLite.")


def check_shared_secrets() -> Iterator[CheckMessage]:
    """Containers that share a database must agree on the keys; each would make its own."""
    for name in ("OPSCENTER_SECRET_KEY", "OPSCENTER_ENCRYPTION_KEYS"):
        if _is_shared() and not env.text(name):
            yield _error(2, f"{SHARED}, so {name} must be set.", "See .env.example for how to make one.")


def check_shared_queue() -> Iterator[CheckMessage]:
    """With a folder as queue, a worker on another machine would never see a task."""
    if _is_shared() and not settings.REDIS_URL:
        yield _error(3, f"{SHARED}, so its queue must be shared too.", "Set REDIS_URL=redis://host:6379/0.")


def check_shared_registry() -> Iterator[CheckMessage]:
    """The built-in registry keeps its password and files in one machine's folder."""
    if _is_shared() and settings.REGISTRY_ENABLED and not env.text("OPSCENTER_REGISTRY_PASSWORD"):
        hint = "Set OCI_REGISTRY, or OPSCENTER_REGISTRY_PASSWORD for the built-in registry on a shared OPSCENTER_DATA."
        yield _error(4, f"{SHARED}, so publishes need a registry that all of them reach.", hint)


def check_redis_url() -> Iterator[CheckMessage]:
    """Celery would take other brokers, but nothing else of ours would."""
    if settings.REDIS_URL and urlsplit(settings.REDIS_URL).scheme not in {"redis", "rediss"}:
        yield _error(5, "REDIS_URL does not begin with redis:// or rediss://.", "For example redis://127.0.0.1:6379/0.")


def check_encryption_keys() -> Iterator[CheckMessage]:
    """The key itself is never shown."""
    for number, key in enumerate(settings.ENCRYPTION_KEYS, start=1):
        try:
            Fernet(key)
        except ValueError:
            hint = "A key is 32 random bytes in URL-safe base64; see .env.example for how to make one."
            yield _error(6, f"Key {number} of OPSCENTER_ENCRYPTION_KEYS is not a Fernet key.", hint)


def check_secret_key() -> Iterator[CheckMessage]:
    """Sessions and join tokens stand on it."""
    if len(settings.SECRET_KEY) < 50:
        yield _error(7, "OPSCENTER_SECRET_KEY has less than 50 characters.", "See .env.example for how to make one.")


def check_public_url() -> Iterator[CheckMessage]:
    """Bundles, cookies and trusted origins are made from it."""
    parts = urlsplit(settings.PUBLIC_URL)
    try:
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        is_address = False
    if not is_address or parts.path or parts.query or parts.fragment or parts.username:
        hint = "Use http(s)://host[:port] without a path, as browsers and edges reach the center."
        yield _error(8, f"OPSCENTER_PUBLIC_URL={settings.PUBLIC_URL} is not an address.", hint)


def check_oci_registry() -> Iterator[CheckMessage]:
    """References of images have no scheme; the path belongs to OCI_REPOSITORY."""
    if "/" in settings.OCI_REGISTRY:
        hint = "Use host[:port], OCI_REPOSITORY for the path and OCI_PLAIN_HTTP=true for a registry without TLS."
        yield _error(9, f"OCI_REGISTRY={settings.OCI_REGISTRY} has a scheme or a path.", hint)


def check_numbers() -> Iterator[CheckMessage]:
    """Counts and limits."""
    bounds: dict[str, tuple[int, int, int]] = {
        "PORT": (settings.PORT, 1, 65535),
        "OPSCENTER_WEB_THREADS": (settings.WEB_THREADS, 1, 256),
        "OPSCENTER_WORKER_CONCURRENCY": (settings.WORKER_CONCURRENCY, 1, 256),
        "OPSCENTER_DB_POOL": (env.integer("OPSCENTER_DB_POOL", 16), 2, 1000),
        "OPSCENTER_MODEL_MAX_BYTES": (settings.MODEL_MAX_BYTES, 1, 2**63 - 1),
        "OPSCENTER_LOG_EXPORT_DAYS": (settings.LOG_EXPORT_DAYS, 1, 3650),
        "OPSCENTER_EDGE_CHECKIN_SECONDS": (settings.EDGE_CHECKIN_SECONDS, 1, 86_400),
    }
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            yield _error(10, f"{name}={value} is out of bounds.", f"Use {least} to {most}.")


CHECKS: tuple[Callable[[], Iterator[CheckMessage]], ...] = (
    check_database_kind,
    check_shared_secrets,
    check_shared_queue,
    check_shared_registry,
    check_redis_url,
    check_encryption_keys,
    check_secret_key,
    check_public_url,
    check_oci_registry,
    check_numbers,
)


def check_settings(app_configs: object = None, **kwargs: Any) -> list[CheckMessage]:
    """Everything above, for Django's check framework."""
    return [message for check in CHECKS for message in check()]


def line(message: CheckMessage) -> str:
    """One refusal as one line."""
    return f"opscenter: {message.msg} {message.hint or ''} ({message.id})"


def refusals() -> list[str]:
    """The lines of all refusals; needs settings only, so a process can ask before it loads the apps."""
    return [line(message) for message in check_settings()]
