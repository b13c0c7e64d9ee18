"""What every JSON interface shares: how failures are answered, and paging."""

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.utils.translation import gettext as _
from rest_framework import exceptions, pagination, status
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_exception_handler

from common import errors

logger = logging.getLogger(__name__)

# The first matching kind decides, so leaves may be added to the tree without a change here.
STATUSES: tuple[tuple[type[errors.DomainError], int], ...] = (
    (errors.Invalid, status.HTTP_400_BAD_REQUEST),
    (errors.NotAuthenticated, status.HTTP_401_UNAUTHORIZED),
    (errors.Forbidden, status.HTTP_403_FORBIDDEN),
    (errors.NotFound, status.HTTP_404_NOT_FOUND),
    (errors.Conflict, status.HTTP_409_CONFLICT),
    (errors.TooLarge, status.HTTP_413_REQUEST_ENTITY_TOO_LARGE),
    (errors.RateLimited, status.HTTP_429_TOO_MANY_REQUESTS),
    (errors.StorageFull, status.HTTP_507_INSUFFICIENT_STORAGE),
)


def status_of(error: errors.DomainError) -> int:
    """The HTTP status of a refusal's kind; 400 for a kind nobody mapped."""
    return next((code for kind, code in STATUSES if isinstance(error, kind)), status.HTTP_400_BAD_REQUEST)


def error_body(error: errors.DomainError) -> dict[str, Any]:
    """`{"code", "message", …data}` of a refusal."""
    return {"code": error.code, "message": error.message, **error.data}


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """DRF's handler for every view: one shape, `{"code", "message", "fields"?}`, for all anticipated failures."""
    if isinstance(exc, errors.DomainError):
        response = Response(error_body(exc), status=status_of(exc))
        if isinstance(exc, errors.RateLimited):
            response["Retry-After"] = str(exc.data.get("retry_after", 1))
        return response
    if isinstance(exc, exceptions.ValidationError):
        return Response(
            {"code": "invalid", "message": _first_message(exc.detail), "fields": exc.detail},
            status=status.HTTP_400_BAD_REQUEST,
        )
    response_or_none = drf_exception_handler(exc, dict(context))
    if response_or_none is not None:
        response_or_none.data = _plain_body(exc)
    return response_or_none


def _plain_body(exc: Exception) -> dict[str, Any]:
    if isinstance(exc, exceptions.APIException):
        codes = exc.get_codes()
        return {"code": codes if isinstance(codes, str) else exc.default_code, "message": str(exc.detail)}
    if isinstance(exc, Http404):
        return {"code": "not_found", "message": _("There is nothing here.")}
    if isinstance(exc, PermissionDenied):
        return {"code": "forbidden", "message": str(exc) or _("You may not do this.")}
    return {"code": "error", "message": str(exc)}


def _first_message(detail: Any, path: str = "") -> str:
    """The first sentence of DRF's nested field errors, with the field's name before it."""
    if isinstance(detail, Mapping):
        name, inner = next(iter(detail.items()))
        return _first_message(inner, "" if name == "non_field_errors" else str(name))
    if isinstance(detail, list | tuple):
        return _first_message(detail[0], path) if detail else _("The input is not valid.")
    return f"{path}: {detail}" if path else str(detail)


class Pages(pagination.LimitOffsetPagination):
    """`?limit=&offset=` → `{"count", "next", "previous", "results"}`."""

    default_limit = 100
    max_limit = 1000
