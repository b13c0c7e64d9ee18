"""Requests of one turn of the loop that run as one: nobody can tell from an answer or the log that they did."""

import re
import socket
import threading
from contextlib import ExitStack

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.tests.conftest import Shelf, eventually, free_port
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from opsengine import encode, pipeline, rows
from opsengine import traffic as traffic_module
from opsengine.app import App
from opsengine.gate import Gate
from opsengine.messages import Request
from opsengine.metrics import Metrics
from opsengine.plane import DataPlane
from opsengine.recorder import Recorder
from opsengine.runtime import OnnxModel
from opsengine.server import Lane, Server
from opsengine.store import ContentStore
from opsengine.traffic import Traffic

JSON = "application/json"
LIMIT = 2**10  # bytes of a row of an input in the log
BATCHED = {"max_rows": 8, "max_wait_us": 1_000_000}
ONE, TWO = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
REFERENCES = [{"name": "one", "version": ONE}, {"name": "two", "version": TWO}]
RULES = {"rules": {"high": {"field": "out.y[0]", "op": ">", "value": 4}}}
KINDS = {
    "plain": [{"ModelInference": {"models": REFERENCES[:1]}}, {"Check": RULES}],
    "chain": [{"ModelInference": {"models": [one]}} for one in REFERENCES],
    "shadow": [{"ModelInference": {"models": REFERENCES}}],
    "split": [{"MetaValueSplit": {"split_key": "key", "control": REFERENCES[0], "routes": {"a": REFERENCES[1]}}}],
}


class Site:
    """An engine's request path without a socket, on two models; what it logs is kept."""

    def __init__(self, store, kind="plain", first=None, second=None, fields=("tensor",), batched=(BATCHED, BATCHED)):
        # The second model of a chain reads what the first gives.
        names = [list(fields), None if kind == "chain" else list(fields)]
        given_models = [first or models.scale(2.0), second or models.scale(3.0, source="y", result="z")]
        if kind != "chain":
            given_models[1] = second or models.scale(3.0)
        parts = [
            (one["name"], one["version"], data, None, {"config": {"tensor_fields": told, "batching": limits}})
            for one, data, told, limits in zip(REFERENCES, given_models, names, batched, strict=True)
        ]
        _, digest = publish(Shelf(store), "small", ONE, parts, steps=KINDS[kind])
        self.logged, self.metrics = [], Metrics(lambda: ("one", "two"))
        self.plane = DataPlane(Recorder(self.logged.append, self.metrics.result, LIMIT), 2**20)
        self.plane.swap(pipeline.load(digest, store, 1, "edge-1"))
        self.traffic = Traffic(self.plane, Gate(2, 64, 2**30), self.metrics, lambda digest, fine: None)
        self.app = App(self.plane, self.traffic, (None, None), None, 2**20)

    def together(self, *bodies, **more):
        """Status and answer of each, and what was logged, without times."""
        return self._told(lambda requests: self.app.respond_together(requests), bodies, more)

    def alone(self, *bodies, **more):
        return self._told(lambda requests: [self.app.respond(request) for request in requests], bodies, more)

    def _told(self, respond, bodies, more):
        self.logged.clear()
        replies = respond([Request(body=body, **{**POST, **more}) for body in bodies])
        answers = [(reply.status, timeless(read(reply))) for reply in replies]
        logged = [encode.log_json(rows.of_result(result), None) for result in self.logged]
        return answers, timeless(b"[" + b",".join(logged) + b"]")

    @property
    def steps(self):
        """How often steps ran, and for how long, as the metrics tell it."""
        lines = [line.split() for line in self.metrics.render().decode().splitlines() if line[0] != "#"]
        return {
            what: sum(float(value) for name, value in lines if what in name)
            for what in ("model_seconds_count", "model_seconds_sum")
        }


POST = {"method": "POST", "path": "/infer", "content_type": JSON, "accept": JSON}


def read(reply):
    """An answer's JSON, also of an Arrow file."""
    if reply.content_type != encode.ARROW_TYPE:
        return reply.body
    return orjson.dumps(pa.ipc.open_file(reply.body).read_all().to_pylist(), default=str)


def arrow(values, kind=None, **more):
    """A body of rows in Arrow, of one column unless there are more."""
    return table_file({"tensor": pa.array(values, kind or pa.list_(pa.float32(), 2)), **more})


def table_file(columns):
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def timeless(text):
    found = orjson.loads(text)
    for row in found if isinstance(found, list) else []:
        del row["time"], row["metadata"]["elapsed"]
        row.pop("elapsed", None)
    return found


def body(*values, **more):
    return orjson.dumps([{"tensor": value, **more} for value in values])


def long_body(numbers, name=b"tensor"):
    """A body that is read as text."""
    return b"[" + b",".join([b'{"%b":[%b]}' % (name, numbers)] * 100) + b"]"


def texts_of_inputs(reply):
    """The input of each row, as it stands in the answer."""
    return re.findall(rb'"in":\{"tensor":([^}]*)\}', reply.body)


@pytest.fixture
def site(store):
    return lambda *args, **more: Site(store, *args, **more)


@pytest.mark.parametrize("kind", ["plain", "chain", "shadow"])
def test_callers_are_answered_as_if_each_had_come_alone(site, kind):
    made = site(kind)
    bodies = [body([n, n + 0.5], [-n, 1]) if n % 2 else body([n, 0]) for n in range(5)]
    assert made.together(*bodies) == made.alone(*bodies)


def test_requests_of_one_turn_run_once(site):
    made = site()
    answers, _ = made.together(body([1, 2]), body([3, 4], [5, 6]), body([7, 8]))
    assert [answer[0]["out"]["y"] for _, answer in answers] == [[2, 4], [6, 8], [14, 16]]
    assert len(made.logged) == 1 and made.logged[0].count == 4
    assert (made.plane.counters.requests, made.plane.counters.rows) == (3, 4)
    assert made.steps["model_seconds_count"] == 6  # for each request, the model and the validation
    assert b'opsengine_requests_total{code="200",pipeline="small"} 3.0' in made.metrics.render()


def runs_of(made, monkeypatch):
    """How many rows each run of a model has from now on."""
    sizes = []
    whole = OnnxModel._run

    def run(model, columns):
        sizes.append((model.name, len(next(iter(columns.values())))))
        return whole(model, columns)

    monkeypatch.setattr(OnnxModel, "_run", run)
    return sizes


def test_model_without_batching_runs_for_each_request_alone(site, monkeypatch):
    made = site("shadow", batched=(None, {"max_rows": 4, "max_wait_us": 0}))
    sizes = runs_of(made, monkeypatch)
    bodies = [body([1, 0]), body([2, 0], [3, 0]), body([4, 0]), body([5, 0])]
    answers, _ = made.together(*bodies)
    assert answers[1][1][1]["out"]["y"] == [6, 0]
    assert sizes == [("one", 1), ("one", 2), ("one", 1), ("one", 1), ("two", 4), ("two", 1)]
    assert [result.count for result in made.logged] == [5]


def test_no_more_rows_than_a_model_takes_run_at_once(site, monkeypatch):
    made = site("chain", batched=(BATCHED, {"max_rows": 3, "max_wait_us": 0}))
    bodies = [body(*[[n, 0]] * 3) for n in range(4)] + [body(*[[9, 9]] * 20)]
    assert made.together(*bodies) == made.alone(*bodies)
    sizes = runs_of(made, monkeypatch)
    made.together(*bodies)
    assert sizes == [("one", 6), ("one", 6), ("one", 20), *[("two", 3)] * 4, ("two", 20)]


def test_model_that_takes_one_row_at_a_time_runs_for_each(site):
    made = site(first=models.scale(2.0, batch=1), batched=(None, None))
    bodies = [body([1, 0]), body([2, 0], [3, 0])]
    assert made.together(*bodies) == made.alone(*bodies)
    made.together(*bodies)
    assert [result.count for result in made.logged] == [3]


def test_each_is_told_an_even_share_of_the_time(site, monkeypatch):
    made = site()
    clock = iter(range(0, 10**9, 3000))
    monkeypatch.setattr("time.perf_counter_ns", lambda: next(clock))
    replies = made.app.respond_together([Request(body=body([n, 0]), **POST) for n in range(3)])
    assert [orjson.loads(reply.body)[0]["metadata"]["elapsed"] for reply in replies] == [[1000, 1000, 1000]] * 3
    assert made.steps == {"model_seconds_count": 6, "model_seconds_sum": pytest.approx(6e-6)}


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"[{}]",
        b"{",
        b"[1]",
        b'[{"tensor": [1, 2]}],[{"tensor": [1, 2]}]',
        body([1]),
        body(["a", "b"]),
        body([None, 1]),
        body([1e300, 1]),
        orjson.dumps([{"other": [1, 2]}]),
    ],
)
def test_fault_of_one_is_heard_by_nobody_else(site, wrong):
    made = site()
    bodies = [body([1, 2]), wrong, body([3, 4])]
    (first, second, third), logged = made.together(*bodies)
    assert ((first, second, third), logged) == (tuple(made.alone(*bodies)[0]), made.alone(*bodies)[1])
    assert (first[0], second[0], third[0]) == (200, 400, 200)


def test_halves_of_a_row_from_two_callers_do_not_become_one(site):
    made = site()
    answers, _ = made.together(b'[{"tensor": [1', body([1, 2]), b"2]}]")
    assert [status for status, _ in answers] == [400, 200, 400]


@pytest.mark.parametrize("kind", ["plain", "chain", "shadow", "split"])
@pytest.mark.parametrize("others", [[], [body([1, 2])], [long_body(b"1,2,3")], [long_body(b"1,2", b"x")]])
def test_what_is_told_as_it_was_written_is_so_in_company(site, kind, others):
    made = site(kind)
    bodies = [long_body(b"1.50,-0"), *others, long_body(b"-0.0 , 1e2"), long_body(b"7,8")]
    assert made.together(*bodies) == made.alone(*bodies)
    if not others:
        made.together(*bodies)
        assert len(made.logged) == 1, "they ran together"
    requests = [Request(body=one, **POST) for one in bodies]
    met = [texts_of_inputs(reply) for reply in made.app.respond_together(requests)]
    assert met == [texts_of_inputs(made.app.respond(request)) for request in requests]
    assert (met[0][0], met[-2][0], met[-1][0]) == (b"[1.50,-0]", b"[-0.0 , 1e2]", b"[7,8]")


def test_large_whole_numbers_lose_nothing_in_company(site):
    kinds = models.scale(1, kind=models.INT64)
    made = site(first=kinds, second=kinds)
    bodies = [body([2**60 + 1, 3]), body([1.0, 2.0])]
    answers, _ = made.together(*bodies)
    assert answers == made.alone(*bodies)[0]
    assert answers[0][1][0]["out"]["y"] == [2**60 + 1, 3]


@pytest.mark.parametrize("kind", [JSON, encode.ARROW_TYPE])
def test_columns_stay_in_the_order_in_which_each_caller_sent_them(site, kind):
    if kind == JSON:
        bodies = [b'[{"tensor": [1, 2], "x": 1}]', b'[{"x": 1, "tensor": [1, 2]}]']
    else:
        tensor = pa.array([[1, 2]], pa.list_(pa.float32(), 2))
        bodies = [arrow([[1, 2]], x=[1]), table_file({"x": [1], "tensor": tensor})]
    answers, _ = site("shadow").together(*bodies, content_type=kind)
    assert [list(told[0]["in"]) for _, told in answers] == [["tensor", "x"], ["x", "tensor"]]


def test_shadow_that_fails_on_one_is_there_for_the_others(site):
    made = site("shadow", second=models.fails_on_rows(but=1))
    bodies = [body([1, 2]), body([3, 4], [5, 6])]
    answers, _ = made.together(*bodies)
    assert answers == made.alone(*bodies)[0]
    assert "out_two" in answers[0][1][0] and "out_two" not in answers[1][1][0]


@pytest.mark.parametrize("kind", ["split", "chain", "plain"])
def test_columns_beside_those_of_the_model_stay_as_they_were_sent(site, kind):
    made = site(kind)
    keys = ["a", 1.0, None, {"b": [1]}, "c"]
    bodies = [body([n, 2], [3, n], key=key) for n, key in enumerate(keys)]
    assert made.together(*bodies) == made.alone(*bodies)
    made.together(*bodies)
    assert len(made.logged) == (5 if kind == "plain" else 1)  # validations compare columns whole


@pytest.mark.parametrize("batched", [(BATCHED, BATCHED), (None, None), (None, BATCHED)])
def test_rows_of_a_split_go_to_their_models(site, batched, monkeypatch):
    made = site("split", batched=batched)
    bodies = [body([n, 2], [3, n], key="a" if n % 2 else "b") for n in range(4)]
    bodies.append(orjson.dumps([{"tensor": [n, 0], "key": key} for n, key in enumerate("abab")]))
    assert made.together(*bodies) == made.alone(*bodies)
    sizes = runs_of(made, monkeypatch)
    made.together(*bodies)
    for name, limits in zip(("one", "two"), batched, strict=True):
        assert [size for label, size in sizes if label == name] == ([6] if limits else [2, 2, 2])


@pytest.mark.parametrize("accept", [JSON, encode.ARROW_TYPE])
def test_arrow_requests_run_together_too(site, accept):
    made = site("shadow")
    bodies = [arrow([[n, 1]]) if n % 2 else arrow([[n, 1], [2, n]]) for n in range(5)]
    asked = {"content_type": encode.ARROW_TYPE, "accept": accept}
    assert made.together(*bodies, **asked) == made.alone(*bodies, **asked)
    answers, _ = made.together(*bodies, **asked)
    assert answers[4][1][1]["out"]["y"] == [4, 8]
    assert [result.count for result in made.logged] == [8]


@pytest.mark.parametrize(
    "other",
    [
        arrow([[1, 2]], pa.list_(pa.int64())),
        arrow([[1, 2]], pa.list_(pa.float64())),
        arrow([[1, 2, 3]], pa.list_(pa.float32())),
        arrow([[1, 2]], key=["text"]),
        arrow([[1, None]]),
        arrow([[1, 2]])[:-40],
        b"",
        body([1, 2]),
    ],
)
@pytest.mark.parametrize("content_type", [encode.ARROW_TYPE, ""])
def test_arrow_requests_of_other_types_change_nothing(site, other, content_type):
    made = site()
    bodies = [arrow([[5, 6]]), other, arrow([[7, 8]])]
    asked = {"content_type": content_type, "accept": encode.ARROW_TYPE}
    answers, logged = made.together(*bodies, **asked)
    assert (answers, logged) == made.alone(*bodies, **asked)
    assert answers[2][1][0]["out"]["y"] == [14, 16]


def test_only_what_asks_alike_runs_together(site):
    made = site()
    asked = [
        {},
        {"query": "dataset[]=out"},
        {"path": "/pipelines/small"},
        {"path": "/pipelines/other"},
        {"method": "PUT"},
        {"content_type": "text/csv"},
        {"query": "dataset[]=nothing"},
        {"query": "dataset[]=*", "accept": encode.ARROW_TYPE},
    ]
    requests = [Request(body=body([n, n]), **{**POST, **more}) for n, more in enumerate([*asked, *asked])]
    wanted = [made.app.respond(request).status for request in requests]
    assert wanted[:4] == [200, 200, 200, 404]
    assert [reply.status for reply in made.app.respond_together(requests)] == wanted
    flat = made.app.respond_together([requests[1], requests[9]])
    assert [orjson.loads(reply.body)[0]["out.y"] for reply in flat] == [[2, 2], [18, 18]]


def test_failure_that_nobody_thought_of_costs_no_answer(site, monkeypatch, caplog):
    made = site()
    monkeypatch.setattr(made.plane, "infer_together", lambda *args: 1 / 0)
    answers, _ = made.together(body([1, 2]), body([3, 4]))
    assert [status for status, _ in answers] == [200, 200]
    assert "each is answered alone" in caplog.text


def test_text_that_is_too_long_for_the_log_is_missing_for_its_caller_only(site):
    made = site("shadow", first=models.echo_text(), second=models.echo_text(), fields=["word"])
    texts = ["short", "x" * (LIMIT + 1), "also short"]
    bodies = [orjson.dumps([{"word": text}]) for text in texts]
    answers, logged = made.together(*bodies)
    assert [row["metadata"]["dropped"] for row in logged] == [[], ["word"], []]
    assert (answers, logged) == made.alone(*bodies)


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 2), (1, 2, 3)])
def test_model_that_mixes_rows_never_mixes_those_of_two_callers(site, counts):
    made = site("shadow", first=models.rows_against_rows(), batched=(None, None))
    bodies = [body(*[[n, row] for row in range(count)]) for n, count in enumerate(counts)]
    assert made.together(*bodies) == made.alone(*bodies)
    made.together(*bodies)
    assert len(made.logged) == len(set(counts))  # outputs of different shapes are no column


def test_quick_requests_meet_in_the_loop_and_others_in_threads(site, monkeypatch):
    made = site(batched=({"max_rows": 8, "max_wait_us": 1}, BATCHED))
    monkeypatch.setattr(traffic_module, "QUICK_SECONDS", 0.9)
    request = Request(body=body([1, 2]), **POST)
    assert made.traffic.lane(request) is Lane.MEET and request.meets
    made.app.respond(request)
    assert made.traffic.lane(request) is Lane.TOGETHER and not request.meets


def test_waiting_for_others_does_not_count_as_slow(site, monkeypatch):
    made = site(batched=({"max_rows": 8, "max_wait_us": 1_000_000}, None))
    monkeypatch.setattr(traffic_module, "QUICK_SECONDS", 0.9)
    request = Request(body=body([1, 2]), **POST)
    assert made.traffic.lane(request) is Lane.MEET
    made.app.respond(request)  # waits a second for others in vain
    assert made.traffic.lane(Request(body=body([1, 2]), **POST)) is Lane.TOGETHER


def test_what_lies_in_the_sockets_at_once_runs_together(site, monkeypatch):
    made = site(batched=({"max_rows": 64, "max_wait_us": 1}, BATCHED))
    monkeypatch.setattr(traffic_module, "QUICK_SECONDS", 0.9)
    made.traffic.lane(Request(body=body([10, 0])))
    made.app.respond(Request(body=body([10, 0]), **POST))  # now it is known to be quick
    monkeypatch.setattr(made.app, "settle", lambda: None)
    made.logged.clear()
    server = Server(made.app, "127.0.0.1", free_port(), 2, 64)
    server.start()
    eventually(lambda: server._listener)
    port = server._socket.getsockname()[1]
    count = 40
    with ExitStack() as open_lines:
        lines = [open_lines.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(count)]
        for line in lines:  # all are known to the loop
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: e\r\n\r\n")
            line.recv(4096)
        held, go = threading.Event(), threading.Event()
        server._loop.call_soon_threadsafe(lambda: held.set() or go.wait(30))
        assert held.wait(30)
        for n, line in enumerate(lines):
            sent = body([n + 10, 0])
            line.sendall(b"POST /infer HTTP/1.1\r\nHost: e\r\nContent-Length: %d\r\n\r\n%b" % (len(sent), sent))
        go.set()
        had = [line.recv(65536) for line in lines]
    server.stop(5)
    answers = [orjson.loads(text.partition(b"\r\n\r\n")[2])[0]["out"]["y"][0] for text in had]
    assert answers == [2 * (n + 10) for n in range(count)]
    assert [result.count for result in made.logged] == [32, 8]  # no more than MOST_TOGETHER at a time
    assert made.traffic._gate.waiting == 0 and made.traffic._gate._inside == 0


SOME = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.booleans()
VALUES = NUMBERS | st.none() | st.text(max_size=3) | st.lists(NUMBERS, max_size=2)
FAIR = st.lists(st.floats(width=16, allow_nan=False) | st.integers(-9, 9), min_size=2, max_size=2)


def sent():
    row = st.fixed_dictionaries({"tensor": FAIR | st.lists(NUMBERS, min_size=2, max_size=2)})
    odd = st.dictionaries(st.sampled_from(["tensor", "key"]), VALUES | FAIR, max_size=2)
    fair = st.lists(row, min_size=1, max_size=3)
    return st.lists((fair | fair | st.lists(odd, max_size=2) | VALUES).map(orjson.dumps), min_size=2, max_size=6)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    store = ContentStore(tmp_path_factory.mktemp("store"))
    whole = models.scale(1, kind=models.INT64)
    return {
        "float": Site(store),
        "double": Site(store, first=models.scale(1, kind=models.DOUBLE)),
        "whole": Site(store, first=whole),
        "shadow": Site(store, "shadow", second=models.fails_on_rows(but=1)),
        "split": Site(store, "split"),
        "chain": Site(store, "chain"),
        "apart": Site(store, "shadow", second=models.fails_on_rows(but=1), batched=(None, None)),
        "apart split": Site(store, "split", batched=(None, None)),
    }


@pytest.mark.parametrize("name", ["float", "double", "whole", "shadow", "split", "chain", "apart", "apart split"])
@SOME
@given(bodies=sent())
def test_whatever_is_sent_company_changes_nothing(sites, name, bodies):
    made = sites[name]
    assert made.together(*bodies) == made.alone(*bodies)
