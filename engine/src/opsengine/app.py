"""The engine's HTTP addresses: thin, everything is done by the data plane and the log."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

import orjson

from opsengine import encode, locations, report, rows, selection
from opsengine.errors import RegistryError, RequestError
from opsengine.gate import MOST_UNSENT, UNTAKEN, refusal
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.messages import Reply, Request
from opsengine.plane import DataPlane
from opsengine.report import ERROR, RUNNING
from opsengine.server import Lane
from opsengine.traffic import Traffic
from opsengine.views import Views

logger = logging.getLogger(__name__)

LOG_ROWS = 1000  # what POST /logs answers when it is not asked for more
MOST_LOG_ROWS = 10_000
MOST_LOG_BYTES = 16 * 2**20  # in memory, of one answer of POST /logs; as text it is up to five times as much, twice
LARGEST_QUESTION = 16 * 2**10  # bytes of a body that holds no inferences
FLUSH_SECONDS = 5.0
JSON = "application/json"
PLAIN = "identity"
NAMED = "/pipelines/"


class App:
    """What the server serves."""

    def __init__(
        self, plane: DataPlane, traffic: Traffic, log: tuple[LogStore, LogWriter], views: Views, max_body: int
    ) -> None:
        self._plane = plane
        self._views = views
        self._traffic = traffic
        self._log_store, self._writer = log
        self.largest_body = max_body
        side, here = Lane.SIDE, Lane.HERE
        self._routes: dict[str, tuple[str, Lane | None, Callable[[Request], Reply]]] = {
            "/infer": ("POST", None, self._infer),
            "/pipelines": ("GET", here, self._pipelines),
            "/models": ("GET", here, self._models),
            "/logs": ("POST", side, self._logs),
            "/healthz": ("GET", here, self._healthz),
            "/readyz": ("GET", here, self._readyz),
            "/metrics": ("GET", side, lambda request: Reply(*views.metrics())),
            "/status": ("GET", side, lambda request: Reply(*views.page())),
            "/status.json": ("GET", side, lambda request: Reply(*views.json())),
        }

    def admit(self, request: Request) -> Reply | None:
        """Let an inference in, or say why not; what else is asked is not counted, so it may take next to no memory."""
        if request.encoding and request.encoding.lower() != PLAIN:
            told = f"Content-Encoding {request.encoding[:40]!r} is not understood: send the body as it is."
            return self.fault(RequestError(told, 415, (("Accept-Encoding", PLAIN),)))
        if request.path != "/infer" and not request.path.startswith(NAMED):
            request.size = min(request.size, LARGEST_QUESTION)
            if request.method == "POST" and request.unsent > MOST_UNSENT:  # the log's answers are large ones
                return self.fault(refusal(UNTAKEN))
            return None
        try:
            self._traffic.admit(request.counted, request.unsent)
        except RequestError as error:
            return self.fault(error)
        request.admitted = request.has_place = True
        return None

    def grow(self, request: Request, *, is_whole: bool) -> Reply | None:
        """Count what has come of a request that was let in, or say why it cannot go on."""
        try:
            self._traffic.grow(request, is_whole=is_whole)
        except RequestError as error:
            return self.fault(error)
        return None

    def leave(self, request: Request) -> None:
        """A request that was let in has ended."""
        self._traffic.leave(request.counted, has_place=request.has_place)

    def lane(self, request: Request) -> Lane:
        """Where a request is to run."""
        route = self._routes.get(request.path)
        return (route[1] if route else None) or self._traffic.lane(request)

    def respond(self, request: Request) -> Reply:
        """Answer; faults become JSON bodies that the public SDK can show."""
        try:
            allowed, _, handler = self._routes.get(request.path) or self._named(request.path)
            method = request.method
            if method != allowed and not (method == "HEAD" and allowed == "GET"):
                told = f"{request.path[:100]} takes {allowed}, not {method[:20]}."
                raise RequestError(told, 405, (("Allow", allowed),))
            return handler(request)
        except RequestError as error:
            return self.fault(error)
        except Exception:
            logger.exception("a request failed")
            return self.fault(RequestError("The engine failed on this request: see its log.", 500))

    def respond_together(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer inferences of one turn of the loop, those that ask alike in one run."""
        replies: dict[int, Reply] = {}
        alike: dict[tuple[str, ...], list[int]] = {}
        for place, request in enumerate(requests):
            key = request.method, request.path, request.query, request.content_type, request.accept
            alike.setdefault(key, []).append(place)
        for places in alike.values():
            some = [requests[place] for place in places]
            answers = self._infer_together(some) if len(some) > 1 else None
            replies |= zip(places, answers or map(self.respond, some), strict=True)
        return [replies[place] for place in range(len(requests))]

    def settle(self) -> None:
        """Have the rows of what was answered in the journal, before the answers go out."""
        try:
            self._writer.settle()
        except Exception:
            logger.exception("answered rows cannot be logged")

    def fault(self, error: RequestError) -> Reply:
        """The error body that the public SDK displays."""
        told = {"code": error.status, "status": "Error", "error": str(error), "source": "engine"}
        return Reply(error.status, JSON, orjson.dumps(told), error.headers)

    def _named(self, path: str) -> tuple[str, Lane | None, Callable[[Request], Reply]]:
        name = path.removeprefix(NAMED)
        if name == path or not name or "/" in name:
            raise RequestError(f"There is nothing at {path[:100]!r}: inferences go to /infer.", 404)
        return "POST", None, partial(self._infer, pipeline=name)

    def _infer(self, request: Request, pipeline: str | None = None) -> Reply:
        as_arrow = encode.ARROW_TYPE in request.accept
        chosen = selection.parse(request.query) if request.query else None
        answer = self._traffic.infer(request, chosen, pipeline, as_arrow=as_arrow)
        return Reply(200, encode.ARROW_TYPE if as_arrow else encode.JSON_TYPE, answer)

    def _infer_together(self, requests: Sequence[Request]) -> list[Reply] | None:
        """None where they have to be answered one by one: also where one of them is at fault, which it then hears."""
        first = requests[0]
        if first.method != "POST":
            return None
        as_arrow = encode.ARROW_TYPE in first.accept
        name = None if first.path == "/infer" else first.path.removeprefix(NAMED)
        try:
            chosen = selection.parse(first.query) if first.query else None
            answers = self._traffic.infer_together(requests, chosen, name, as_arrow=as_arrow)
        except RequestError:
            return None
        except Exception:
            logger.exception("requests could not be answered together: each is answered alone")
            return None
        if answers is None:
            return None
        kind = encode.ARROW_TYPE if as_arrow else encode.JSON_TYPE
        return [Reply(200, kind, answer) for answer in answers]

    def _pipelines(self, request: Request) -> Reply:
        """What is served, or, while nothing is, what should be and could not be brought in yet."""
        current = self._plane.current
        if current:
            facts = current.facts
            told = [_listed(facts.pipeline, facts.version, ERROR if current.down() else RUNNING)]
        else:
            location = self._views.brief().location
            told = [_wanted(location)] if location else []
        return Reply(200, JSON, orjson.dumps({"pipelines": told}))

    def _models(self, request: Request) -> Reply:
        current = self._plane.current
        told = [
            {"name": one.entry.name, "sha": one.entry.sha, "status": one.status, "version": one.entry.version}
            for one in report.models(current, () if current else self._views.brief().models)
        ]
        return Reply(200, JSON, orjson.dumps({"models": told}))

    def _logs(self, request: Request) -> Reply:
        """The newest rows, oldest of them first; `limit`, `start` and `end` in the body are optional.

        Fewer of them, and a header that says so, where they would take too much memory.
        """
        limit, start, end = _log_query(request.body)
        chosen = selection.parse(request.query)
        self._writer.flush(FLUSH_SECONDS)  # what was answered can be read at once
        batches = self._log_store.newest(limit, start, end, MOST_LOG_BYTES)
        is_cut = sum(batch.nbytes for batch in batches) >= MOST_LOG_BYTES
        is_cut = is_cut and sum(batch.num_rows for batch in batches) < limit
        pages = [encode.log_json(rows.from_batch(batch), chosen) for batch in batches]
        told = (("Log-Status", "ByteLimited"),) if is_cut else ()
        return Reply(200, encode.JSON_TYPE, b"".join((b"[", b",".join(pages), b"]")), told)

    def _healthz(self, request: Request) -> Reply:
        return Reply(200, JSON, b'{"status":"alive"}')

    def _readyz(self, request: Request) -> Reply:
        if self._plane.current is None:
            return Reply(503, JSON, b'{"status":"no pipeline is loaded yet"}')
        if warnings := self._views.brief().faults:
            return Reply(200, JSON, orjson.dumps({"status": "ready", "warnings": warnings}))
        return Reply(200, JSON, b'{"status":"ready"}')


def _listed(name: str, version: str | None, status: str) -> dict[str, str | None]:
    return {"id": name, "version": version, "status": status}


def _wanted(location: str) -> dict[str, str | None]:
    try:
        reference = locations.parse_reference(location)
    except RegistryError:
        return _listed(location, None, ERROR)
    return _listed(reference.name, reference.tag, ERROR)


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
