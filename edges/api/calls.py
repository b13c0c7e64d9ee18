"""The calls that every engine makes all the time, as plain Django views: thousands of edges check in every 30 seconds,
and a DRF view costs each of them more than its work does. The views of other apps use `edges.api.device.DeviceView`;
refusals, limits and identity are the same.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any, NoReturn

from django.conf import settings
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from rest_framework.request import Request

from common.api import error_body, status_of
from common.errors import DomainError, Invalid, NotAuthenticated, RateLimited
from edges import contacts, hot, limits, queries, sessions, signing
from edges.api import callers, reading
from edges.api.callers import milliseconds
from edges.limits import Count
from edges.sessions import Identity, Session

MAX_BODY = 16 * 1024
View = Callable[[HttpRequest], HttpResponse]
EdgeView = Callable[[HttpRequest, Identity, datetime], HttpResponse]


def _call(method: str, *also: Callable[[str], Count]) -> Callable[[View], View]:
    """A view of the device API: one method, a bounded body, every refusal in the contract's shape.

    `also` are what is counted of an address beside its calls.
    """

    def decorate(view: View) -> View:
        def answer(request: HttpRequest) -> HttpResponse:
            callers.bound(request.META, MAX_BODY)
            address = callers.address(request.META)
            limits.spend(limits.calls_from(address), *(count(address) for count in also))
            return view(request) if request.method == method else _not_allowed(method)

        return _answering(answer)

    return decorate


def edge_call(method: str, *, most: int = MAX_BODY, may_be_chunked: bool = False) -> Callable[[EdgeView], View]:
    """The same for edges that joined: the view is given who calls, and when.

    A body has at most `most` bytes. One in chunks is let in only where the view reads it with `raw_body`, which counts.
    """

    def decorate(view: EdgeView) -> View:
        def answer(request: HttpRequest) -> HttpResponse:
            now = timezone.now()
            if not (may_be_chunked and callers.is_chunked(request.META)):
                callers.bound(request.META, most)
            identity = _admitted(request, now)
            return view(request, identity, now) if request.method == method else _not_allowed(method)

        return _answering(answer)

    return decorate


def _answering(view: View) -> View:
    def answer(request: HttpRequest) -> HttpResponse:
        try:
            return view(request)
        except DomainError as refusal:
            return _refusal(refusal)

    return csrf_exempt(answer)


def _admitted(request: HttpRequest, now: datetime) -> Identity:
    """Who calls, counted. A stranger's address is counted before anything is verified for it."""
    address = limits.calls_from(callers.address(request.META))
    identity = callers.recognised(request.META, now)
    if identity:
        limits.spend(address, limits.calls_of(identity.subject))
        return identity
    limits.spend(address)
    identity = callers.identity(request.META, now)
    limits.spend(limits.calls_of(identity.subject))
    return identity


@_call("POST", limits.joins)
def join(request: HttpRequest) -> HttpResponse:
    """`POST join`: a join token and a key for an identity and a session. 201."""
    given = reading.join(_body(request))
    joined = contacts.join(**given)
    edge = joined.edge
    return answer_json(
        {
            "edge": {"id": str(edge.pk), "name": edge.name, "spiffe_id": edge.spiffe_id},
            "session": {**_session(joined.session), "token_endpoint": sessions.token_endpoint()},
            "desired": dataclasses.asdict(queries.desired(edge.publish_id)),
            "next_checkin": settings.EDGE_CHECKIN_SECONDS,
        },
        HTTPStatus.CREATED,
    )


@_call("POST")
def token(request: HttpRequest) -> HttpResponse:
    """`POST token`: a signed assertion for an access token. 200."""
    given = reading.token(_body(request))
    return answer_json(_session(contacts.token(assertion=given["client_assertion"])))


@edge_call("POST")
def checkin(request: HttpRequest, identity: Identity, now: datetime) -> HttpResponse:
    """`POST checkin`: what an edge serves and how it is, for what it should serve. 200, or 304 when it knows that."""
    found = hot.checkin(identity, lambda: reading.checkin(_body(request)), now)
    known = {
        "desired": dataclasses.asdict(found.desired),
        "logs": {"acked": found.acked},
        "next_checkin": settings.EDGE_CHECKIN_SECONDS,
    }
    return _tagged(request, known, lapses_at=milliseconds(found.lapses_at))


@edge_call("GET")
def desired(request: HttpRequest, identity: Identity, now: datetime) -> HttpResponse:
    """`GET desired`: what the edge that asks should serve, and nobody else's. 200, or 304 when it knows that."""
    edge = contacts.current(edge=sessions.edge_of(identity, now), now=now)
    return _tagged(request, {"desired": dataclasses.asdict(queries.desired(edge.publish_id))})


@_call("GET")
def jwks(request: HttpRequest) -> HttpResponse:
    """`GET jwks`: the public keys that verify access tokens (RFC 7517 section 5)."""
    seconds = int(signing.RING_LIFE.total_seconds())
    return answer_json({"keys": signing.jwks(timezone.now())}, cache=f"public, max-age={seconds}")


def bounded_body(request: HttpRequest | Request, most: int) -> bytes:
    """The same for callers whose length was not bounded yet. Raises `BodyTooLarge`, `Invalid`."""
    if not callers.is_chunked(request.META):
        callers.bound(request.META, most)
    return raw_body(request, most)


def raw_body(request: HttpRequest | Request, most: int) -> bytes:
    """The whole body as it came, also in chunks. Raises `BodyTooLarge` above `most` bytes, `Invalid` if it breaks off.

    A length that was announced is to be bounded before.
    """
    if callers.is_chunked(request.META):
        return callers.chunked_body(request.META["wsgi.input"], most)
    try:
        body: bytes = request.body
    except UnreadablePostError as exc:
        raise Invalid("The body broke off: send it again.") from exc
    if len(body) != callers.content_length(request.META):
        raise Invalid("The body is shorter than its Content-Length: send it again.")
    return body


def _body(request: HttpRequest) -> Any:
    if not (request.content_type or "application/json").startswith("application/json"):
        raise Invalid("The body must be JSON: send Content-Type: application/json.")
    try:
        return json.loads(request.body, parse_constant=_no_number)
    except UnreadablePostError as exc:
        raise Invalid("The body broke off: send it again.") from exc
    except RecursionError as exc:
        raise Invalid("The JSON is nested too deeply.") from exc
    except ValueError as exc:
        raise Invalid(f"The body must be JSON: {exc}") from exc


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON.")


def _session(session: Session) -> dict[str, Any]:
    """What join and token say alike about a session."""
    return {
        "access_token": session.access_token,
        "token_type": "Bearer",
        "expires_in": session.expires_in,
        "lapses_at": milliseconds(session.lapses_at),
    }


def _tagged(request: HttpRequest, known: dict[str, Any], **moving: Any) -> HttpResponse:
    """An answer whose ETag stands for `known`; what moves with every call is not part of it."""
    tag = f'"{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]}"'
    asked = request.META.get("HTTP_IF_NONE_MATCH", "")
    if tag in (word.strip().removeprefix("W/") for word in asked.split(",")):
        return HttpResponse(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag, "Cache-Control": "no-store"})
    return answer_json({**known, **moving}, ETag=tag)


def _not_allowed(method: str) -> HttpResponse:
    return answer_json({"code": "method_not_allowed", "message": f"Use {method}."}, 405, Allow=method)


def _refusal(refusal: DomainError) -> HttpResponse:
    headers = {}
    if isinstance(refusal, RateLimited):
        headers["Retry-After"] = str(refusal.data.get("retry_after", 1))
    if isinstance(refusal, NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"  # RFC 6750 section 3
    return answer_json(error_body(refusal), status_of(refusal), **headers)


def answer_json(
    body: dict[str, Any], status: int = HTTPStatus.OK, *, cache: str = "no-store", **headers: str
) -> HttpResponse:
    """An answer of the device API: JSON, with the server's time."""
    text = json.dumps({**body, "server_time": milliseconds(timezone.now())})
    return HttpResponse(text, "application/json", status, headers={"Cache-Control": cache, **headers})
