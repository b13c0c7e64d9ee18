"""The image for arm64: its answers are those of this machine's engine. `make arm64` builds it and runs these.

Elsewhere they skip, CI too: emulated, they take minutes. OPSCENTER_TEST_ENGINE_IMAGE_ARM64 names the image.
"""

import os
import shutil
import subprocess
import time
import uuid

import numpy as np
import onnxruntime as ort
import pytest

from engine.tests.conftest import EngineProcess, eventually
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_image import docker
from engine.tests.test_main_job import V1
from engine.tests.test_real_models import FOUND

IMAGE = os.environ.get("OPSCENTER_TEST_ENGINE_IMAGE_ARM64")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (IMAGE and shutil.which("docker")), reason="needs an image for arm64: `make arm64`"),
]
MODELS = {"scale": lambda: models.scale(2.0)} | {path.stem: path.read_bytes for path in FOUND}
ROWS = 20
# An emulator is twenty times as slow, and that of a busy machine slower still.
SECONDS = 900


@pytest.fixture
def container(tmp_path):
    """Start the image as an ordinary user with a volume, on the host's network; it stops and goes with the test."""
    name = f"opsengine-arm64-{uuid.uuid4().hex[:8]}"
    speaker = EngineProcess(tmp_path)
    speaker.answer_seconds = SECONDS

    def start(url):
        bare = ["--user", "10001", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        place = ["--network", "host", "--volume", f"{name}:/persist", "--env", f"ENGINE_PORT={speaker.port}"]
        docker("run", "--detach", "--name", name, *bare, *place, "--env", f"PIPELINE_URL={url}", IMAGE)
        speaker.name = name
        eventually(lambda: is_ready(speaker), SECONDS, "the engine for arm64 was not ready")
        return speaker

    yield start
    subprocess.run(["docker", "logs", name], check=False)
    subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
    subprocess.run(["docker", "volume", "rm", name], capture_output=True, check=False)


def is_ready(speaker):
    running = docker("inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}", speaker.name)
    if not running.startswith("true"):
        pytest.fail(f"the container ended with {running}:\n{docker('logs', speaker.name)}")
    try:
        return speaker.get("/readyz")[0] == 200
    except OSError:
        return False


def rows_for(model):
    """Some rows that the model takes, the same ones each time."""
    (node,) = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()
    shape = [length if isinstance(length, int) else 1 for length in node.shape[1:]]
    values = np.random.default_rng(7).random((ROWS, *shape)).astype(np.float32)
    return [{"tensor": row.tolist()} for row in values]


def test_image_says_that_it_is_for_arm64():
    assert (
        docker("image", "inspect", "-f", "{{.Os}}/{{.Architecture}} {{.Config.User}}", IMAGE).strip() == "linux/arm64"
    )


@pytest.mark.parametrize("name", MODELS)
def test_it_answers_as_the_engine_of_this_machine_and_logs_and_stops(container, start_engine, registry, name):
    model = MODELS[name]()
    url, _ = publish(registry, "golden", V1, [(name, "m1", model, ["tensor"])])
    rows, here = rows_for(model), start_engine(PIPELINE_URL=url)
    status, wanted = here.ready(SECONDS).post("/infer", rows)
    assert status == 200

    began = time.monotonic()
    there = container(url)
    print(f"{name}: /readyz is 200 after {time.monotonic() - began:.0f} s")
    machine, process = docker("exec", there.name, "uname", "-m"), docker("exec", there.name, "cat", "/proc/1/status")
    assert machine == "aarch64" and "Uid:\t10001" in process
    docker("exec", there.name, "python3", "-m", "opsengine.health")  # what HEALTHCHECK asks

    status, answers = there.post("/infer", rows)
    assert status == 200, answers
    print(f"{name}: {len(answers)} answers, the largest difference is {compare(answers, wanted):.2g}")
    status, logged = there.post("/logs", {})
    assert [row["out"] for row in logged] == [row["out"] for row in answers]
    assert "rows.sqlite" in docker("exec", there.name, "ls", "/persist/logs").split()

    docker("stop", "--time", str(SECONDS), there.name)
    code = docker("inspect", "-f", "{{.State.ExitCode}}", there.name)
    print(f"{name}: {machine}, user 10001, {len(logged)} rows in /logs, exit code {code} after SIGTERM")
    assert code == "0"


def compare(answers, wanted):
    """The largest difference (relative for numbers above 1); asserts that it is one of rounding, and all else equal."""
    assert len(answers) == len(wanted) == ROWS
    assert [sorted(row["out"]) for row in answers] == [sorted(row["out"]) for row in wanted]
    largest = 0.0
    for got, row in zip(answers, wanted, strict=True):
        assert (got["in"], got["anomaly"]) == (row["in"], row["anomaly"])
        assert got["metadata"]["pipeline_version"] == row["metadata"]["pipeline_version"] == V1
        for name, expected in row["out"].items():
            np.testing.assert_allclose(got["out"][name], expected, rtol=1e-4, atol=1e-5)
            scale = np.maximum(np.abs(expected), 1.0)
            largest = max(largest, float(np.max(np.abs(np.subtract(got["out"][name], expected)) / scale)))
    return largest
