"""Who may use the registry: the one robot account of the settings, by HTTP Basic (RFC 7617)."""

import base64
import binascii

from django.conf import settings
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from registry.errors import Unauthorized


def require_robot(request: HttpRequest) -> None:
    """Raise Unauthorized unless the request carries the robot account's name and password."""
    name, password = _credentials(request.headers.get("Authorization", ""))
    # Both are always compared, each in constant time: the time taken tells neither which was wrong nor how far.
    name_fits = constant_time_compare(name, settings.REGISTRY_USERNAME.encode())
    password_fits = constant_time_compare(password, settings.REGISTRY_PASSWORD.encode())
    # An unset password must not let in those who send an empty one.
    if not (name_fits and password_fits and password):
        raise Unauthorized("Log in with the registry's account: its user name or password is missing or wrong.")


def _credentials(header: str) -> tuple[bytes, bytes]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return b"", b""
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b"", b""
    name, _, password = decoded.partition(b":")
    return name, password
