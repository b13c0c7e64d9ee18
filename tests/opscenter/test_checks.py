"""What a center refuses to start with."""

from typing import Any

import pytest
from cryptography.fernet import Fernet

from opscenter import checks


def ids() -> list[str | None]:
    return [message.id for message in checks.check_settings()]


@pytest.fixture(autouse=True)
def embedded_default(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite also runs on PostgreSQL; here every test begins with the embedded default."""
    for name in ("OPSCENTER_SECRET_KEY", "OPSCENTER_ENCRYPTION_KEYS", "OPSCENTER_REGISTRY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(checks, "database_kind", lambda: "sqlite3")
    settings.REDIS_URL = ""
    settings.OCI_REGISTRY = ""
    settings.REGISTRY_ENABLED = True


@pytest.fixture
def shared(settings: Any, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A production center that lacks nothing."""
    monkeypatch.setattr(checks, "database_kind", lambda: "postgresql")
    settings.REDIS_URL = "redis://redis:6379/0"
    settings.OCI_REGISTRY = "ghcr.io"
    settings.REGISTRY_ENABLED = False
    monkeypatch.setenv("OPSCENTER_SECRET_KEY", "s" * 50)
    monkeypatch.setenv("OPSCENTER_ENCRYPTION_KEYS", Fernet.generate_key().decode())
    return monkeypatch


def test_embedded_default_needs_nothing() -> None:
    assert ids() == []


def test_complete_production_is_fine(shared: pytest.MonkeyPatch) -> None:
    assert ids() == []


def test_unknown_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "database_kind", lambda: "mysql")
    assert "opscenter.E001" in ids()


@pytest.mark.parametrize("name", ["OPSCENTER_SECRET_KEY", "OPSCENTER_ENCRYPTION_KEYS"])
def test_shared_database_needs_keys_from_outside(shared: pytest.MonkeyPatch, name: str) -> None:
    shared.delenv(name)
    (message,) = checks.check_settings()
    assert message.id == "opscenter.E002"
    assert name in message.msg


def test_shared_database_needs_a_shared_queue(shared: pytest.MonkeyPatch, settings: Any) -> None:
    settings.REDIS_URL = ""
    assert ids() == ["opscenter.E003"]


def test_shared_database_needs_a_shared_registry(shared: pytest.MonkeyPatch, settings: Any) -> None:
    settings.REGISTRY_ENABLED = True
    assert ids() == ["opscenter.E004"]
    shared.setenv("OPSCENTER_REGISTRY_PASSWORD", "agreed")
    assert ids() == []


@pytest.mark.parametrize(
    ("name", "value", "refusal"),
    [
        ("REDIS_URL", "amqp://rabbit", "E005"),
        ("ENCRYPTION_KEYS", ["short"], "E006"),
        ("SECRET_KEY", "short", "E007"),
        ("PUBLIC_URL", "center.example.com", "E008"),
        ("PUBLIC_URL", "ftp://center.example.com", "E008"),
        ("PUBLIC_URL", "https://center.example.com/path", "E008"),
        ("PUBLIC_URL", "http://center.example.com:http", "E008"),
        ("OCI_REGISTRY", "https://ghcr.io", "E009"),
        ("OCI_REGISTRY", "ghcr.io/you", "E009"),
        ("PORT", 0, "E010"),
        ("PORT", 65536, "E010"),
        ("WEB_THREADS", 0, "E010"),
        ("WORKER_CONCURRENCY", -1, "E010"),
        ("MODEL_MAX_BYTES", -1, "E010"),
        ("EDGE_CHECKIN_SECONDS", 0, "E010"),
    ],
)
def test_wrong_value_is_refused(settings: Any, name: str, value: Any, refusal: str) -> None:
    setattr(settings, name, value)
    assert ids() == [f"opscenter.{refusal}"]


def test_refusal_is_one_line_without_the_secret(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode(), "not-a-key"]
    (line,) = checks.refusals()
    assert line.startswith("opscenter: Key 2 of OPSCENTER_ENCRYPTION_KEYS")
    assert line.endswith("(opscenter.E006)")
    assert "\n" not in line
    assert "not-a-key" not in line
