"""Client of the center's device API (contract/): join, token, check-in, log pages, gaps."""

import logging
import threading
import time
from dataclasses import dataclass, replace
from urllib.parse import urlencode

import orjson
import urllib3
from cryptography.hazmat.primitives.asymmetric import ec

from opsengine import identity, transport
from opsengine.bundle import Bundle
from opsengine.errors import CenterRefused, CenterUnavailable, StateError
from opsengine.identity import Identity, Session

logger = logging.getLogger(__name__)

LARGEST_ANSWER = 1 << 20
LAPSE_STEP = 3_600_000  # ms
TIMEOUT = urllib3.Timeout(connect=5, read=30)
ARROW_STREAM = "application/vnd.apache.arrow.stream"
# A token whose end we may have wrong; a new one is asked for, once a call.
RENEWABLE = frozenset({"token_expired", "token_missing", "token_invalid"})
# What proxies say of a request that is too long for them: of its time, or of its size.
TOO_LONG = frozenset({408, 413, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer's JSON object."""

    body: dict[str, object]

    def number(self, name: str) -> int | None:
        """A whole number of the answer, None where there is none."""
        value = self.body.get(name)
        return value if isinstance(value, int) else None


class Center:
    """One edge's connection. Safe for several threads."""

    def __init__(self, bundle: Bundle, keys: Identity) -> None:
        self._bundle = bundle
        self._identity = keys
        self._base = f"{bundle.center_url}/v1"
        self._http = transport.pool(self._base)
        self._session = _session(keys)
        self._offset = self._session.clock_offset if self._session else 0
        self._access: tuple[str, float] | None = None
        self._renewing = threading.Lock()

    @property
    def session(self) -> Session | None:
        """The session in use, None before the first join."""
        return self._session

    @property
    def has_spent_bundle(self) -> bool:
        """Whether the bundle at hand is the one of the session: then its token is not needed again."""
        return self._session is not None and self._session.token_hash == identity.hash_token(self._bundle.join_token)

    def join(self) -> dict[str, object]:
        """Join with the bundle's token; returns the answer. Raises CenterUnavailable or CenterRefused.

        The key is on disk before it is sent, so the same join may be repeated after a lost reply.
        """
        token_hash = identity.hash_token(self._bundle.join_token)
        body = {
            "join_token": self._bundle.join_token,
            "public_key": identity.public_jwk(self._key(token_hash)),
            "engine": identity.engine_facts(),
        }
        answer = self._post("/join", orjson.dumps(body))
        try:
            edge, session = answer["edge"], answer["session"]
            made = Session(
                edge_id=edge["id"],  # type: ignore[index]
                edge_name=edge["name"],  # type: ignore[index]
                spiffe_id=edge["spiffe_id"],  # type: ignore[index]
                token_endpoint=session["token_endpoint"],  # type: ignore[index]
                token_hash=token_hash,
                lapses_at=session["lapses_at"],  # type: ignore[index]
                clock_offset=self._offset,
            )
        except (KeyError, TypeError) as error:
            raise CenterUnavailable(f"The ops center answered the join without {error}: is it up to date?") from None
        try:
            self._identity.keep(made)
        except OSError as error:  # the same join may be repeated
            told = f"The session cannot be written ({error.strerror}): check the disk of PERSIST_DIR."
            raise CenterUnavailable(told) from error
        self._identity.drop_other_keys(made)
        self._session = made
        self._take_token(session)
        logger.info("Node attestation was successful")
        return answer

    def checkin(self, body: dict[str, object]) -> dict[str, object]:
        """Say what is served, hear what should be (contract/checkin.*.json)."""
        return self._call("/checkin", orjson.dumps(body))

    def send_page(self, body: bytes, *, epoch: str, first: int, pipeline_version: str) -> Answer:
        """Send one log page (an Arrow stream); the answer's `acked` is durable at the center."""
        query = urlencode({"epoch": epoch, "first": first, "pipeline_version": pipeline_version})
        return Answer(self._call(f"/logs?{query}", body, ARROW_STREAM))

    def send_gap(self, body: dict[str, object]) -> Answer:
        """Tell which rows will never come (contract/gaps.request.json)."""
        return Answer(self._call("/gaps", orjson.dumps(body)))

    def keep_lapse(self, lapses_at: int) -> None:
        """Note when the session lapses (epoch ms, server time): on the disk, once an hour."""
        if self._session and abs(lapses_at - self._session.lapses_at) > LAPSE_STEP:
            self._keep(replace(self._session, lapses_at=lapses_at))

    @property
    def clock_offset(self) -> int:
        """The center's clock minus this one, in ms."""
        return self._offset

    def now_ms(self) -> int:
        """The center's time as far as it is known."""
        return int(time.time() * 1000) + self._offset

    def _call(self, path: str, body: bytes, content_type: str = "application/json") -> dict[str, object]:
        """POST with the access token; an expired one is renewed and the call repeated once."""
        token = self._token()
        try:
            return self._post(path, body, content_type, token)
        except CenterRefused as refusal:
            if refusal.status != 401 or refusal.code not in RENEWABLE:
                raise
        with self._renewing:
            if self._access and self._access[0] == token:
                self._access = None
        return self._post(path, body, content_type, self._token())

    def _token(self) -> str:
        with self._renewing:
            if self._access is None or self._access[1] <= time.monotonic():
                self._renew()
            assert self._access is not None
            return self._access[0]

    def _renew(self) -> None:
        try:
            self._take_token(self._post("/token", self._token_request()))
        except CenterRefused as refusal:
            if refusal.code != "invalid_assertion":
                raise
            # The refusal carried the server's time: a clock that was far off is right now.
            self._take_token(self._post("/token", self._token_request()))

    def _token_request(self) -> bytes:
        if self._session is None:
            raise CenterUnavailable("This edge has not joined yet.")
        key = self._key(self._session.token_hash)
        return orjson.dumps(
            {
                "grant_type": "client_credentials",
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": identity.assertion(key, self._session, self._offset),
            }
        )

    def _key(self, token_hash: str) -> ec.EllipticCurvePrivateKey:
        try:
            return self._identity.key(token_hash)
        except StateError as error:  # what is served needs no center
            raise CenterUnavailable(str(error)) from None

    def _take_token(self, answer: object) -> None:
        if not isinstance(answer, dict) or not isinstance(answer.get("access_token"), str):
            raise CenterUnavailable("The ops center answered without an access token: is it up to date?")
        life = float(answer.get("expires_in") or 60)
        self._access = (answer["access_token"], time.monotonic() + life * 0.8)

    def _post(
        self, path: str, body: bytes, content_type: str = "application/json", token: str | None = None
    ) -> dict[str, object]:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        began = time.time()
        try:
            answer = self._http.request(
                "POST", self._base + path, body=body, headers=headers, timeout=TIMEOUT,
                redirect=False, retries=False, preload_content=False,
            )  # fmt: skip
            data = answer.read(LARGEST_ANSWER)
            answer.drain_conn()
        except urllib3.exceptions.HTTPError as error:
            was_long = isinstance(error, (urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.ProtocolError))
            raise CenterUnavailable(
                f"The ops center at {self._base} cannot be reached ({_reason(error)}).", was_long=was_long
            ) from error
        told = _object(data)
        self._learn_clock(told, began)
        if 200 <= answer.status < 300 and told is not None:
            return told
        raise self._failure(answer.status, told, transport.retry_after(answer.headers))

    def _failure(
        self, status: int, told: dict[str, object] | None, retry_after: float | None
    ) -> CenterUnavailable | CenterRefused:
        code, message = (told or {}).get("code"), (told or {}).get("message")
        is_own = isinstance((told or {}).get("server_time"), int)  # as in every answer of the center
        if not isinstance(code, str) or not is_own or status in transport.TRANSIENT:
            # Not the center's own words: a proxy, a wrong address, or a passing fault.
            return CenterUnavailable(
                f"The ops center at {self._base} answered {status}: {message or 'no reason given'}",
                retry_after,
                was_long=status in TOO_LONG,
            )
        return CenterRefused(status, code, str(message or code), told)

    def _learn_clock(self, told: dict[str, object] | None, began: float) -> None:
        """Server time decides every lifetime; half of the round trip is taken as the way back."""
        server = told.get("server_time") if told else None
        if isinstance(server, int):
            self._offset = server - int((began + time.time()) * 500)
            if self._session and abs(self._offset - self._session.clock_offset) > 60_000:
                self._keep(replace(self._session, clock_offset=self._offset))

    def _keep(self, session: Session) -> None:
        """Note what changed of the session. A disk that is full must not cost the answer that it came with."""
        self._session = session
        try:
            self._identity.keep(session)
        except OSError as error:
            logger.warning("The session cannot be written (%s): check the disk of PERSIST_DIR", error.strerror)


def _session(keys: Identity) -> Session | None:
    """The session of the last join. A damaged one is none: what is served last is served without it."""
    try:
        return keys.session()
    except StateError as error:
        logger.error("%s The engine serves on what it has.", error)
        return None


def _object(data: bytes) -> dict[str, object] | None:
    try:
        told = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return told if isinstance(told, dict) else None


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    if isinstance(error, urllib3.exceptions.SSLError):
        return transport.clock_fault(error) or "its certificate is not trusted: set SSL_CERT_FILE"
    return type(error).__name__
