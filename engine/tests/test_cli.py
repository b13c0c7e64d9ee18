"""The command line beside `serve`: join, status, pull, verify, version; each ends with one line where it cannot."""

import os
import subprocess
import sys
import time

import orjson
import pytest

from engine.tests.conftest import ROOT, eventually, free_port
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_main_job import V1, V2, start_joined
from engine.tests.test_python_step import zipped
from engine.tests.test_updates import wish
from opsengine import health, local


@pytest.fixture
def run(tmp_path):
    """Run a command on this test's PERSIST_DIR; returns code, stdout, stderr."""

    def call(*arguments, **env):
        keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        given = {name: str(value) for name, value in env.items()}
        env = {**keep, "PYTHONPATH": str(ROOT / "engine/src"), "PERSIST_DIR": str(tmp_path / "persist"), **given}
        command = [sys.executable, "-m", "opsengine", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def location(registry):
    return publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])


def test_join_joins_once_and_serving_needs_no_join(run, registry, center, location, start_engine):
    center.wish("scale", V1, *location)
    bundle = center.add_edge("edge-7", pipeline_url=location[0])
    code, out, _ = run("join", EDGE_BUNDLE=bundle)
    assert code == 0 and out.startswith("Joined as edge-7 (")
    code, out, _ = run("join", EDGE_BUNDLE=bundle)
    assert code == 0 and out.startswith("Joined already as edge-7 (")
    start_engine(EDGE_BUNDLE=bundle, OCI_REGISTRY=registry.host).ready()
    assert len(center.joins) == 1


def test_join_that_is_refused_says_why(run, center):
    bundle = center.add_edge("edge-7", pipeline_url="r.io/p:1")
    center.tokens.clear()
    code, _, err = run("join", EDGE_BUNDLE=bundle)
    assert code == 1 and err.splitlines()[-1].startswith("opsengine: The reason, and what to do.")


def test_join_without_a_bundle_says_what_to_set(run):
    for given in ({}, {"PIPELINE_URL": "r.io/p:1"}):
        code, _, err = run("join", **given)
        assert (code, err.count("\n")) == (2, 1) and "EDGE_BUNDLE is not set" in err


def test_pulled_pipeline_is_served_without_a_network(run, registry, location, start_engine):
    code, out, _ = run("pull", PIPELINE_URL=location[0])
    assert (code, out.strip()) == (0, location[1])
    registry.stop()
    engine = start_engine(PIPELINE_URL=location[0]).ready()
    assert engine.post("/infer", [{"tensor": [1.0, 1.0]}])[1][0]["out"] == {"y": [2.0, 2.0]}


def test_pull_beside_a_running_engine_is_refused(run, location, start_engine):
    start_engine(PIPELINE_URL=location[0]).ready()
    code, _, err = run("pull", PIPELINE_URL=location[0])
    assert code == 1 and "in use by another engine" in err


def test_pull_of_nothing_says_so(run, registry):
    code, _, err = run("pull", PIPELINE_URL=f"{registry.host}/ml/pipelines/none:1")
    assert code == 1 and "opsengine: The registry" in err and "has no" in err


def test_verify_finds_what_is_damaged(run, location, registry, tmp_path):
    assert run("verify") == (0, "Nothing is stored.\n", "")
    run("pull", PIPELINE_URL=location[0])
    code, out, err = run("verify")
    assert (code, err, out.count(": right.")) == (0, "", 4)  # three files and the publish
    model = orjson.loads(registry.blobs[location[1]])["layers"][1]["digest"]
    path = tmp_path / "persist/store/blobs/sha256" / model[7:]
    path.write_bytes(b"rot")
    code, out, err = run("verify")
    assert code == 1 and f"{model}: its content is damaged." in err
    assert f"publish {location[1]}: damaged or missing files: 1 (the engine fetches them again)." in err
    assert path.read_bytes() == b"rot"  # only looked at


def test_verify_asks_for_the_signature_where_one_is_required(run, location):
    pem = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE6iSgGyoxFYoLYLQ8QBnnYZd1F2vD
pYgK1WGQ7SQHGBFXsHoAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==
-----END PUBLIC KEY-----"""
    run("pull", PIPELINE_URL=location[0])
    code, _, err = run("verify", COSIGN_PUBLIC_KEY=pem)
    assert (code, "COSIGN_PUBLIC_KEY is not" in err) == (2, True)  # no point of the curve


def test_status_asks_the_running_engine(run, start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    code, out, _ = run("status", ENGINE_PORT=engine.port)
    assert code == 0 and out.startswith("Serving.\n") and "Identity: Edge edge-1, id" in out
    code, out, _ = run("status", "--json", ENGINE_PORT=engine.port)
    assert code == 0 and orjson.loads(out)["serving"]["pipeline"] == "scale"


def test_status_tells_of_a_python_step_whose_process_ended(run, start_engine, registry):
    step = ("prepare", "p1", zipped(), ["tensor"], {"framework": "python", "runtime": "python"})
    engine = start_engine(PIPELINE_URL=publish(registry, "prepared", V1, [step])[0]).ready()
    assert "Model prepare: Version p1. Status Running.\n" in run("status", ENGINE_PORT=engine.port)[1]
    engine.post("/infer", [{"tensor": [666, 1]}])
    out = run("status", ENGINE_PORT=engine.port)[1]
    assert out.startswith("Serving, but with status Error: model prepare.\n")
    assert "Model prepare: Version p1. Status Error: its process ended (exit code 7). The next request" in out


def test_engine_that_listens_on_one_address_only_is_found_there(run, start_engine, location, monkeypatch):
    engine = start_engine(PIPELINE_URL=location[0], ENGINE_HOST="127.0.0.2")
    monkeypatch.setenv("ENGINE_PORT", str(engine.port))
    monkeypatch.setenv("ENGINE_HOST", "127.0.0.2")
    eventually(lambda: health.main() == 0, 60)
    assert "No engine answers" not in run("status", ENGINE_HOST="127.0.0.2", ENGINE_PORT=engine.port)[1]
    monkeypatch.setenv("ENGINE_HOST", "")
    assert health.main() == 1
    assert health.near("0.0.0.0") == health.near("::") == "127.0.0.1"


def test_status_of_an_engine_that_is_down_reads_what_it_left(run, start_engine, registry, center):
    port = free_port()
    assert run("status", ENGINE_PORT=port)[0:1] == (3,)
    engine = start_joined(start_engine, registry, center)
    center.stop()
    engine.post("/infer", [{"tensor": [1.0, 1.0]}] * 3)
    engine.stop()
    code, out, _ = run("status", ENGINE_PORT=port)
    assert code == 3 and f"No engine answers on port {port}." in out
    assert "Edge edge-1, id" in out and "Served last: " in out
    assert "Log rows that wait to be sent: 3, given up: 0." in out


@pytest.mark.parametrize("name", ["serve", "join", "status", "pull", "verify", "version"])
def test_each_command_has_help(run, name):
    code, out, _ = run(name, "--help")
    assert code == 0 and len(out.splitlines()) > 4


def test_version_is_told_and_unknown_commands_are_refused(run):
    assert run("version")[1].startswith("opsengine ")
    assert run("dance")[0] == 2


@pytest.fixture
def updated(registry, center, start_engine):
    """A joined engine that serves V2, after V1."""
    engine = start_joined(start_engine, registry, center)
    first = engine.get("/status.json")[1]["serving"]["digest"]
    second = wish(registry, center)
    eventually(lambda: engine.get("/status.json")[1]["serving"]["digest"] == second)
    return engine, first


def test_rollback_changes_a_running_engine_over(updated, run, center):
    engine, first = updated
    code, out, _ = run("rollback", ENGINE_PORT=engine.port)
    assert (code, out.strip()) == (0, first)
    assert engine.post("/infer", [{"tensor": [1.0, 1.0]}])[1][0]["out"] == {"y": [2.0, 2.0]}
    told = eventually(lambda: next((c for c in center.checkins if c["update"]["error"]), None))
    assert told["serving"]["digest"] == first and "taken back by hand" in told["update"]["error"]
    assert engine.get("/status.json")[1]["serving"]["digest"] == first  # though the center still wants the other


def test_rollback_of_a_stopped_engine_counts_from_its_next_start(updated, run):
    engine, first = updated
    engine.stop()
    assert run("rollback")[:2] == (0, first + "\n")
    engine.start().ready()
    assert engine.get("/status.json")[1]["serving"]["digest"] == first


def test_rollback_with_nothing_before_says_so_and_changes_nothing(run, registry, location, start_engine):
    engine = start_engine(PIPELINE_URL=location[0]).ready()
    asked = time.monotonic()
    code, out, err = run("rollback", ENGINE_PORT=engine.port)
    assert (code, out) == (1, "") and "no publish before" in err
    assert time.monotonic() - asked < local.ROLL_BACK_SECONDS  # the running engine is not waited for
    engine.stop()
    code, out, err = run("rollback")
    assert (code, out) == (1, "") and "no publish before" in err
    engine.start().ready()


def test_status_names_what_should_be_served_after_a_rollback(run, registry, location, start_engine):
    start_engine(PIPELINE_URL=location[0]).ready().stop()
    after, _ = publish(registry, "scale", V2, [("by-three", "m2", models.scale(3.0), ["tensor"])])
    engine = start_engine(PIPELINE_URL=after).ready()
    assert "Should serve: The same." in run("status", ENGINE_PORT=engine.port)[1]
    assert run("rollback", ENGINE_PORT=engine.port)[0] == 0
    assert f"Should serve: {after} (any digest)." in run("status", ENGINE_PORT=engine.port)[1]


EARLY = """
import os, sys
from opsengine import cli, local

class Starting:
    def __init__(self, settings):
        os.kill(os.getpid(), local.ROLL_BACK)

    def run(self):
        return 0

cli.Engine = Starting
sys.exit(cli.serve())
"""


def test_rollback_that_comes_before_the_engine_is_ready_ends_nothing(tmp_path):
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "engine/src"),
        "PERSIST_DIR": str(tmp_path / "persist"),
        "PIPELINE_URL": "registry.example.com/ml/pipelines/scale:1",
    }
    done = subprocess.run([sys.executable, "-c", EARLY], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
