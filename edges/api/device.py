"""The device API, `/edge/v1/`: what engines call. Its messages are those of `contract/`.

Nothing here knows people: no session, no CSRF, no user. An engine shows the access token that it got for its key.
"""

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, NoReturn

from django.conf import settings
from django.http import UnreadablePostError
from django.utils import timezone
from rest_framework import exceptions, serializers, status
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.parsers import JSONParser
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle
from rest_framework.views import APIView

from common.errors import Invalid, RateLimited
from edges import contacts, queries, sessions
from edges.errors import BodyTooLarge, TokenInvalid, TokenMissing
from edges.models import Edge
from edges.sessions import Session

COUNTER_MAX = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class EdgePrincipal:
    """Who asks, on the device API: `request.user` of its views."""

    edge: Edge
    is_authenticated: ClassVar[bool] = True
    is_active: ClassVar[bool] = True


class EdgeAuthentication(BaseAuthentication):
    """`Authorization: Bearer <access token>`. Every call that passes counts as contact.

    Raises `TokenMissing`, `TokenInvalid`, `TokenExpired`, `EdgeRemoved`, `EdgeBanned`, `SessionExpired`.
    """

    def authenticate(self, request: Request) -> tuple[EdgePrincipal, None]:
        scheme, _, token = get_authorization_header(request).strip().partition(b" ")
        if not scheme:
            raise TokenMissing("Send the access token: Authorization: Bearer <token>.")
        if scheme.lower() != b"bearer":
            raise TokenInvalid("The device API takes only Authorization: Bearer <token>.")
        try:
            text = token.strip().decode("ascii")
        except UnicodeDecodeError as exc:
            raise TokenInvalid("This is not an access token: get one at the token endpoint.") from exc
        now = timezone.now()
        edge = sessions.edge_with(text, now)
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


class JoinThrottle(SimpleRateThrottle):
    """Limits how often one address may try to join: `DEFAULT_THROTTLE_RATES["join"]`."""

    scope = "join"

    def get_cache_key(self, request: Request, view: APIView) -> str:
        return self.cache_format % {"scope": self.scope, "ident": self.get_ident(request)}

    def get_ident(self, request: Request) -> str:
        """The peer's address; behind our own proxy the last that it wrote down, since clients can write the rest."""
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
        peer = request.META.get("REMOTE_ADDR", "")
        return str(forwarded if forwarded and settings.SECURE_PROXY_SSL_HEADER else peer)


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
        super().initial(request, *args, **kwargs)

    def raw_body(self, request: Request) -> bytes:
        """The whole body as it came, at most `max_body` bytes. Raises `Invalid` when it breaks off."""
        try:
            body: bytes = request.body
        except UnreadablePostError as exc:
            raise Invalid("The body broke off: send it again.") from exc
        if len(body) != _content_length(request):
            raise Invalid("The body is shorter than its Content-Length: send it again.")
        return body

    def checked(self, serializer: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
        """The JSON body, checked. Raises DRF's `ValidationError` and `ParseError`, answered as `invalid`."""
        if not isinstance(request.data, dict):
            raise Invalid("The body must be a JSON object.")
        checked = serializer(data=request.data)
        checked.is_valid(raise_exception=True)
        return dict(checked.validated_data)

    def throttled(self, request: Request, wait: float | None) -> NoReturn:
        seconds = max(1, round(wait or 1))
        raise RateLimited(f"Too many tries from this address: try again in {seconds} s.", retry_after=seconds)

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
        if request.META.get("HTTP_TRANSFER_ENCODING"):
            raise Invalid("Send the body with a Content-Length, not in chunks.")
        if _content_length(request) > self.max_body:
            raise BodyTooLarge(f"The body is larger than {self.max_body} bytes.", limit=self.max_body)


def _content_length(request: Request) -> int:
    text = request.META.get("CONTENT_LENGTH") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Invalid("Content-Length must be a number.")
    return int(text)


def milliseconds(moment: datetime) -> int:
    """Epoch milliseconds, as all times of the contract."""
    return int(moment.timestamp() * 1000)


class EngineIn(serializers.Serializer[Any]):
    version = serializers.CharField(max_length=64)
    arch = serializers.CharField(max_length=64)
    accel = serializers.CharField(max_length=64)
    os = serializers.CharField(max_length=64)
    started_at = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX, required=False)


class JoinIn(serializers.Serializer[Any]):
    join_token = serializers.UUIDField()
    public_key = serializers.DictField()
    engine = EngineIn()


class TokenIn(serializers.Serializer[Any]):
    # RFC 7523 section 2.2 and RFC 6749 section 4.4.2.
    grant_type = serializers.ChoiceField(["client_credentials"])
    client_assertion_type = serializers.ChoiceField(["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"])
    client_assertion = serializers.CharField(max_length=4096)


class ServingIn(serializers.Serializer[Any]):
    digest = serializers.RegexField(r"^sha256:[0-9a-f]{64}\Z")
    pipeline = serializers.CharField(max_length=128)
    pipeline_version = serializers.CharField(max_length=64)
    since = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)


class Excerpt(serializers.CharField):
    """Text of any content, cut to what is kept: a long or odd error message must not make a check-in fail."""

    LENGTH = 2000

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)[: self.LENGTH]
        # PostgreSQL stores neither NUL nor half a surrogate pair.
        return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


class UpdateIn(serializers.Serializer[Any]):
    # Not a choice: an engine that is newer than we are must be able to check in.
    state = serializers.CharField(max_length=32)
    error = Excerpt(allow_null=True, allow_blank=True)


class CountersIn(serializers.Serializer[Any]):
    requests = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)
    rows = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)
    # DRF takes fields out of the class, so `errors` and `update` below hide nothing of it.
    errors = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)  # type: ignore[assignment]


class LogsIn(serializers.Serializer[Any]):
    epoch = serializers.UUIDField()
    last_sequence = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)
    acked = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)
    shed = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)


class DiskIn(serializers.Serializer[Any]):
    free = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)
    total = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)


class CheckinIn(serializers.Serializer[Any]):
    serving = ServingIn(allow_null=True)
    update = UpdateIn()  # type: ignore[assignment]
    engine = EngineIn()
    counters = CountersIn()
    logs = LogsIn()
    disk = DiskIn()
    clock = serializers.IntegerField(min_value=0, max_value=COUNTER_MAX)


class Join(DeviceView):
    """`POST join`: a join token and a key for an identity and a session. 201."""

    authentication_classes = ()
    permission_classes: tuple[type[BasePermission], ...] = ()
    throttle_classes: list[type[BaseThrottle]] = [JoinThrottle]

    def post(self, request: Request) -> Response:
        given = self.checked(JoinIn, request)
        joined = contacts.join(
            join_token=str(given["join_token"]), public_key=given["public_key"], engine=given["engine"]
        )
        edge = joined.edge
        return Response(
            {
                "edge": {"id": str(edge.pk), "name": edge.name, "spiffe_id": edge.spiffe_id},
                "session": {**session_body(joined.session), "token_endpoint": sessions.token_endpoint()},
                "desired": dataclasses.asdict(queries.desired(edge)),
                "next_checkin": settings.EDGE_CHECKIN_SECONDS,
            },
            status=status.HTTP_201_CREATED,
        )


class Token(DeviceView):
    """`POST token`: a signed assertion for an access token. 200."""

    authentication_classes = ()
    permission_classes: tuple[type[BasePermission], ...] = ()

    def post(self, request: Request) -> Response:
        given = self.checked(TokenIn, request)
        return Response(session_body(contacts.token(assertion=given["client_assertion"])))


class Checkin(DeviceView):
    """`POST checkin`: what an edge serves and how it is, for what it should serve. 200."""

    def post(self, request: Request) -> Response:
        report = self.checked(CheckinIn, request)
        epoch = report["logs"]["epoch"]
        report["logs"] = {**report["logs"], "epoch": str(epoch)}
        edge = contacts.checkin(edge=edge_of(request), report=report)
        return Response(
            {
                "desired": dataclasses.asdict(queries.desired(edge)),
                "logs": {"acked": queries.acked(edge, epoch)},
                "lapses_at": milliseconds(edge.session_lapses_at) if edge.session_lapses_at else None,
                "next_checkin": settings.EDGE_CHECKIN_SECONDS,
            }
        )


def session_body(session: Session) -> dict[str, Any]:
    """What join and token say alike about a session."""
    return {
        "access_token": session.access_token,
        "token_type": "Bearer",
        "expires_in": session.expires_in,
        "lapses_at": milliseconds(session.lapses_at),
    }
