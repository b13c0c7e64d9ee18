"""The engine's HTTP surface (WSGI): thin, everything is done by the data plane and the log."""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson

from opsengine import encode, rows, selection
from opsengine.errors import RequestError
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.plane import DataPlane
from opsengine.traffic import Ask, Traffic
from opsengine.views import Views

logger = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Reply = tuple[int, str, bytes]

LOG_ROWS = 1000  # what POST /logs answers when it is not asked for more
MOST_LOG_ROWS = 10_000
FLUSH_SECONDS = 5.0
JSON = "application/json"
TOO_MANY = 429
PIECE = 1 << 16  # bytes read past at a time


class App:
    """The WSGI application."""

    def __init__(
        self, plane: DataPlane, traffic: Traffic, log: tuple[LogStore, LogWriter], views: Views, max_body: int
    ) -> None:
        self._plane = plane
        self._traffic = traffic
        self._views = views
        self._log_store, self._writer = log
        self._max_body = max_body
        self._routes: dict[str, tuple[str, Callable[[Environ], Reply]]] = {
            "/infer": ("POST", self._infer),
            "/pipelines": ("GET", self._pipelines),
            "/models": ("GET", self._models),
            "/logs": ("POST", self._logs),
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
            "/metrics": ("GET", lambda environ: views.metrics()),
            "/status": ("GET", lambda environ: views.page()),
            "/status.json": ("GET", lambda environ: views.json()),
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one WSGI request."""
        status, headers, body = self.respond(environ)
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [body]

    def respond(self, environ: Environ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body; faults become JSON bodies that the public SDK can show."""
        headers: tuple[tuple[str, str], ...] = ()
        try:
            status, content_type, body = self._answer(environ)
        except RequestError as error:
            headers = error.headers
            status, content_type, body = error.status, JSON, _fault(error.status, str(error))
        except Exception:
            logger.exception("a request failed")
            status, content_type, body = 500, JSON, _fault(500, "The engine failed on this request: see its log.")
        head = [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers]
        return status, head, b"" if environ["REQUEST_METHOD"] == "HEAD" else body

    def _answer(self, environ: Environ) -> Reply:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        allowed, handler = self._routes.get(path) or self._named(path)
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            raise RequestError(f"{path[:100]} takes {allowed}, not {method[:20]}.", 405, (("Allow", allowed),))
        return handler(environ)

    def _named(self, path: str) -> tuple[str, Callable[[Environ], Reply]]:
        name = path.removeprefix("/pipelines/")
        if name == path or not name or "/" in name:
            raise RequestError(f"There is nothing at {path[:100]!r}: inferences go to /infer.", 404)
        return "POST", lambda environ: self._infer(environ, name)

    def _infer(self, environ: Environ, pipeline: str | None = None) -> Reply:
        as_arrow = encode.ARROW_TYPE in environ.get("HTTP_ACCEPT", "")
        size = self._declared(environ)
        ask = Ask(
            read=lambda: self._body(environ, size),
            size=size,
            content_type=environ.get("CONTENT_TYPE", ""),
            as_arrow=as_arrow,
            selection=selection.parse(environ["QUERY_STRING"]),
            pipeline=pipeline,
        )
        try:
            answer = self._traffic.infer(ask)
        except RequestError as refusal:
            if refusal.status == TOO_MANY:
                self._pass_over(environ)
            raise
        return 200, encode.ARROW_TYPE if as_arrow else encode.JSON_TYPE, answer

    def _body(self, environ: Environ, declared: int) -> bytes:
        """The request's body, of the size that was declared and checked."""
        body: bytes = environ["wsgi.input"].read(declared)
        self._check_size(len(body))
        return body

    def _pass_over(self, environ: Environ) -> None:
        """Reads the body past: a caller that still sends would see a closed connection, not the answer."""
        left = self._declared(environ)
        while left > 0 and (piece := environ["wsgi.input"].read(min(left, PIECE))):
            left -= len(piece)

    def _declared(self, environ: Environ) -> int:
        """The most bytes that the body may have. Raises RequestError (413) when that is too much."""
        if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            return self._max_body + 1
        text = environ.get("CONTENT_LENGTH") or environ.get("HTTP_CONTENT_LENGTH") or "0"
        declared = int(text) if text.isdigit() else 0
        self._check_size(declared)
        return declared

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            raise RequestError(
                f"The body is larger than {self._max_body} bytes: send fewer rows at a time, or raise MAX_BODY.", 413
            )

    def _pipelines(self, environ: Environ) -> Reply:
        current = self._plane.current
        told = (
            [{"id": current.facts.pipeline, "version": current.facts.version, "status": "Running"}] if current else []
        )
        return 200, JSON, orjson.dumps({"pipelines": told})

    def _models(self, environ: Environ) -> Reply:
        current = self._plane.current
        models = current.definition.models if current else ()
        told = [{"name": m.name, "sha": m.sha, "status": "Running", "version": m.version} for m in models]
        return 200, JSON, orjson.dumps({"models": told})

    def _logs(self, environ: Environ) -> Reply:
        """The newest rows, oldest of them first; `limit`, `start` and `end` in the body are optional."""
        limit, start, end = _log_query(self._body(environ, self._declared(environ)))
        chosen = selection.parse(environ["QUERY_STRING"])
        self._writer.flush(FLUSH_SECONDS)  # what was answered can be read at once
        pages = [encode.log_json(rows.from_batch(batch), chosen) for batch in self._log_store.newest(limit, start, end)]
        return 200, encode.JSON_TYPE, b"[" + b",".join(pages) + b"]"

    def _healthz(self, environ: Environ) -> Reply:
        return 200, JSON, b'{"status":"alive"}'

    def _readyz(self, environ: Environ) -> Reply:
        if self._plane.current is None:
            return 503, JSON, b'{"status":"no pipeline is loaded yet"}'
        if self._writer.fault:
            return 200, JSON, orjson.dumps({"status": "ready", "warnings": [self._writer.fault]})
        return 200, JSON, b'{"status":"ready"}'


def _fault(status: int, message: str) -> bytes:
    """The error body that the public SDK displays."""
    return orjson.dumps({"code": status, "status": "Error", "error": message, "source": "engine"})


def _log_query(body: bytes) -> tuple[int, int | None, int | None]:
    try:
        told = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body is not valid JSON: {error}.") from None
    if not isinstance(told, dict):
        raise RequestError("The body must be a JSON object: {} for the newest rows.")
    limit = told.get("limit") if told.get("limit") is not None else LOG_ROWS
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MOST_LOG_ROWS:
        raise RequestError(f"limit must be a whole number from 1 to {MOST_LOG_ROWS}.")
    return limit, _moment(told, "start"), _moment(told, "end")


def _moment(told: dict[str, object], name: str) -> int | None:
    """Epoch ms of a time given as epoch ms or ISO 8601 (UTC where it names no zone)."""
    value = told.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53):
        return value
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise RequestError(
            f"{name} must be a time: epoch milliseconds, or ISO 8601 like 2026-01-31T12:00:00Z."
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
