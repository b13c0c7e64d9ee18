"""An engine's HTTP addresses in this process, over small pipelines of several kinds, and what an answer must be."""

import logging
import resource
import tempfile
import time
from pathlib import Path

import orjson
import pyarrow as pa

from engine.tests.conftest import Shelf
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from opsengine import app, arrowplaces, batching, chunks, encode, http1, logpages, pipeline, plane, rows, traffic
from opsengine.app import App
from opsengine.gate import Gate
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.messages import Reply, Request
from opsengine.metrics import Metrics
from opsengine.plane import DataPlane
from opsengine.report import Brief
from opsengine.store import ContentStore
from opsengine.traffic import Traffic

LARGEST_BODY = 2**16
MOST_SECONDS = 5.0  # of CPU for one input; the usual one takes a few milliseconds
MOST_MEMORY = 192 * 2**20  # that one input may make the process larger
ROOM = 4 * 2**30  # of addresses, so that an allocation without bounds fails before it takes the machine
INFERENCE = {200, 400, 404, 405, 413, 415}
OTHER = {200, 400, 404, 405}
V = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(6)]

logging.getLogger("opsengine").setLevel(logging.ERROR)  # refused loads and the like are no news here


class Harm(AssertionError):
    """What no input may do."""


class Still:
    """Pages of the engine's state: they take no input."""

    def page(self):
        return 200, "text/html", b""

    def json(self):
        return 200, app.JSON, b"{}"

    def metrics(self):
        return 200, "text/plain", b""

    def brief(self):
        return Brief()


class Site:
    """The addresses; `serve` picks the pipeline. What is answered must fit into the log, which holds some rows."""

    def __init__(self):
        pa.set_cpu_count(1)  # the same on every machine: each thread has addresses of its own
        self._folder = tempfile.TemporaryDirectory(prefix="opsengine-fuzz-")
        root = Path(self._folder.name)
        self.pipelines = dict(_pipelines(ContentStore(root / "store")))
        self._made = []
        self._plane = DataPlane(self._made.append, LARGEST_BODY)
        self._store = LogStore(root / "rows.sqlite", 8 * 2**20)
        self._writer = LogWriter(self._store, root / "taken")
        counted = Traffic(self._plane, Gate(1, 1000, 2**30), Metrics(lambda: ()), lambda digest, fine: None)
        self.app = App(self._plane, counted, (self._store, self._writer), Still(), LARGEST_BODY)
        # So that the same request has the same answer, and takes the same way.
        pipeline.time = plane.time = traffic.time = http1.time = batching.time = Stopped()

    def fill_log(self, asked):
        """Have the rows of these requests in the log."""
        fine = 0
        for name, request in asked:
            self.serve(name)
            fine += self.app.respond(request).status == 200
        assert fine > 0.8 * len(asked), "most seeds are refused: mutations of them reach nothing"
        for result in self._made:
            self._writer.put(result)
        self._made.clear()
        self._writer.start()  # only now, or chance were to cut the rows into pages
        assert self._writer.flush(600.0)
        self._writer.stop(600.0)  # its thread would count as what an input reaches

    def serve(self, name):
        """Serve the pipeline of that name from now on; the first of all where there is none."""
        self._plane.swap(self.pipelines.get(name) or next(iter(self.pipelines.values())))

    def answer(self, request):
        """The reply, when it is one that may be. Raises Harm."""
        reply = self.app.respond(request)
        made, self._made[:] = list(self._made), []
        judge(request, reply, made)
        return reply

    def answer_together(self, requests):
        """The replies to requests of one turn of the loop. Raises Harm."""
        replies = self.app.respond_together(requests)
        made, self._made[:] = list(self._made), []
        judge_log(made)
        return replies

    def forget(self):
        """As after a start, so that an input does on its own what it does among others."""
        arrowplaces._forms.clear()
        arrowplaces._kinds.clear()


class Stopped:
    """The module `time`, at one moment."""

    def time(self):
        return 1_700_000_000.0

    def perf_counter_ns(self):
        return 0

    def perf_counter(self):
        return 0.0

    monotonic = thread_time = perf_counter


def judge(request, reply, made):
    """Raise Harm unless the reply is documented, can be read, and what was made can be logged."""
    is_inference = request.path == "/infer" or request.path.startswith("/pipelines/")
    if reply.status not in (INFERENCE if is_inference else OTHER):
        raise Harm(f"{request.method} {request.path}: {reply.status} {reply.body[:300]!r}")
    if b"alloc of size" in reply.body[:500]:  # Arrow's own words: it asked for memory before anything bounded it
        raise Harm(f"memory was asked for without a bound: {reply.body[:300]!r}")
    if reply.content_type == encode.ARROW_TYPE:
        table = pa.ipc.open_file(reply.body).read_all()
        table.validate(full=True)
        count = table.num_rows
    else:
        told = orjson.loads(reply.body) if reply.content_type in (app.JSON, encode.JSON_TYPE) else None
        if reply.status != 200 and told["code"] != reply.status:
            raise Harm(f"a body that tells another status than {reply.status}: {told}")
        count = len(told) if isinstance(told, list) else None
    if sum(result.count for result in made) != (count if is_inference and reply.status == 200 else 0):
        raise Harm(f"{len(made)} results for an answer of {count} rows")
    judge_log(made)


def judge_log(made):
    """Raise Harm unless the log can hold all results, and tells all their rows."""
    for result in made:
        pages = logpages.of_chunks(list(chunks.pack([result])))
        told = [rows.from_batch(logpages.batch_of(page.described, page.body, page.size, page.count)) for page in pages]
        if sum(len(orjson.loads(b"[%b]" % encode.log_json(one, None))) for one in told) != result.count:
            raise Harm("the log tells another number of rows than were answered")


class Bounds:
    """`with bounds:` raises Harm where an input takes too long or too much memory."""

    def __enter__(self):
        self._began, self._high = time.process_time(), _peak()

    def __exit__(self, kind, error, trace):
        took, grown = time.process_time() - self._began, _peak() - self._high
        if error is None and took > MOST_SECONDS:
            raise Harm(f"one input took {took:.1f} s of CPU")
        if error is None and grown > MOST_MEMORY:
            raise Harm(f"one input made the process {grown >> 20} MiB larger")


def limit_addresses():
    """Let this process take no more than ROOM beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _named(*parts):
    return [{"name": part[0], "version": part[1]} for part in parts]


def _pipelines(store):
    """A loaded pipeline of each kind that is seen in the field, by name."""
    for name, parts, steps in _kinds():
        _, digest = publish(Shelf(store), name, V[0], parts, steps)
        yield name, pipeline.load(digest, store, 1, "edge-1")


def _kinds():
    by_two, by_three = ("by-two", V[2], models.scale(2.0), ["tensor"]), ("by-three", V[3], models.scale(3.0), None)
    yield "numbers", [by_two], None
    yield "whole", [("whole", V[1], models.scale(2, kind=models.INT64), None)], None
    yield "text", [("text", V[1], models.echo_text(), None)], None
    yield "image", [("image", V[1], models.scale(0.5, width=(2, 3, 4)), ["tensor"])], None
    yield "several", [("several", V[1], models.add_two(), ["first", "second"])], None
    yield "scores", [("scores", V[1], models.class_and_scores(), ["tensor"])], None
    start, last = ("start", V[1], models.scale(10.0), ["tensor"]), ("last", V[4], models.scale(4.0, source="a"), None)
    shadow = ("shadow", V[5], models.scale(2.0, source="b"), None)
    split = {"split_key": "kind", "control": _named(by_two)[0], "routes": {"[0.5]": _named(by_three)[0]}}
    rules = {
        "high": {"field": "out.y[1]", "op": ">", "value": 4},
        "small": {"field": "in.tensor[0]", "op": "<", "value": 2},
    }
    steps = [
        {"ModelInference": {"models": _named(start)}},
        {"MetaValueSplit": split},
        {"ModelInference": {"models": _named(last, shadow)}},
        {"AuditResults": {"from": 1, "to": None}},
        {"Check": {"rules": rules}},
    ]
    yield "steps", [start, by_two, by_three, last, shadow], steps
    weights = [{"model": _named(part)[0], "weight": weight} for part, weight in ((by_two, 3), (by_three, 1))]
    yield "split", [by_two, by_three], [{"RandomSplit": {"hash_key": "session", "weights": weights}}]


def request(method, target, content_type="", accept="", body=b""):
    """As the engine's HTTP reads it off a line."""
    path, _, query = target.partition("?")
    told = {"content_type": content_type, "accept": accept, "size": len(body), "body": body}
    return Request(method=method, path=path, query=query, **told)


__all__ = ["Bounds", "Harm", "Reply", "Site", "judge", "limit_addresses", "request"]
