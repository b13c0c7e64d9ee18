"""Python steps: a class in a zip, in a process of its own that cannot take the engine down."""

import errno
import gc
import io
import json
import os
import zipfile

import numpy as np
import pytest

from engine.tests.conftest import ROOT, eventually
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from opsengine import pypackage
from opsengine.errors import PipelineError, RequestError
from opsengine.pymodel import BUSY_SECONDS, PythonModel
from opsengine.pypackage import Manifest

GOLDEN = json.loads((ROOT / "contract" / "python_manifests.json").read_text())
MANIFEST = {
    "class": "step:Step",
    "inputs": [{"name": "x", "type": "float32", "shape": [None, 2]}],
    "outputs": [{"name": "y", "type": "float32", "shape": [None, 2]}],
    "timeout_seconds": 1,
    "memory_mib": 256,
}
STEP = """
import os, time
import numpy as np
import helper

class Step:
    def predict(self, inputs):
        x = inputs["x"]
        what = int(x[0, 0])
        if what == 666:
            os._exit(7)
        if what == 667:
            time.sleep(30)
        if what == 668:
            np.ones(2**29)
        if what == 669:
            raise ValueError("669 is not a number we take")
        if what == 670:
            raise KeyError("broken")
        if what == 671:
            return {"z": x}
        if what == 672:
            return {"y": x[:, :1]}
        if what == 673:
            return {"y": [["a", "b"]]}
        print("a step may print")
        return {"y": x * helper.FACTOR}
"""
FILES = {"step.py": STEP, "vendor/helper.py": "FACTOR = 3"}


def zipped(manifest=MANIFEST, files=FILES):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, text in files.items():
            archive.writestr(name, text)
    return sink.getvalue()


@pytest.fixture
def make_model(tmp_path):
    made = []

    def make(data=None):
        path = tmp_path / "store" / "blobs" / "sha256" / f"{len(made):064d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data or zipped())
        made.append(PythonModel(path, "prepare", tmp_path / "store" / "python"))
        return made[-1]

    yield make
    made.clear()
    gc.collect()


def run(model, value, rows=1):
    return model.run({"x": np.full((rows, 2), value, np.float32)})["y"].tolist()


def test_class_answers_with_its_vendored_dependency(make_model):
    model = make_model()
    model.warm()
    assert run(model, 2, rows=2) == [[6.0, 6.0]] * 2


def test_what_it_prints_is_in_the_log_at_once(make_model, capfd):
    run(make_model(), 2)
    assert "a step may print" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("value", "status", "said"),
    [
        (666, 500, "Model prepare failed: its process ended (exit code 7)."),
        (667, 504, "Model prepare failed: it did not answer within 1 s."),
        (668, 500, "Model prepare failed: it needs more memory than its memory_mib."),
        (669, 400, "Model prepare refused the values: 669 is not a number we take."),
        (670, 500, "Model prepare failed: KeyError: 'broken'."),
        (671, 500, "Model prepare gave no output y, which its manifest names."),
        (672, 500, "Model prepare gave y of shape [1, 1], not [1, 2]."),
        (673, 500, "Model prepare gave y as object, not float32."),
    ],
)
def test_after_any_failure_the_next_request_is_answered(make_model, value, status, said):
    model = make_model()
    with pytest.raises(RequestError) as failed:
        run(model, value)
    assert (failed.value.status, str(failed.value)) == (status, said)
    assert run(model, 1) == [[3.0, 3.0]]


def test_process_gets_no_secret_of_the_engine(make_model, monkeypatch):
    monkeypatch.setenv("OCI_PASSWORD", "hunter2")
    step = "import os\nimport numpy as np\nclass Step:\n    def predict(self, inputs):\n"
    step += "        return {'y': inputs['x'] * (1 if 'OCI_PASSWORD' in os.environ else 0)}\n"
    assert run(make_model(zipped(files={"step.py": step})), 5) == [[0.0, 0.0]]


def test_text_and_whole_numbers_go_both_ways(make_model):
    manifest = {
        **MANIFEST,
        "inputs": [{"name": "w", "type": "string", "shape": [None]}, {"name": "n", "type": "int64", "shape": [None]}],
        "outputs": [
            {"name": "said", "type": "string", "shape": [None]},
            {"name": "n", "type": "int64", "shape": [None]},
        ],
    }
    step = "class Step:\n    def predict(self, told):\n"
    step += "        return {'said': [w.upper() for w in told['w']], 'n': told['n'] + 1}\n"
    model = make_model(zipped(manifest, {"step.py": step}))
    made = model.run({"w": np.array(["é", "b"], dtype=object), "n": np.array([2**60, -1])})
    assert made["said"] == ["É", "B"] and made["n"].tolist() == [2**60 + 1, 0]


def test_class_that_cannot_be_loaded_says_why(make_model):
    with pytest.raises(PipelineError, match="cannot be loaded: ModuleNotFoundError: No module named 'absent'"):
        make_model(zipped(files={"step.py": "import absent"})).warm()
    with pytest.raises(PipelineError, match="cannot be loaded: AttributeError"):
        make_model(zipped(files={"step.py": "x = 1"})).warm()


def test_process_and_folder_go_with_the_model(tmp_path):
    path = tmp_path / "store" / "blobs" / "sha256" / ("0" * 64)
    path.parent.mkdir(parents=True)
    path.write_bytes(zipped())
    left = tmp_path / "store" / "python" / f"{os.getpid()}-left-by-a-killed-one"
    left.mkdir(parents=True)
    model = PythonModel(path, "prepare", tmp_path / "store" / "python")
    model.warm()
    process, folder = model._held[0].process, model._folder
    assert folder.is_dir() and not left.exists()
    del model
    gc.collect()
    eventually(lambda: process.poll() is not None and not folder.exists())


class Turn:
    """A lock that another request holds for ever; `waited` is how long one was ready to wait for it."""

    waited = None

    def acquire(self, timeout):
        self.waited = timeout
        return False


def test_busy_step_is_a_503_soon(make_model):
    model = make_model()
    model._turn = turn = Turn()
    with pytest.raises(RequestError) as refused:
        run(model, 1)
    assert (refused.value.status, turn.waited) == (503, BUSY_SECONDS)
    assert 0 < BUSY_SECONDS <= 3


def test_python_step_prepares_for_a_model(infer):
    step = ("prepare", "p1", zipped(), ["tensor"], {"framework": "python", "runtime": "python"})
    after = ("by-two", "m1", models.scale(2.0, source="y", result="z"), None)
    (row,) = infer([{"tensor": [1.0, 2.0]}], step, after)
    assert row["out"] == {"z": [6.0, 12.0]}


@pytest.mark.parametrize("manifest", GOLDEN["good"])
def test_good_manifest_is_taken(tmp_path, manifest):
    path = tmp_path / "step.zip"
    path.write_bytes(zipped(manifest))
    assert isinstance(pypackage.read(path, "prepare"), Manifest)


@pytest.mark.parametrize("bad", GOLDEN["bad"], ids=lambda bad: bad["says"])
def test_bad_manifest_is_refused(tmp_path, bad):
    path = tmp_path / "step.zip"
    path.write_bytes(zipped(bad["manifest"]))
    with pytest.raises(PipelineError) as refused:
        pypackage.read(path, "prepare")
    assert bad["says"].lower() in str(refused.value).lower()


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip", zipped()[:200]])
def test_broken_zip_is_refused(tmp_path, data):
    path = tmp_path / "step.zip"
    path.write_bytes(data)
    with pytest.raises(PipelineError, match="zip"):
        pypackage.read(path, "prepare")


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py", "a/../../outside.py", "c:\\outside.py"])
def test_zip_that_would_write_elsewhere_is_refused(tmp_path, name):
    path = tmp_path / "step.zip"
    path.write_bytes(zipped(files={**FILES, name: ""}))
    with pytest.raises(PipelineError, match="outside"):
        pypackage.read(path, "prepare")


def statuses(engine):
    (pipeline,) = engine.get("/pipelines")[1]["pipelines"]
    (model,) = engine.get("/models")[1]["models"]
    return pipeline["status"], model["status"]


def test_process_that_was_killed_while_idle_costs_no_request(make_model):
    model = make_model()
    assert run(model, 2) == [[6.0, 6.0]]
    process = model._held[0].process
    process.kill()
    process.wait(60)
    assert model.fault == "its process ended (exit code -9)"
    assert run(model, 3) == [[9.0, 9.0]]
    assert model.fault is None


def test_server_outlives_its_python_step(registry, start_engine):
    parts = [("prepare", "p1", zipped(), ["tensor"], {"framework": "python", "runtime": "python"})]
    location, _ = publish(registry, "prepared", "3b49fba8-94d8-4fca-aecc-c75257fd16c6", parts)
    engine = start_engine(PIPELINE_URL=location, OCI_REGISTRY=f"http://{registry.host}").ready()
    died, late = "its process ended (exit code 7)", "it did not answer within 1 s"
    for deadly, status, why in ((666, 500, died), (667, 504, late), (666, 500, died)):
        assert engine.post("/infer", [{"tensor": [deadly, 1]}])[0] == status
        assert engine.get("/healthz")[0] == 200
        assert statuses(engine) == ("Error", "Error")
        assert f"Status Error: {why}. The next request starts it again." in engine.call("GET", "/status")[2].decode()
        answered, rows = engine.post("/infer", [{"tensor": [1.0, 2.0]}])
        assert (answered, rows[0]["out"]) == (200, {"y": [3.0, 6.0]})
        assert statuses(engine) == ("Running", "Running")
        assert "Status Error" not in engine.call("GET", "/status")[2].decode()
    assert engine.stop() == 0
    assert list((engine.folder / "persist" / "store" / "python").iterdir()) == []


def test_step_that_cannot_be_unpacked_leaves_nothing_behind(tmp_path, monkeypatch):
    path, unpacked = tmp_path / "step.zip", tmp_path / "python"
    path.write_bytes(zipped())

    def full(self, folder):
        (folder / "half").write_text("of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(OSError, match="No space left"):
        PythonModel(path, "prepare", unpacked)
    assert list(unpacked.iterdir()) == []
