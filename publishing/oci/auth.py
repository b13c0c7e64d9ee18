"""How a registry is told who asks: Basic, or Bearer tokens for exactly the scopes that a call needs.

The challenge decides which (RFC 9110 section 11, the distribution project's token specification).
"""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from publishing.oci.faults import RegistryFault

DEFAULT_TOKEN_SECONDS = 60.0  # the token specification's life of a token without `expires_in`
MOST_EARLY_SECONDS = 30.0  # renewed this long before it ends, or after three quarters of a short life

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PART = re.compile(rf'(?P<name>{_WORD})(?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_WORD})))?')


@dataclass(frozen=True)
class Challenge:
    """One offer of a `WWW-Authenticate` header: scheme and parameter names in lower case."""

    scheme: str
    params: Mapping[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Every offer in these `WWW-Authenticate` values: several in one header, and commas inside quotes, are usual."""
    found: list[Challenge] = []
    for header in headers:
        params: dict[str, str] | None = None
        for part in _PART.finditer(header):
            quoted, plain = part["quoted"], part["plain"]
            if quoted is None and plain is None:
                params = {}
                found.append(Challenge(part["name"].lower(), params))
            elif params is not None:
                params[part["name"].lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return found


def push_scope(repository: str) -> str:
    """The scope to read and write a repository; asked for at once, since some servers grant exactly what is asked."""
    return f"repository:{repository}:pull,push"


def pull_scope(repository: str) -> str:
    """The scope to read a repository, for example to mount a blob from it."""
    return f"repository:{repository}:pull"


def clean_password(username: str, password: str) -> str:
    """The password as a registry expects it.

    A Google key in base64 must be on one line, but `base64` wraps lines; any other password may end in a line break
    that came from a file.
    """
    if username == "_json_key_base64":
        return re.sub(r"\s+", "", password)
    return password.rstrip("\r\n")


@dataclass(frozen=True)
class Login:
    """Who asks. An `identity_token` (an OAuth2 refresh token) goes before the password."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of a Basic `Authorization`."""
        pair = f"{self.username}:{clean_password(self.username, self.password)}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def form(self, service: str, scopes: tuple[str, ...]) -> bytes:
        """The body of the token specification's OAuth2 way."""
        fields = {"client_id": "opscenter", "service": service, "scope": " ".join(scopes)}
        if self.identity_token:
            fields |= {"grant_type": "refresh_token", "refresh_token": self.identity_token}
        else:
            password = clean_password(self.username, self.password)
            fields |= {"grant_type": "password", "username": self.username, "password": password}
        return urlencode(fields).encode()


@dataclass(frozen=True)
class _Token:
    """`granted` is what it opens, as (repository, action); None where the token does not tell."""

    text: str
    renew_at: float
    granted: frozenset[tuple[str, str]] | None = None


class Authorizer:
    """Remembers how this registry wants to be told, and the tokens it gave. Safe to share between threads."""

    def __init__(
        self,
        host: str,
        login: Login,
        ask: Callable[[str, Mapping[str, str], bytes | None], tuple[int, bytes]],
        *,
        plain_http: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask(url, headers, form)` answers status and body of a GET, with a form a POST, to the token server.

        It raises refusals, but answers 404 and 405.
        """
        self._host = host
        self._login = login
        self._ask = ask
        self._plain_http = plain_http
        self._clock = clock
        self._lock = threading.RLock()  # a refusal of the token server is put into words while it is held
        self._bearer: Mapping[str, str] | None = None
        self._basic = False
        self._tokens: dict[tuple[str, ...], _Token] = {}

    def header(self, scopes: tuple[str, ...]) -> str | None:
        """The `Authorization` for a call with these scopes, from a fresh token; None until the registry has asked."""
        with self._lock:
            if self._basic:
                return self._login.basic
            if self._bearer is None:
                return None
            token = self._tokens.get(scopes)
            if token is None or self._clock() >= token.renew_at:
                token = self._tokens[scopes] = self._fetch(scopes)
            return f"Bearer {token.text}"

    def challenged(self, offers: list[Challenge], scopes: tuple[str, ...], used: str | None) -> bool:
        """Learns from a 401 or 403 to a call made with `used`. False when another try can end no better.

        Raises `RegistryFault` when the registry asks for what we cannot do.
        """
        with self._lock:
            has_basic = any(offer.scheme == "basic" for offer in offers)
            bearers = [offer for offer in offers if offer.scheme == "bearer"]
            # Of several offers the first that can be followed: one without a token server is of no use.
            bearer = next((offer for offer in bearers if _is_url(offer.params.get("realm", ""))), None)
            bearer = bearer or (bearers[0] if bearers and not has_basic else None)
            if bearer:
                self._learn_bearer(bearer.params)
            elif has_basic:
                self._learn_basic()
            elif offers and self._bearer is None:
                names = ", ".join(sorted({offer.scheme for offer in offers}))
                raise RegistryFault(f"{self._host} asks for a kind of login that OpsCenter does not know ({names}).")
            if self._basic:
                return used != self._login.basic
            if self._bearer is None:
                return False
            token = self._tokens.get(scopes)
            if token and used == f"Bearer {token.text}":
                del self._tokens[scopes]  # it lapsed early or was revoked; a newer one is another thread's renewal
            return True

    def _learn_bearer(self, params: Mapping[str, str]) -> None:
        realm = params.get("realm", "")
        if not _is_url(realm):
            raise RegistryFault(f"{self._host} names no usable token server in its login challenge.")
        if realm.startswith("http:") and not self._plain_http:
            raise RegistryFault(
                f"{self._host} names a token server without TLS, so the password is not sent: "
                "give its token server an https address."
            )
        self._bearer = params

    def _learn_basic(self) -> None:
        if not self._login.username:
            raise RegistryFault(
                f"{self._host} asks for a login, but no username is set in the admin console under Registry settings.",
                status=401,
            )
        self._basic = True

    def missing(self, scopes: tuple[str, ...]) -> str:
        """What was asked for but silently not granted, in words; empty when all was, or the token does not tell."""
        with self._lock:
            token = self._tokens.get(scopes)
        if token is None or token.granted is None:
            return ""
        lacking = []
        for scope in scopes:
            _kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            for action in actions.split(","):
                if not {(name, action), (name, "*")} & token.granted:
                    lacking.append(f"{action} on {name}")
        return " and ".join(lacking)

    def _fetch(self, scopes: tuple[str, ...]) -> _Token:
        assert self._bearer is not None
        realm, service = self._bearer["realm"], self._bearer.get("service", "")
        if self._login.identity_token:
            return self._token(*self._ask(realm, {}, self._login.form(service, scopes)))
        asked = [("service", service)] if service else []
        query = urlencode([*asked, *(("scope", scope) for scope in scopes)])
        url = f"{realm}{'&' if '?' in realm else '?'}{query}" if query else realm
        status, content = self._ask(url, {"Authorization": self._login.basic} if self._login.username else {}, None)
        if status != 200 and self._login.username:
            # A token server that knows the OAuth2 way only.
            status, content = self._ask(realm, {}, self._login.form(service, scopes))
        return self._token(status, content)

    def _token(self, status: int, content: bytes) -> _Token:
        try:
            found = json.loads(content) if status == 200 else {}
            text = str(found.get("token") or found["access_token"])
            seconds = float(found.get("expires_in") or DEFAULT_TOKEN_SECONDS)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise RegistryFault(f"The token server of {self._host} answered without a token.", status=status) from exc
        renew_at = self._clock() + seconds - min(MOST_EARLY_SECONDS, seconds / 4)
        return _Token(text, renew_at, granted_by(text))


def granted_by(token: str) -> frozenset[tuple[str, str]] | None:
    """What a JWT of the token specification opens, by its claim `access`: (repository, action).

    None where it does not tell: tokens are for the registry, which may put anything into them. It is only read to
    explain a refusal, never trusted.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        access = claims["access"]
        return frozenset(
            (str(entry["name"]), str(action))
            for entry in access
            if entry["type"] == "repository"
            for action in entry["actions"]
        )
    except (ValueError, KeyError, TypeError):
        return None


def _is_url(realm: str) -> bool:
    return urlsplit(realm).scheme in {"http", "https"}
