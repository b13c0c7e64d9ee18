"""Starts that cannot succeed end at once, with one clear line."""

import os
import socket
import subprocess
import sys

import orjson
import pytest

from engine.tests.conftest import ROOT, eventually
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish

V1, V2 = "3b49fba8-94d8-4fca-aecc-c75257fd16c6", "2e78349c-d282-41c9-a435-0c943c3accf1"


def published(registry, version=V1, factor=2.0, name="scale"):
    return publish(registry, name, version, [(f"by-{factor:g}", "m1", models.scale(factor), ["tensor"])])


def test_wrong_setting_ends_with_2_and_one_line(start_engine):
    engine = start_engine(PIPELINE_URL="r/p:1", CONFIG_CPUS="many")
    assert engine.wait() == 2
    assert engine.log.strip() == "opsengine: CONFIG_CPUS is 'many': give a number from 0.001 to 1024."


def test_busy_port_ends_with_one_line(start_engine, registry):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        engine = start_engine(PIPELINE_URL=published(registry)[0], ENGINE_PORT=other.getsockname()[1])
        assert engine.wait() == 1
    assert "cannot be used" in engine.log and "ENGINE_PORT" in engine.log
    assert len(engine.log.splitlines()) == 1


def test_second_engine_on_the_same_state_is_refused(start_engine, registry):
    url, _ = published(registry)
    start_engine(PIPELINE_URL=url).ready()
    second = start_engine(PIPELINE_URL=url)
    assert second.wait() == 1
    assert "in use by another engine" in second.log


def test_unwritable_state_folder_is_said(start_engine, tmp_path):
    (tmp_path / "file").write_text("")
    engine = start_engine(PIPELINE_URL="r.io/p:1", PERSIST_DIR=tmp_path / "file" / "persist")
    assert engine.wait() == 1
    assert "PERSIST_DIR" in engine.log and "Traceback" not in engine.log


def test_refused_registry_login_ends_with_one_line(start_engine, registry):
    registry.auth = "basic"
    url, _ = published(registry)
    engine = start_engine(PIPELINE_URL=url, OCI_REGISTRY=registry.host, OCI_USERNAME="me", OCI_PASSWORD="secret-word")
    assert engine.wait() == 1
    last = engine.log.splitlines()[-1]
    assert last.startswith("CRITICAL: The registry") and "OCI_USERNAME" in last
    assert "secret-word" not in engine.log and "Traceback" not in engine.log


def test_login_and_scheme_of_the_registry_are_used(start_engine, registry):
    registry.auth = "bearer"
    url, _ = published(registry)
    username, password = registry.user
    engine = start_engine(
        PIPELINE_URL=url, OCI_REGISTRY=f"http://{registry.host}", OCI_USERNAME=username, OCI_PASSWORD=password
    ).ready()
    assert "Login Succeeded" in engine.log
    assert password not in engine.log


def test_registry_that_comes_late_is_waited_for(start_engine, registry):
    url, _ = published(registry)
    registry.statuses = [503] * 5
    engine = start_engine(PIPELINE_URL=url).ready(30)
    assert "answered 503" in engine.log


def test_pipeline_that_cannot_be_fetched_yet_is_listed_with_its_error(start_engine, registry):
    url, _ = published(registry)
    registry.statuses = [503] * 10_000
    engine = start_engine(PIPELINE_URL=url)
    wanted = {"id": "scale", "version": V1, "status": "Error"}
    eventually(lambda: _listed(engine, "pipelines") == [wanted], 60)
    assert engine.get("/models") == (200, {"models": []})
    registry.statuses = []
    engine.ready(60)
    assert engine.get("/pipelines") == (200, {"pipelines": [{**wanted, "status": "Running"}]})


def test_models_of_a_pipeline_that_cannot_be_served_yet_are_listed_with_their_error(start_engine, registry):
    url, digest = published(registry)
    right = registry.blobs[digest]
    manifest = orjson.loads(right)
    manifest["layers"][-1]["size"] = 2**60  # more than any disk has room for
    tag = next(iter(registry.tags))
    registry.push(*tag.rsplit(":", 1), manifest)
    engine = start_engine(PIPELINE_URL=url)
    (model,) = eventually(lambda: _listed(engine, "models"), 60)
    assert (model["name"], model["version"], model["status"]) == ("by-2", "m1", "Error")
    told = engine.get("/status.json")[1]
    assert "make room" in told["update"]["error"]
    assert told["models"] == [
        {"name": "by-2", "version": "m1", "status": "Error", "fault": "its pipeline could not be brought in"}
    ]
    registry.tags[tag] = digest
    engine.ready(60)
    assert _listed(engine, "models") == [{**model, "status": "Running"}]


def test_changed_pipeline_url_is_served_after_a_restart(start_engine, registry):
    engine = start_engine(PIPELINE_URL=published(registry)[0]).ready()
    assert engine.stop() == 0
    again = start_engine(PIPELINE_URL=published(registry, V2, 5.0)[0])
    eventually(lambda: V2 in str(_listed(again, "pipelines")), 15)
    assert again.post("/infer", [{"tensor": [1.0, 1.0]}])[1][0]["out"] == {"y": [5.0, 5.0]}
    assert [row["out"]["y"][0] for row in again.post("/logs", {})[1]] == [5.0]


def _listed(engine, what):
    try:
        return engine.get(f"/{what}")[1][what]
    except OSError:
        return None


def test_unreachable_new_pipeline_leaves_the_old_one_serving(start_engine, registry):
    engine = start_engine(PIPELINE_URL=published(registry)[0]).ready()
    assert engine.stop() == 0
    again = start_engine(PIPELINE_URL=f"{registry.host}/ml/pipelines/none:1").ready()
    assert "has no" in again.log
    assert again.post("/infer", [{"tensor": [1.0, 1.0]}])[1][0]["out"] == {"y": [2.0, 2.0]}


def test_store_keeps_the_current_and_the_previous_pipeline(start_engine, registry):
    for number, factor in enumerate((2.0, 3.0, 4.0)):
        engine = start_engine(
            PIPELINE_URL=published(registry, f"0000000{number}-0000-4000-8000-000000000000", factor)[0]
        )
        eventually(lambda engine=engine, n=number: f"0000000{n}-" in str(_listed(engine, "pipelines")), 15)
        kept = 3 * min(2, number + 1)  # manifest, pipeline.json and model of each pipeline that is kept
        folder = engine.folder / "persist/store/blobs/sha256"
        eventually(lambda folder=folder, kept=kept: len(list(folder.iterdir())) == kept)
        engine.stop()


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_is_given(arguments):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "engine" / "src")}
    command = [sys.executable, "-m", "opsengine", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert found.returncode == 0
    assert "opsengine" in found.stdout
    if arguments[0] == "serve":
        assert "PIPELINE_URL" in found.stdout and "EDGE_BUNDLE" in found.stdout
