"""Calls to one registry: logged in, redirected safely, and repeated when a fault may pass."""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Self, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3
import urllib3.exceptions
from urllib3._collections import HTTPHeaderDict

from publishing.oci import auth, faults
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.plan import Plan
from publishing.oci.sessions import Sessions
from publishing.oci.transport import ANSWER_SECONDS, Readable, Transport

MOST_ANSWER = 64 * 1024  # bytes read of an answer that is not content
MOST_REDIRECTS = 5
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


@dataclass(frozen=True)
class Registry:
    """Where a registry is and who asks. `host` is `host[:port]`.

    `proxy` is a URL that is used instead of the environment's; `identity_token` an OAuth2 refresh token, as a
    `docker login` may have left, used instead of the password.
    """

    host: str
    username: str = ""
    password: str = field(default="", repr=False)
    plain_http: bool = False
    ca_certificate: str = field(default="", repr=False)
    proxy: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def base_url(self) -> str:
        """Where `/v2/` begins. Docker Hub's API has another name than its references."""
        host = "registry-1.docker.io" if self.host in {"docker.io", "index.docker.io"} else self.host
        return f"{'http' if self.plain_http else 'https'}://{host}"


@dataclass(frozen=True)
class Retries:
    """How long faults that may pass are borne: `tries` in all, with pauses that double from `first` to `most` seconds.

    A registry that asks for a pause longer than `patience` seconds is not waited for.
    """

    tries: int = 6
    first: float = 0.5
    most: float = 20.0
    patience: float = 60.0

    def pause(self, failures: int, retry_after: float | None) -> float:
        """Seconds to wait after this many failures; jittered, so that many workers do not come back at once."""
        if retry_after is not None:
            return retry_after + random.uniform(0, 0.5)
        return min(self.most, self.first * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Call:
    """One request. `step` names it to people ("the write of model.onnx")."""

    method: str
    url: str
    step: str
    repository: str = ""
    scopes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Readable | bytes] | None = None
    expected: frozenset[int] = frozenset({200})
    answer_seconds: float = ANSWER_SECONDS
    most: int = MOST_ANSWER


@dataclass(frozen=True)
class Answer:
    status: int
    headers: HTTPHeaderDict
    content: bytes


_PING = Call("GET", "/v2/", "the login")


class Client:
    """One registry, one set of credentials. Threads may share it."""

    def __init__(
        self,
        registry: Registry,
        *,
        retries: Retries | None = None,
        sleep: Callable[[float], object] = time.sleep,
        plan: Plan | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        """`sleep` may raise to give up between tries. Raises `RegistryFault` for an unreadable CA certificate."""
        self.registry = registry
        self.plan = plan or Plan.of(registry.host)
        self.sessions = sessions or Sessions()
        self._retries = retries or Retries()
        self._sleep = sleep
        self._transport = Transport(registry.ca_certificate, registry.proxy)
        self._auth = auth.Authorizer(
            registry.host,
            auth.Login(registry.username, registry.password, registry.identity_token),
            self._ask_token,
            plain_http=registry.plain_http,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def log_in(self, repository: str) -> None:
        """Proves that this is a registry which lets us write to a repository, before anything is sent.

        Raises `RegistryFault`, `Unavailable`.
        """
        self.retry(lambda: self._log_in(repository))

    def retry(self, action: Callable[[], T]) -> T:
        """The action's result, repeated from its beginning while its faults may pass. Raises `Unavailable` at last."""
        failures = 0
        while True:
            try:
                return action()
            except Unavailable as fault:
                if fault.is_final:
                    raise
                failures += 1
                if fault.retry_after is not None and fault.retry_after > self._retries.patience:
                    raise Unavailable(f"{fault.message}; it asks to come back in {fault.retry_after:.0f} s.") from fault
                if failures >= self._retries.tries:
                    raise Unavailable(f"{fault.message}; gave up after {failures} tries.") from fault
                self._sleep(self._retries.pause(failures, fault.retry_after))

    def exchange(self, call: Call) -> Answer:
        """One try. Raises `RegistryFault` for an unexpected answer, `Unavailable` for a fault that may pass."""
        with self.stream(call) as response:
            return self._read(call, response)

    @contextmanager
    def stream(self, call: Call) -> Iterator[urllib3.BaseHTTPResponse]:
        """As `exchange`, with the expected answer's body unread."""
        response = self._authorised(call)
        try:
            if response.status not in call.expected:
                raise self._fault(call, self._read(call, response))
            yield response
            response.drain_conn()
        except urllib3.exceptions.HTTPError as exc:
            raise self.broken(exc, call.step) from exc
        finally:
            if not response.closed:
                response.close()
            response.release_conn()

    def ping(self) -> Answer:
        """What GET /v2/ answers to somebody who is not logged in. Raises `RegistryFault`, `Unavailable`."""
        response = self._send(_PING, None)
        try:
            return self._read(_PING, response)
        finally:
            response.close()

    def no_registry(self, answer: Answer) -> RegistryFault | Unavailable:
        """The fault for an answer to `ping` that no registry gives."""
        if answer.status == 400 or answer.status not in {301, 302, 404}:
            return self._fault(_PING, answer)
        return RegistryFault(
            f"{self.registry.host} does not answer like an OCI registry (GET /v2/ gave {answer.status}): "
            "check the registry in the admin console under Registry settings."
        )

    def _log_in(self, repository: str) -> None:
        scopes = (auth.push_scope(repository),)
        answer = self.ping()
        if answer.status == 401:
            offers = auth.challenges(answer.headers.getlist("WWW-Authenticate"))
            self._auth.challenged(offers, scopes, None)
            if (self._auth.header(scopes) or "").startswith("Basic "):
                self.exchange(_PING)  # a token was proof of the password; Basic has not been tried yet
            if missing := self._auth.missing(scopes):
                raise self._granted_less(missing, repository)
        elif answer.status != 200:
            raise self.no_registry(answer)

    def _authorised(self, call: Call) -> urllib3.BaseHTTPResponse:
        """Sends with what the registry asked for before; a refusal is answered once with a new login."""
        used = self._auth.header(call.scopes)
        response = self._send(call, used)
        if response.status != 401 and not (response.status == 403 and (used or "").startswith("Bearer ")):
            return response
        offers = auth.challenges(response.headers.getlist("WWW-Authenticate"))
        if not self._auth.challenged(offers, call.scopes, used):
            return response
        response.drain_conn()
        response.release_conn()
        return self._send(call, self._auth.header(call.scopes))

    def _send(self, call: Call, authorization: str | None) -> urllib3.BaseHTTPResponse:
        """Follows redirects, and shows who we are to the registry itself only, never to where it sends us."""
        url = urljoin(self.registry.base_url, call.url)
        for _ in range(MOST_REDIRECTS):
            self._refuse_downgrade(url, call.step)
            headers = dict(call.headers)
            if authorization and _origin(url) == _origin(self.registry.base_url):
                headers["Authorization"] = authorization
            response = self._open(call, url, headers)
            target = response.headers.get("Location")
            followed = {307, 308} if call.method not in {"GET", "HEAD"} else {301, 302, 303, 307, 308}
            if response.status not in followed or not target:
                return response
            response.close()
            url = urljoin(url, target)
        raise RegistryFault(f"{self.registry.host} redirects without end at {call.step}.")

    def _open(self, call: Call, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            return self._transport.open(
                call.method,
                url,
                headers=headers,
                body=call.body() if call.body else None,
                answer_seconds=call.answer_seconds,
            )
        except urllib3.exceptions.HTTPError as exc:
            raise self.broken(exc, call.step) from exc
        except OSError as exc:  # a socket's own error while the body is sent
            raise self.broken(urllib3.exceptions.ProtocolError("Connection broken", exc), call.step) from exc

    def _read(self, call: Call, response: urllib3.BaseHTTPResponse) -> Answer:
        try:
            content = response.read(call.most + 1)
        except urllib3.exceptions.HTTPError as exc:
            raise self.broken(exc, call.step) from exc
        if len(content) > call.most and response.status in call.expected:
            raise RegistryFault(f"{self.registry.host} answered {call.step} with more than {call.most} bytes.")
        return Answer(response.status, response.headers, content)

    def _ask_token(self, url: str, headers: Mapping[str, str], form: bytes | None) -> tuple[int, bytes]:
        """Asks the token server; its address comes from the registry, so the login goes there by design.

        Answers 404 and 405 too: there the other of the two ways to ask may work.
        """
        if form is not None:
            headers = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        call = Call("GET" if form is None else "POST", url, "the login", body=(lambda: form) if form else None)
        response = self._open(call, url, headers)
        try:
            answer = self._read(call, response)
        finally:
            response.close()
        if answer.status not in {200, 404, 405}:
            raise self._fault(call, answer)
        return answer.status, answer.content

    def _granted_less(self, missing: str, repository: str) -> RegistryFault:
        words = f"its token server knows this account, but did not grant {missing}"
        return faults.refused(
            host=self.registry.host,
            step="the scopes that were asked for",
            status=0,
            words=words,
            repository=repository,
            reason="write",
        )

    def _fault(self, call: Call, answer: Answer) -> RegistryFault | Unavailable:
        words = faults.words_of(answer.content, self.registry.password)
        host = self.registry.host
        if answer.status in {401, 403} and (missing := self._auth.missing(call.scopes)):
            words = f"{words}; the token server did not grant {missing}".lstrip("; ")
        if answer.status == 400 and re.search(rb"HTTPS (server|port)", answer.content):
            return RegistryFault(
                f"{host} speaks HTTPS, not plain HTTP: untick plain HTTP in the admin console under Registry settings."
            )
        if answer.status in TRANSIENT:
            after = _retry_after(answer.headers.get("Retry-After"))
            return faults.busy(host=host, step=call.step, status=answer.status, words=words, retry_after=after)
        return faults.refused(
            host=host,
            step=call.step,
            status=answer.status,
            words=words,
            repository=call.repository,
            reason=self._reason(call, answer, words),
        )

    def _reason(self, call: Call, answer: Answer, words: str) -> str:
        if call.step == "the login" and answer.status == 403:
            return "login"  # GHCR's token server says so to a wrong password
        if (
            answer.status == 401
            and self.registry.username
            and "insufficient_scope" in answer.headers.get("WWW-Authenticate", "")
        ):
            return "write"  # the token server knew the account, and granted less than we asked for
        return faults.reason_of(answer.status, words, reading=call.method in {"GET", "HEAD"})

    def broken(self, exc: Exception, step: str) -> RegistryFault | Unavailable:
        """The fault for what the HTTP library or a socket raised while an answer was read or a body sent."""
        return faults.broken(exc, host=self.registry.host, step=step, plain_http=self.registry.plain_http)

    def _refuse_downgrade(self, url: str, step: str) -> None:
        if not self.registry.plain_http and urlsplit(url).scheme != "https":
            raise RegistryFault(
                f"{self.registry.host} sent us to an address without TLS at {step}: set its external URL to https "
                "(or X-Forwarded-Proto in the proxy before it)."
            )


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _retry_after(value: str | None) -> float | None:
    """Seconds, from either form of `Retry-After` (RFC 9110 section 10.2.3)."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
