"""Reads the JSON messages of engines, by hand: a check-in costs a serializer a millisecond and this fifty microseconds.

Each reader takes a parsed body and gives back only the keys of the contract, checked; keys that it does not know are
ignored. All raise `Invalid` that names the field.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from uuid import UUID

from common.errors import Invalid

COUNTER_MAX = 2**63 - 1
ERROR_LENGTH = 2000
ASSERTION_LENGTH = 4096
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# PostgreSQL stores neither NUL nor half a surrogate pair.
UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")

Reader = Callable[[Any, str], Any]


def text(longest: int) -> Reader:
    """A text of 1 to `longest` characters that a database can hold."""

    def read(value: Any, path: str) -> str:
        if not isinstance(value, str) or not value.strip():
            _refuse(path, "must be a text that is not empty.")
        if len(value) > longest or UNSTORABLE.search(value):
            _refuse(path, f"must have at most {longest} characters, and no NUL or half surrogate pair.")
        return value

    return read


def count(value: Any, path: str) -> int:
    """A whole number that fits a column."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNTER_MAX:
        _refuse(path, f"must be a whole number from 0 to {COUNTER_MAX}.")
    return int(value)


def excerpt(value: Any, path: str) -> str | None:
    """Text of any content, cut to what is kept: a long or odd error message must not make a check-in fail."""
    if value is None:
        return None
    if not isinstance(value, str):
        _refuse(path, "must be a text or null.")
    kept: str = value[:ERROR_LENGTH]
    return kept.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def digest(value: Any, path: str) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        _refuse(path, "must be sha256: and 64 hexadecimal digits in lower case.")
    return str(value)


def identifier(value: Any, path: str) -> str:
    """A UUID, in its usual spelling."""
    try:
        return str(UUID(value))
    except (ValueError, TypeError, AttributeError):
        _refuse(path, "must be a UUID.")


def one_of(allowed: str) -> Reader:
    """Exactly this text."""

    def read(value: Any, path: str) -> str:
        if value != allowed:
            _refuse(path, f"must be {allowed}.")
        return allowed

    return read


def members(value: Any, path: str) -> dict[str, Any]:
    """Any object; who uses it checks what is in it."""
    if not isinstance(value, dict):
        _refuse(path, "must be an object.")
    return dict(value)


def record(readers: Mapping[str, Reader], *, optional: frozenset[str] = frozenset(), null: bool = False) -> Reader:
    """An object with these keys, some of which may be left out; with `null` also no object at all."""

    def read(value: Any, path: str) -> dict[str, Any] | None:
        if value is None and null:
            return None
        if not isinstance(value, dict):
            _refuse(path, "must be an object.")
        found = {}
        for name, reader in readers.items():
            inner = f"{path}.{name}" if path else name
            if name in value:
                found[name] = reader(value[name], inner)
            elif name not in optional:
                _refuse(inner, "is missing.")
        return found

    return read


_ENGINE = {"version": text(64), "arch": text(64), "accel": text(64), "os": text(64), "started_at": count}
_engine = record(_ENGINE, optional=frozenset({"started_at"}))
_serving = record({"digest": digest, "pipeline": text(128), "pipeline_version": text(64), "since": count}, null=True)

_join = record({"join_token": identifier, "public_key": members, "engine": _engine})
_token = record(
    {
        # RFC 7523 section 2.2 and RFC 6749 section 4.4.2.
        "grant_type": one_of("client_credentials"),
        "client_assertion_type": one_of("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        "client_assertion": text(ASSERTION_LENGTH),
    }
)
_checkin = record(
    {
        "serving": _serving,
        # Its state is not a choice: an engine that is newer than we are must be able to check in.
        "update": record({"state": text(32), "error": excerpt}),
        "engine": _engine,
        "counters": record({"requests": count, "rows": count, "errors": count}),
        "logs": record({"epoch": identifier, "last_sequence": count, "acked": count, "shed": count}),
        "disk": record({"free": count, "total": count}),
        "clock": count,
        # Engines of earlier releases do not tell it.
        "resources": record({"cpus": count, "memory": count, "memory_used": count}, null=True),
    },
    optional=frozenset({"resources"}),
)


def join(body: Any) -> dict[str, Any]:
    """`contract/join.request.json`."""
    return dict(_join(body, ""))


def token(body: Any) -> dict[str, Any]:
    """`contract/token.request.json`."""
    return dict(_token(body, ""))


def checkin(body: Any) -> dict[str, Any]:
    """`contract/checkin.request.json`."""
    return dict(_checkin(body, ""))


def _refuse(path: str, what: str) -> NoReturn:
    raise Invalid(f"{path} {what}" if path else f"The body {what}", fields={path: [what]} if path else {})
