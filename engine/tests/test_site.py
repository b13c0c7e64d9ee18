"""What a site engineer and Prometheus see: /status, /status.json, /metrics; and how too many requests are refused."""

import http.client
import re
import signal
import threading
import time
from contextlib import closing

import orjson
import pytest

from engine.tests.conftest import JSON, eventually
from engine.tests.fakes import models
from engine.tests.fakes.center import Refuse
from engine.tests.fakes.registry import publish
from engine.tests.test_main_job import V1, start_joined
from opsengine import views
from opsengine.errors import RequestError
from opsengine.gate import MOST_UNSENT, Gate

VALUE = re.compile(r"^(\w+)(\{[^}]*\})? (\S+)$", re.M)


def scraped(engine):
    status, headers, body = engine.call("GET", "/metrics")
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
    return {name + (labels or ""): float(value) for name, labels, value in VALUE.findall(body.decode())}


def test_metrics_tell_requests_latency_rows_log_session_and_update(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    for _ in range(3):
        engine.post("/infer", [{"tensor": [1.0, 2.0]}] * 2)
    engine.post("/infer", [{"tensor": [1.0]}])
    eventually(lambda: scraped(engine)["opsengine_log_backlog_rows"] == 0)
    told = scraped(engine)
    assert told['opsengine_requests_total{code="200",pipeline="scale"}'] == 3
    assert told['opsengine_requests_total{code="400",pipeline="scale"}'] == 1
    assert told['opsengine_request_seconds_count{pipeline="scale"}'] == 3
    assert told['opsengine_model_seconds_count{model="by-two",pipeline="scale"}'] == 3
    assert 0 < told['opsengine_model_seconds_sum{model="by-two",pipeline="scale"}'] < 1
    assert told['opsengine_rows_total{pipeline="scale"}'] == 6
    assert told["opsengine_ready"] == 1 and told["opsengine_queue_requests"] == 0
    assert told["opsengine_log_write_failing"] == 0 and told["opsengine_log_shed_rows_total"] == 0
    assert told['opsengine_update_state{state="idle"}'] == 1 and told['opsengine_update_state{state="failed"}'] == 0
    assert told["opsengine_memory_bytes"] > 10 * 2**20
    assert "opsengine_session_hours_left" in told and abs(told["opsengine_clock_offset_seconds"]) < 5
    assert any(name.startswith("opsengine_serving_info{") and V1 in name for name in told)


def test_status_page_tells_a_person_what_there_is_to_know(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    engine.post("/infer", [{"tensor": [1.0, 2.0]}])
    eventually(lambda: engine.get("/status.json")[1]["contact"]["last"])
    status, headers, body = engine.call("GET", "/status")
    page = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "<script" not in page and "http-equiv" not in page and "prefers-color-scheme" in page
    wanted = ["edge-1", center.desired["digest"], "Pipeline scale, version", "Should serve", "The same.", "Clock"]
    wanted += ["Last contact with the ops center", "Lapse", "Inference log", "are free.", "Last refusal"]
    for words in wanted:
        assert words in page, words
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_status_tells_of_a_session_that_the_center_ended_until_there_is_contact_again():
    refusal = {"at": 2000, "code": "edge_removed", "message": "This edge was removed."}
    contact = {"lapses_at": 9000, "hours_left": 168.0, "refusal": refusal}
    for last, text, state in ((1000, "Ended by the ops center: a new EDGE_BUNDLE", "bad"), (3000, "Lapses at", "ok")):
        assert views._lapse({**contact, "last": last})[1].startswith(text)
        assert views._lapse({**contact, "last": last})[2] == state


def test_status_tells_the_hour_of_the_lapse_by_the_centers_clock(start_engine, registry, center):
    center.clock_ahead_ms = 84 * 3_600_000
    center.lapses_at = int(time.time() * 1000) + center.clock_ahead_ms + 30 * 3_600_000
    engine = start_joined(start_engine, registry, center)
    told = eventually(lambda: (t := engine.get("/status.json")[1])["contact"]["last"] and t)
    assert 29.5 < told["contact"]["hours_left"] <= 30
    assert abs(told["clock"]["offset_ms"] - center.clock_ahead_ms) < 5000
    page = engine.call("GET", "/status")[2].decode()
    assert "in 30 h, unless the ops center is reached before" in page
    assert "3 days behind the ops center" in page


def test_status_after_a_refusal_gives_its_words(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    with center.lock:
        center.refuse["/edge/v1/checkin"] = [Refuse("edge_banned", "An operator banned this edge.")]
    told = eventually(lambda: engine.get("/status.json")[1]["contact"]["refusal"])
    assert (told["code"], told["message"]) == ("edge_banned", "An operator banned this edge.")
    assert "An operator banned this edge." in engine.call("GET", "/status")[2].decode()


def test_status_without_a_center_and_without_a_pipeline(start_engine, registry):
    registry.statuses = [503] * 1000
    engine = start_engine(PIPELINE_URL=f"{registry.host}/ml/pipelines/x:1")
    told = eventually(lambda: _status(engine))
    assert told["edge"] is None and told["serving"] is None and told["contact"]["hours_left"] is None
    page = engine.call("GET", "/status")[2].decode()
    assert "Not serving: no pipeline is loaded yet." in page and "started without an EDGE_BUNDLE" in page


def _status(engine):
    try:
        return engine.get("/status.json")[1]
    except OSError:
        return None


def test_names_on_the_page_are_escaped():
    page = views.page(_facts(edge={"name": "<script>x</script>", "id": None, "center": "&"}))
    assert "<script" not in page and "&lt;script&gt;" in page


def test_page_warns_of_what_needs_a_hand():
    facts = _facts()
    facts["logs"] |= {"fault": "The inference log cannot be written.", "shed": 1200}
    facts["disk"]["free"] = 1
    facts["update"] = {"state": "failed", "error": "The golden request failed."}
    facts["contact"]["hours_left"] = 0.0
    told = {head: (text, state) for head, text, state in views.sentences(facts)}
    assert told["Log fault"][1] == told["Update"][1] == told["Session"][1] == "bad"
    assert told["Disk"][1] == "warn" and told["Rows given up"][0].startswith("1,200")
    assert "a new EDGE_BUNDLE is needed" in told["Session"][0]


def test_page_lists_models_with_their_status_and_why_one_cannot_answer():
    dead = {"name": "prepare", "version": "p1", "status": "Error", "fault": "its process ended (exit code 7)"}
    facts = _facts(models=[dead, *_facts()["models"]])
    assert views.headline(facts) == ("Serving, but with status Error: model prepare.", "warn")
    told = {head: (text, state) for head, text, state in views.sentences(facts)}
    assert told["Serves"][0].endswith("Status Error.") and told["Serves"][1] == "bad"
    why = "Version p1. Status Error: its process ended (exit code 7). The next request starts it again."
    assert (told["Model prepare"], told["Model m"]) == ((why, "bad"), ("Version v. Status Running.", "ok"))
    lost = {"serving": None, "models": [dead | {"fault": "its pipeline could not be brought in"}]}
    told = {head: text for head, text, _ in views.sentences(_facts(**lost))}
    assert told["Model prepare"] == "Version p1. Status Error: its pipeline could not be brought in."


def test_numbers_fit_their_words_also_where_they_are_one():
    facts = _facts()
    facts["contact"]["hours_left"] = 1.0
    facts["logs"]["backlog"] = facts["traffic"]["refused"] = facts["traffic"]["errors"] = 1
    for edge in (facts["edge"], None):
        told = {head: text for head, text, _ in views.sentences(facts | {"edge": edge})}
        assert not re.search(r"\b1 (rows|requests|errors|hours|were)\b", " ".join(told.values()))
    assert told["Requests"] == "1 since the start (rows: 1, errors: 1). Refused because too many waited: 1."


def _facts(**changes):
    return {
        "now": 1_763_683_200_000,
        "engine": {"version": "1", "uptime_seconds": 5, "memory": {"used": 1, "limit": 2}, "started_at": 1},
        "edge": {"name": "e", "id": "1", "center": "c"},
        "serving": {"pipeline": "p", "pipeline_version": "v", "digest": "d", "since": 1_763_683_100_000},
        "models": [{"name": "m", "version": "v", "status": "Running", "fault": None}],
        "wanted": {"location": "l", "digest": "d"},
        "update": {"state": "idle", "error": None},
        "contact": {"last": 1_763_683_100_000, "lapses_at": 1_764_288_000_000, "hours_left": 160.0, "problem": None,
                    "refusal": None},
        "clock": {"offset_ms": 10},
        "logs": {"last": 1, "backlog": 0, "shed": 0, "bytes": 10, "limit": 100, "fault": None, "held": None},
        "disk": {"free": 50, "total": 100},
        "traffic": {"requests": 1, "rows": 1, "errors": 0, "waiting": 0, "refused": 0},
        **changes,
    }  # fmt: skip


def test_requests_over_the_line_are_429_with_retry_after(start_engine, registry):
    url, _ = publish(registry, "slow", V1, [("slow", "m1", models.slow(), ["tensor"])])
    engine = start_engine(PIPELINE_URL=url, MAX_QUEUE="3").ready(60)
    row = [{"tensor": [[1.0] * 300] * 300}]
    found, lock = [], threading.Lock()

    def ask():
        status, headers, _ = engine.call("POST", "/infer", orjson.dumps(row * 4), {"Content-Type": JSON})
        with lock:
            found.append((status, headers.get("retry-after")))

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    assert engine.get("/healthz")[0] == 200
    assert len(found) < len(threads)  # answered while others wait
    for thread in threads:
        thread.join()
    statuses = [status for status, _ in found]
    assert set(statuses) == {200, 429}, statuses
    assert statuses.count(200) >= 5  # two run, three wait
    assert {after for status, after in found if status == 429} == {"1"}
    assert engine.post("/infer", row)[0] == 200
    assert engine.get("/status.json")[1]["traffic"]["refused"] == statuses.count(429)


def test_gate_bounds_answers_that_are_not_taken():
    gate = Gate(slots=1, queue=3, budget=100)
    gate.enter(10, unsent=MOST_UNSENT)
    with pytest.raises(RequestError, match="answers wait to be taken") as refused:
        gate.enter(10, unsent=MOST_UNSENT + 1)
    assert (refused.value.status, refused.value.headers, gate.refused) == (429, (("Retry-After", "1"),), 1)


def test_gate_gives_bodies_that_are_coming_no_place_and_not_the_last_bytes():
    gate = Gate(slots=1, queue=0, budget=80)
    for _ in range(2):
        gate.enter(60)
        gate.come(20, 60, has_place=True)
    gate.come(50, 20, has_place=False)
    with pytest.raises(RequestError, match="bytes wait") as refused:
        gate.come(21, 20, has_place=False)  # an eighth is kept for what is whole
    assert (refused.value.status, gate.refused, gate.waiting) == (429, 1, 0)
    gate.enter(10)
    with pytest.raises(RequestError, match="requests wait"):
        gate.complete(20, 20, has_place=False)
    gate.leave(10)
    gate.complete(20, 20, has_place=False)
    gate.leave(20)
    gate.leave(50, has_place=False)
    assert (gate._inside, gate._bytes, gate._coming) == (0, 0, 0)


def test_gate_counts_a_body_of_untold_size_when_it_is_whole():
    gate = Gate(slots=2, queue=0, budget=80)
    gate.enter(0)
    gate.enter(30)
    with pytest.raises(RequestError, match="bytes wait"):
        gate.complete(51, 0, has_place=True)
    gate.complete(50, 0, has_place=True)
    gate.leave(50)
    gate.leave(30)
    assert (gate._inside, gate._bytes, gate._coming) == (0, 0, 0)


def test_gate_bounds_count_and_bytes():
    gate = Gate(slots=1, queue=1, budget=100)
    gate.enter(60)
    gate.enter(40)
    assert gate.waiting == 1
    with pytest.raises(RequestError) as caught:
        gate.enter(0)
    assert caught.value.status == 429 and caught.value.headers == (("Retry-After", "1"),)
    gate.leave(40)
    with pytest.raises(RequestError, match="bytes wait"):
        gate.enter(41)
    gate.leave(60)
    gate.enter(1000)  # alone, the largest body that is allowed at all passes
    gate.leave(1000)
    assert (gate.waiting, gate.refused) == (0, 2)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_request_under_way_is_answered_before_the_engine_ends(start_engine, registry, by):
    url, _ = publish(registry, "slow", V1, [("slow", "m1", models.slow(), ["tensor"])])
    engine = start_engine(PIPELINE_URL=url).ready(60)
    row = orjson.dumps([{"tensor": [[1.0] * 300] * 300}] * 6)
    with closing(http.client.HTTPConnection("127.0.0.1", engine.port, timeout=20)) as connection:
        connection.request("POST", "/infer", row, {"Content-Type": JSON})
        eventually(lambda: engine.get("/status.json")[1]["traffic"]["requests"] == 0)
        time.sleep(0.5)  # long enough to be read on a busy machine; the run itself takes longer
        assert engine.stop(by) == 0
        answer = connection.getresponse()
        assert answer.status == 200 and len(orjson.loads(answer.read())) == 6
    assert "Traceback" not in engine.log


def test_log_lines_can_be_json(start_engine, registry):
    url, _ = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    engine = start_engine(PIPELINE_URL=url, LOG_FORMAT="json").ready()
    lines = [orjson.loads(line) for line in engine.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert any(line["message"].startswith("Serving pipeline scale") and line["level"] == "info" for line in lines)


def test_engine_holds_its_rows_while_observability_is_off_and_says_so(start_engine, registry, center):
    center.is_off = True
    engine = start_joined(start_engine, registry, center)
    engine.post("/infer", [{"tensor": [1.0, 2.0]}] * 3)
    status, ready = eventually(lambda: (told := engine.get("/readyz"))[1].get("warnings") and told)
    assert status == 200 and ready["status"] == "ready"
    assert ready["warnings"] == ["Log rows are held here: An administrator switched observability off."]
    told = engine.get("/status.json")[1]["logs"]
    assert (told["held"], told["backlog"], told["shed"]) == ("An administrator switched observability off.", 3, 0)
    page = engine.call("GET", "/status")[2].decode()
    assert "the inference log is held here" in page and "They are sent once it takes them again." in page
    assert scraped(engine)["opsengine_log_held"] == 1
    assert engine.post("/infer", [{"tensor": [1.0, 2.0]}])[0] == 200
    center.is_off = False
    eventually(lambda: engine.get("/status.json")[1]["logs"]["backlog"] == 0, 90)  # it asks ever less often
    eventually(lambda: engine.get("/readyz")[1] == {"status": "ready"})
    assert center.total() == (4, 0)
