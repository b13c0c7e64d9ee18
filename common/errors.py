"""The tree of anticipated failures. A class says what kind of failure it is, an instance's `code` says which one.

HTTP is not known here: `common.api` gives each kind its status.
"""

from typing import Any


class DomainError(Exception):
    """A refusal that a person can act on. `message` is shown as it is; `data` joins the answer's body."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.data = data


class Invalid(DomainError):
    """The input is wrong; sending it again does not help."""

    code = "invalid"


class NotAuthenticated(DomainError):
    """Nobody is known to ask."""

    code = "not_authenticated"


class Forbidden(DomainError):
    """The asker is known, sees the object, and may not do this."""

    code = "forbidden"


class NotFound(DomainError):
    """There is no such object for this asker: absent and hidden look the same."""

    code = "not_found"


class Conflict(DomainError):
    """The state of things forbids it now."""

    code = "conflict"


class TooLarge(DomainError):
    """More bytes or rows than are taken at once. `data` names the limit."""

    code = "too_large"


class RateLimited(DomainError):
    """Too many requests. `data["retry_after"]` is in seconds."""

    code = "rate_limited"


class StorageFull(DomainError):
    """There is no room to store it; nothing was stored."""

    code = "storage_full"


class TransientError(Exception):
    """It may work when tried again: a broken connection, a registry's 503."""
