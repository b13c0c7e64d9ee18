"""Who calls the device API, and how much it sends: what is looked at before anything is read."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, BinaryIO

from django.conf import settings

from common.errors import Invalid
from edges import sessions
from edges.errors import BodyTooLarge, TokenInvalid, TokenMissing
from edges.sessions import Identity

READ_BYTES = 64 * 1024


def milliseconds(moment: datetime) -> int:
    """Epoch milliseconds, as all times of the contract."""
    return int(moment.timestamp() * 1000)


def address(meta: Mapping[str, Any]) -> str:
    """The peer's address; behind our own proxy the last that it wrote down, since clients can write the rest."""
    forwarded = str(meta.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2].strip()
    peer = str(meta.get("REMOTE_ADDR", ""))
    return forwarded if forwarded and settings.SECURE_PROXY_SSL_HEADER else peer


def identity(meta: Mapping[str, Any], now: datetime) -> Identity:
    """Who holds the access token of this call.

    Raises `TokenMissing`, `TokenInvalid`, `TokenExpired`. That the edge may call at all is not looked at here.
    """
    scheme, _, token = str(meta.get("HTTP_AUTHORIZATION", "")).strip().partition(" ")
    if not scheme:
        raise TokenMissing("Send the access token: Authorization: Bearer <token>.")
    if scheme.lower() != "bearer":
        raise TokenInvalid("The device API takes only Authorization: Bearer <token>.")
    if not token.isascii():
        raise TokenInvalid("This is not an access token: get one at the token endpoint.")
    return sessions.proven(token.strip(), now)


def recognised(meta: Mapping[str, Any], now: datetime) -> Identity | None:
    """Who calls, if that costs nothing to tell: its token was good before and still is. None for everybody else."""
    scheme, _, token = str(meta.get("HTTP_AUTHORIZATION", "")).strip().partition(" ")
    return sessions.recognised(token.strip(), now) if scheme.lower() == "bearer" else None


def content_length(meta: Mapping[str, Any]) -> int:
    """The length that is announced. Raises `Invalid`."""
    text = str(meta.get("CONTENT_LENGTH") or "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Invalid("Content-Length must be a number.")
    return int(text)


def bound(meta: Mapping[str, Any], most: int) -> None:
    """Refuses a body above `most` bytes, or of unknown length, before it is read. Raises `Invalid`, `BodyTooLarge`."""
    if meta.get("HTTP_TRANSFER_ENCODING"):
        raise Invalid("Send the body with a Content-Length, not in chunks.")
    if content_length(meta) > most:
        raise BodyTooLarge(f"The body is larger than {most} bytes.", limit=most)


def is_chunked(meta: Mapping[str, Any]) -> bool:
    """Whether a body comes in chunks, so that its length is only known at its end."""
    return str(meta.get("HTTP_TRANSFER_ENCODING", "")).strip().lower() == "chunked"


def chunked_body(source: BinaryIO, most: int) -> bytes:
    """All of a body in chunks. Raises `BodyTooLarge` as soon as it has more than `most` bytes."""
    body = bytearray()
    while part := source.read(READ_BYTES):
        body += part
        if len(body) > most:
            raise BodyTooLarge(f"The body is larger than {most} bytes.", limit=most)
    return bytes(body)
