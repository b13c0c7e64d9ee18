"""Pull client for OCI registries (distribution-spec 1.1): manifests and blobs by digest, Basic and Bearer login.

Streams to disk, resumes by Range, retries passing faults, follows redirects without giving the login away.
"""

import base64
import hashlib
import logging
import re
import time
from collections.abc import Iterator
from urllib.parse import urlencode, urljoin, urlsplit

import orjson
import urllib3

from opsengine import transport
from opsengine.errors import RegistryError, RegistryUnavailable
from opsengine.locations import Reference
from opsengine.settings import RegistrySettings
from opsengine.store import ContentStore

logger = logging.getLogger(__name__)

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LARGEST_MANIFEST = 4 * 2**20  # what registries accept
LARGEST_TOKEN = 1 << 20
CHUNK_BYTES = 1 << 18
TRIES = 5
REDIRECTS = 5
TOKEN_SECONDS = 60  # life of a token whose answer names none (distribution-spec, token authentication)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_PAGES = 100  # of one list; more is a registry that links in a circle
NEXT_PAGE = re.compile(r'<(?P<url>[^>]+)>\s*;[^,]*rel="?next"?')
CHALLENGE = re.compile(r'([a-zA-Z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


def digest_of(data: bytes) -> str:
    """The digest that content has in a registry."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def base_url(host: str, settings: RegistrySettings) -> str:
    """The scheme for a registry: one written in OCI_REGISTRY wins; else http on this machine or with OCI_PLAIN_HTTP."""
    address = settings.address or ""
    if "://" in address and urlsplit(address).netloc == host:
        return f"{urlsplit(address).scheme}://{host}"
    is_local = urlsplit(f"//{host}").hostname in LOOPBACK
    return f"{'http' if is_local or settings.plain_http else 'https'}://{host}"


class RegistryClient:
    """Pulls from one registry host. Used by one thread at a time."""

    def __init__(self, host: str, settings: RegistrySettings) -> None:
        self._base = base_url(host, settings)
        self._host = host
        self._settings = settings
        self._http = transport.pool(self._base, settings.ca_file)
        self._headers: dict[str, tuple[str, float]] = {}  # by repository: Authorization and when it ends

    @property
    def has_credentials(self) -> bool:
        """Whether a login is sent at all: only to the registry that OCI_REGISTRY names."""
        address = self._settings.address
        named = urlsplit(address if "://" in address else f"//{address}").netloc if address else self._host
        return self._settings.username is not None and named.lower() == self._host.lower()

    @property
    def credentials(self) -> str:
        """What is said of the login before anything is pulled."""
        if self.has_credentials:
            return "Login Succeeded"
        if self._settings.username is None:
            return "No registry login is set: pulling without"
        return f"The registry login is for {self._settings.address}, not for {self._host}: pulling without"

    def login(self, reference: Reference) -> None:
        """Prove the credentials before anything is pulled. Raises RegistryError where they are refused."""
        answer = self._request("GET", "/v2/", reference)
        answer.drain_conn()
        # A token server that gave a token has checked the password; what the token opens is seen at the manifest.
        has_token = self._headers.get(reference.repository, ("", 0))[0].startswith("Bearer ")
        if answer.status not in (200, 404) and not has_token:
            raise self._refusal(answer.status, reference)

    def manifest(self, reference: Reference) -> bytes:
        """The manifest's bytes, checked against the digest of the reference."""
        path = f"/v2/{reference.repository}/manifests/{reference.wanted}"
        answer = self._request("GET", path, reference, {"Accept": f"{MANIFEST_TYPE}, {INDEX_TYPE}"})
        if answer.status != 200:
            raise self._refusal(answer.status, reference)
        data = self._read(answer, LARGEST_MANIFEST + 1)
        if len(data) > LARGEST_MANIFEST:
            raise RegistryError(f"The manifest of {reference} is larger than 4 MiB: this is not a pipeline.")
        if reference.digest and digest_of(data) != reference.digest:
            raise RegistryError(
                f"The registry sent another manifest than {reference}: its copy is damaged, publish the pipeline again."
            )
        return data

    def look(self, reference: Reference, path: str, accept: str = f"{INDEX_TYPE}, {MANIFEST_TYPE}") -> bytes | None:
        """Small content of the reference's repository (`manifests/...`, `referrers/...`, `blobs/...`), None for a 404.

        Raises RegistryUnavailable for every other answer: it says nothing about what is there. Blobs are checked
        against the digest in their path.
        """
        return self._look(reference, f"/v2/{reference.repository}/{path}", accept)[0]

    def look_pages(self, reference: Reference, path: str) -> Iterator[bytes]:
        """As `look`, page by page as the registry links them (RFC 8288, `rel="next"`); nothing for a 404."""
        url = f"/v2/{reference.repository}/{path}"
        for _ in range(MOST_PAGES):
            data, link = self._look(reference, url, f"{INDEX_TYPE}, {MANIFEST_TYPE}")
            if data is None:
                return
            yield data
            following = NEXT_PAGE.search(link)
            if not following:
                return
            parts = urlsplit(urljoin(url, following["url"]))  # of this registry, whatever host it says
            url = f"{parts.path}?{parts.query}"

    def _look(self, reference: Reference, path: str, accept: str) -> tuple[bytes | None, str]:
        answer = self._request("GET", path, reference, {"Accept": accept})
        data = self._read(answer, LARGEST_MANIFEST + 1)
        if answer.status == 404:
            return None, ""
        if answer.status != 200 or len(data) > LARGEST_MANIFEST:
            raise RegistryUnavailable(
                f"The registry {self._host} could not tell about signatures of {reference.repository}: "
                f"it answered {answer.status}."
            )
        *_, kind, name = path.split("/")
        if kind == "blobs" and digest_of(data) != name:
            raise RegistryUnavailable(f"The registry {self._host} sent something else than {name}.")
        return data, answer.headers.get("Link", "")

    def pull_blob(self, reference: Reference, digest: str, size: int, store: ContentStore) -> None:
        """Bring one blob into the store; passing faults are tried again from where the transfer stopped."""

        def source(offset: int) -> tuple[int, Iterator[bytes]]:
            ask = {"Range": f"bytes={offset}-"} if offset else {}
            answer = self._request("GET", f"/v2/{reference.repository}/blobs/{digest}", reference, ask)
            if answer.status == 404:
                raise RegistryError(
                    f"The registry {self._host} has {reference} without its file {digest}: publish the pipeline again."
                )
            if answer.status not in (200, 206):
                raise self._refusal(answer.status, reference)
            # A registry may ignore Range, or answer another one: start again from the beginning then.
            resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
            if answer.status == 206 and not resumed:
                raise RegistryUnavailable(
                    f"The registry {self._host} answered a part of {digest} that was not asked for."
                )
            return (offset if resumed else 0), _chunks(answer)

        for attempt in range(TRIES):
            try:
                store.pull(digest, size, source)
                return
            except RegistryUnavailable as error:
                if attempt == TRIES - 1:
                    raise
                logger.debug("pull interrupted", extra={"digest": digest, "reason": str(error)})
                time.sleep(transport.pause(attempt))

    def _request(
        self, method: str, path: str, reference: Reference, headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """One request with login; on 401 log in (again) and repeat once."""
        known = self._headers.get(reference.repository)
        authorization = known[0] if known and known[1] > time.monotonic() else None
        answer = self._send(method, self._base + path, headers or {}, authorization)
        if answer.status != 401:
            return answer
        challenge = answer.headers.get("WWW-Authenticate", "")
        answer.drain_conn()
        authorization = self._authorize(challenge, reference)
        if authorization is None:
            raise self._refusal(401, reference)
        return self._send(method, self._base + path, headers or {}, authorization)

    def _send(
        self, method: str, url: str, headers: dict[str, str], authorization: str | None
    ) -> urllib3.BaseHTTPResponse:
        """Send, try passing faults again, and follow redirects: Authorization never goes to another host."""
        home = urlsplit(url)
        for _ in range(REDIRECTS + 1):
            here = urlsplit(url)
            same = (here.scheme, here.netloc) == (home.scheme, home.netloc)
            login = {"Authorization": authorization} if authorization and same else {}
            answer = self._send_once(method, url, {**headers, **login})
            target = answer.get_redirect_location()
            if not target:
                return answer
            answer.drain_conn()
            url = urljoin(url, target)
            if home.scheme == "https" and urlsplit(url).scheme != "https":
                raise RegistryError(
                    f"The registry {self._host} sends downloads to an address without TLS: this is refused."
                )
        raise RegistryError(f"The registry {self._host} redirects without end.")

    def _send_once(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        reason = ""
        for attempt in range(TRIES):
            wait = transport.pause(attempt, first=0.5, longest=10)
            try:
                answer = self._http.request(
                    method, url, headers=headers, preload_content=False, redirect=False, retries=False
                )
            except urllib3.exceptions.SSLError as error:
                if fault := transport.clock_fault(error):
                    raise RegistryUnavailable(f"The registry {self._host} cannot be reached ({fault}).") from error
                raise RegistryError(
                    f"The registry {self._host} has a certificate that is not trusted ({error}): set OCI_CA_FILE."
                ) from error
            except urllib3.exceptions.HTTPError as error:
                reason = f"it cannot be reached ({type(error).__name__})"
            else:
                if answer.status not in transport.TRANSIENT:
                    return answer
                reason = f"it answered {answer.status}"
                wait = min(transport.retry_after(answer.headers) or wait, 60)
                answer.drain_conn()
            if attempt < TRIES - 1:
                time.sleep(wait)
        raise RegistryUnavailable(
            f"The registry {self._host} is not available: {reason}. Check OCI_REGISTRY and the network."
        )

    def _authorize(self, challenge: str, reference: Reference) -> str | None:
        """The Authorization header that answers a challenge, or None where there is nothing left to try."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "bearer":
            values = {key.lower(): quoted or bare for key, quoted, bare in CHALLENGE.findall(rest)}
            token, life = self._token(values, reference)
            # Renew before the end: a token may run out between our check and the registry's.
            self._headers[reference.repository] = (f"Bearer {token}", time.monotonic() + life * 0.8)
            return f"Bearer {token}"
        if scheme.lower() == "basic" and self.has_credentials and reference.repository not in self._headers:
            self._headers[reference.repository] = (self._basic(), float("inf"))
            return self._basic()
        return None

    def _token(self, challenge: dict[str, str], reference: Reference) -> tuple[str, float]:
        realm = urljoin(self._base, challenge.get("realm", ""))
        query = {"scope": f"repository:{reference.repository}:pull"}
        if challenge.get("service"):
            query["service"] = challenge["service"]
        # The registry names its token server in the challenge: its login is meant for there.
        if self._base.startswith("https:") and not realm.startswith("https:"):
            raise RegistryError(f"The registry {self._host} wants its password sent without TLS: this is refused.")
        headers = {"Authorization": self._basic()} if self.has_credentials else {}
        answer = self._send_once("GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", headers)
        data = self._read(answer, LARGEST_TOKEN)
        if answer.status != 200:
            raise self._refusal(answer.status, reference)
        try:
            body = orjson.loads(data)
            token, life = body.get("token") or body["access_token"], float(body.get("expires_in") or TOKEN_SECONDS)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise RegistryError(f"The registry {self._host} answered the login with something unreadable.") from None
        return str(token), life

    def _read(self, answer: urllib3.BaseHTTPResponse, limit: int) -> bytes:
        """At most `limit` bytes of an answer."""
        try:
            return answer.read(limit)
        except urllib3.exceptions.HTTPError as error:
            raise RegistryUnavailable(f"The registry {self._host} broke off its answer.") from error
        finally:
            answer.drain_conn()

    def _basic(self) -> str:
        pair = f"{self._settings.username}:{self._settings.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _refusal(self, status: int, reference: Reference) -> RegistryError:
        if status in (401, 403):
            given, hint = "a pull without login", "set OCI_REGISTRY, OCI_USERNAME and OCI_PASSWORD"
            if self.has_credentials:
                given, hint = "the login in OCI_USERNAME and OCI_PASSWORD", "check OCI_USERNAME and OCI_PASSWORD"
            elif self._settings.username is not None:
                hint = f"the login set is for OCI_REGISTRY={self._settings.address}, set that to {self._host}"
            return RegistryError(
                f"The registry {self._host} refused {given} for {reference.repository} ({status}): {hint}."
            )
        if status == 404:
            return RegistryError(
                f"The registry {self._host} has no {reference}: check PIPELINE_URL, or publish the pipeline again."
            )
        return RegistryError(f"The registry {self._host} answered {status} for {reference}: check OCI_REGISTRY.")


def _chunks(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        yield from answer.stream(CHUNK_BYTES, decode_content=False)  # the digest is of the bytes sent
    except urllib3.exceptions.HTTPError as error:
        told = f"The registry broke off a transfer ({type(error).__name__}): check the network and its proxies."
        raise RegistryUnavailable(told) from error
    finally:
        answer.release_conn()
