"""PIPELINE_DIR: a pipeline in a folder is served without a registry."""

import os
import subprocess
import sys

import pytest

from engine.tests.conftest import ROOT
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_python_step import zipped
from opsengine import included, settings
from opsengine.errors import PipelineError, SettingsError
from opsengine.store import ContentStore

VERSION = "3b49fba8-94d8-4fca-aecc-c75257fd16c6"
SIDES = ("inputs", "outputs")


@pytest.fixture
def folder(registry, tmp_path):
    return laid_out(registry, tmp_path, [("by-2", "m1", models.scale(2.0), ["tensor"])])


def laid_out(registry, tmp_path, parts):
    """What the layer of a self-contained image has under /pipeline."""
    _url, digest = publish(registry, "scale", VERSION, parts)
    manifest = registry.blobs[digest]
    root = tmp_path / "pipeline"
    for layer in included.orjson.loads(manifest)["layers"]:
        path = root / layer["annotations"]["org.cncf.model.filepath"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(registry.blobs[layer["digest"]])
    (root / "manifest.json").write_bytes(manifest)
    return root


def test_it_serves_with_no_other_setting_and_asks_no_registry(start_engine, registry, folder):
    engine = start_engine(PIPELINE_DIR=folder).ready()
    assert engine.post("/infer", [{"tensor": [1.0, 2.0]}])[1][0]["out"] == {"y": [2.0, 4.0]}
    assert registry.requests == []


def test_any_path_will_do(start_engine, folder):
    engine = start_engine(PIPELINE_DIR=folder.rename(folder.parent / "My Models: für alle")).ready()
    assert engine.post("/infer", [{"tensor": [1.0, 2.0]}])[1][0]["out"] == {"y": [2.0, 4.0]}


def test_it_serves_again_after_a_restart(start_engine, folder):
    engine = start_engine(PIPELINE_DIR=folder).ready()
    engine.stop()
    engine.start()
    engine.ready()
    assert engine.post("/infer", [{"tensor": [1.0, 2.0]}])[1][0]["out"] == {"y": [2.0, 4.0]}


def test_python_step_leaves_the_folder_as_it_is(start_engine, registry, tmp_path):
    manifest = {
        "class": "step:Step",
        **{side: [{"name": "x", "type": "float32", "shape": [None, 2]}] for side in SIDES},
    }
    step = zipped(manifest, {"step.py": "class Step:\n    def predict(self, inputs):\n        return inputs\n"})
    folder = laid_out(registry, tmp_path, [("prepare", "p1", step, ["tensor"], {"runtime": "python"})])
    before = sorted(folder.rglob("*"))
    engine = start_engine(PIPELINE_DIR=folder).ready()
    assert engine.post("/infer", [{"tensor": [1.0, 2.0]}])[1][0]["out"] == {"x": [1.0, 2.0]}
    assert sorted(folder.rglob("*")) == before  # an image is read-only


def test_a_damaged_model_is_not_served(start_engine, folder):
    path = next((folder / "models").rglob("*.onnx"))
    path.write_bytes(path.read_bytes() + b"x")
    engine = start_engine(PIPELINE_DIR=folder)
    assert engine.wait() == 1
    assert "is not the file that was published" in engine.log and "Traceback" not in engine.log


def test_an_empty_folder_is_a_wrong_setting(tmp_path):
    with pytest.raises(SettingsError, match=r"PIPELINE_DIR is .*manifest.json cannot be read"):
        settings.read({"PIPELINE_DIR": str(tmp_path)})


def test_an_explicit_location_goes_before_the_folder(folder):
    found = settings.read({"PIPELINE_DIR": str(folder), "PIPELINE_URL": "r.io/ml/p:1"})
    assert (found.pipeline_url, found.pipeline_dir) == ("r.io/ml/p:1", None)


def test_a_path_out_of_the_folder_is_refused(folder, tmp_path):
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"pipeline.json"', b'"../secret"'))
    (tmp_path / "secret").write_text("x")
    with pytest.raises(PipelineError, match="names a file that is not in it"):
        included.lend(folder, ContentStore(tmp_path / "store"))


def test_verify_and_pull_know_the_folder(start_engine, folder, tmp_path):
    engine = start_engine(PIPELINE_DIR=folder).ready()
    engine.stop()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "engine/src"),
        "PERSIST_DIR": str(engine.folder / "persist"),
        "PIPELINE_DIR": str(folder),
    }
    digest = included.digest_of(folder)
    for verb, says in (("verify", f"publish {digest}: right."), ("pull", digest)):
        command = [sys.executable, "-m", "opsengine", verb]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout.strip()) == (0, says), done.stderr


def test_a_required_signature_is_the_images_to_have(folder, monkeypatch):
    monkeypatch.setattr(settings.evidence, "read_key", lambda text: text)
    with pytest.raises(SettingsError, match="has no signature of its own"):
        settings.read({"PIPELINE_DIR": str(folder), "COSIGN_PUBLIC_KEY": "key"})
