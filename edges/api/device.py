"""The base of views that engines call, for other apps. The calls of this app are in `calls`.

Nothing here knows people: no session, no CSRF, no user. An engine shows the access token that it got for its key.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from django.http import UnreadablePostError
from django.utils import timezone
from rest_framework import exceptions, serializers, status
from rest_framework.authentication import BaseAuthentication
from rest_framework.parsers import JSONParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import Invalid
from edges import contacts, limits, sessions
from edges.api import callers
from edges.api.callers import milliseconds
from edges.api.reading import COUNTER_MAX
from edges.errors import TokenMissing
from edges.models import Edge

__all__ = ["COUNTER_MAX", "DeviceView", "EdgeAuthentication", "EdgePrincipal", "edge_of", "milliseconds"]


@dataclasses.dataclass(frozen=True)
class EdgePrincipal:
    """Who asks, on the device API: `request.user` of its views."""

    edge: Edge
    is_authenticated: ClassVar[bool] = True
    is_active: ClassVar[bool] = True


class EdgeAuthentication(BaseAuthentication):
    """`Authorization: Bearer <access token>`. Every call that passes counts as contact.

    Raises `RateLimited`, `TokenMissing`, `TokenInvalid`, `TokenExpired`, `EdgeRemoved`, `EdgeBanned`, `SessionExpired`.
    """

    def authenticate(self, request: Request) -> tuple[EdgePrincipal, None]:
        now = timezone.now()
        identity = callers.identity(request.META, now)
        limits.spend(limits.calls_of(identity.subject))
        edge = sessions.edge_of(identity, now)
        contacts.note(edge, now=now)
        return EdgePrincipal(edge), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def edge_of(request: Request) -> Edge:
    """The edge that makes this call, read with its publish, pipeline version and pipeline."""
    principal: object = request.user
    if not isinstance(principal, EdgePrincipal):
        raise TokenMissing("Send the access token: Authorization: Bearer <token>.")
    return principal.edge


class DeviceJSONParser(JSONParser):
    """JSON whose nesting cannot exhaust the interpreter's stack."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError as exc:
            raise exceptions.ParseError("The JSON is nested too deeply.") from exc


class DeviceView(APIView):
    """Base of every view that engines call.

    - `Content-Length` is checked before anything is read: above `max_body` (bytes) the answer is 413.
    - Every answer that is a JSON object gets `server_time`, refusals too; raise the errors of `edges.errors` or of
      `common.errors` and they are answered as `{"code", "message", "server_time"}`.
    - An access token is needed unless `authentication_classes = ()`; `edge_of(request)` is then the edge. What the body
      says about who sent it is never believed.
    - Views with a JSON body use `checked(Serializer, request)`. Views with any other body set a `max_body` of their own
      and call `raw_body(request)` instead, which takes every Content-Type, and must not touch `request.data`. The
      `parser_classes` matter only for `request.data`.
    """

    authentication_classes: Any = (EdgeAuthentication,)
    permission_classes: Any = (IsAuthenticated,)
    parser_classes: Any = (DeviceJSONParser,)
    renderer_classes: Any = (JSONRenderer,)
    schema = None  # not for people: the messages are in contract/
    max_body = 16 * 1024

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # First of all, so that a body that nobody asked for costs nothing, not even a look at the token.
        self._bound(request)
        limits.spend(limits.calls_from(callers.address(request.META)))
        super().initial(request, *args, **kwargs)

    def raw_body(self, request: Request) -> bytes:
        """The whole body as it came, at most `max_body` bytes. Raises `Invalid` when it breaks off."""
        try:
            body: bytes = request.body
        except UnreadablePostError as exc:
            raise Invalid("The body broke off: send it again.") from exc
        if len(body) != callers.content_length(request.META):
            raise Invalid("The body is shorter than its Content-Length: send it again.")
        return body

    def checked(self, serializer: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
        """The JSON body, checked. Raises DRF's `ValidationError` and `ParseError`, answered as `invalid`."""
        if not isinstance(request.data, dict):
            raise Invalid("The body must be a JSON object.")
        checked = serializer(data=request.data)
        checked.is_valid(raise_exception=True)
        return dict(checked.validated_data)

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, exceptions.ParseError | exceptions.UnsupportedMediaType):
            exc = Invalid(f"The body must be JSON: {exc.detail}")
        response = super().handle_exception(exc)
        if response.status_code == status.HTTP_401_UNAUTHORIZED:
            response["WWW-Authenticate"] = "Bearer"  # RFC 6750 section 3
        return response

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(response, Response) and isinstance(response.data, dict):
            response.data["server_time"] = milliseconds(timezone.now())
        return super().finalize_response(request, response, *args, **kwargs)

    def _bound(self, request: Request) -> None:
        callers.bound(request.META, self.max_body)
