"""The container image: needs no root, no capability, no writable root; serves again after a kill without a network.

Needs Docker and a built image (`make images`), named by OPSCENTER_TEST_ENGINE_IMAGE.
"""

import os
import shutil
import subprocess
import uuid

import pytest

from engine.tests.conftest import EngineProcess, eventually
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_main_job import V1

IMAGE = os.environ.get("OPSCENTER_TEST_ENGINE_IMAGE")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (IMAGE and shutil.which("docker")), reason="needs Docker and OPSCENTER_TEST_ENGINE_IMAGE"),
]
ROW = [{"tensor": [1.0, 2.0]}]


def docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def container(tmp_path, registry):
    """Start the image on the host's network; what is returned speaks to it over HTTP."""
    url, _ = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    name = f"opsengine-test-{uuid.uuid4().hex[:8]}"

    def start(*options):
        speaker = EngineProcess(tmp_path)
        env = ["-e", f"ENGINE_PORT={speaker.port}", "-e", f"PIPELINE_URL={url}"]
        docker("run", "--detach", "--name", name, "--network", "host", "--read-only", *options, *env, IMAGE)
        speaker.name = name
        return speaker

    yield start
    subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)


def ready(speaker):
    def is_ready():
        try:
            return speaker.get("/readyz")[0] == 200
        except OSError:
            return False

    eventually(is_ready, 120)  # an image of another processor runs through QEMU, ten times as slow
    assert speaker.post("/infer", ROW)[1][0]["out"] == {"y": [2.0, 4.0]}


def test_serves_as_an_ordinary_user_and_again_offline_after_a_kill(container, registry):
    speaker = container("--user", "10001", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    ready(speaker)
    assert "Uid:\t10001" in docker("exec", speaker.name, "cat", "/proc/1/status")
    docker("kill", "--signal", "KILL", speaker.name)
    registry.stop()
    docker("start", speaker.name)
    ready(speaker)
    assert len(speaker.post("/logs", {})[1]) == 2
    assert "Serving." in docker("exec", speaker.name, "opsengine", "status")
    eventually(lambda: docker("inspect", "-f", "{{.State.Health.Status}}", speaker.name) == "healthy", 120)
    docker("stop", speaker.name)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", speaker.name) == "0"


def test_documented_bind_mount_works_and_root_is_left(container, tmp_path):
    speaker = container("--volume", f"{tmp_path / 'data'}:/persist")  # Docker makes the folder, as root
    ready(speaker)
    assert "Uid:\t10001" in docker("exec", speaker.name, "cat", "/proc/1/status")
    assert (tmp_path / "data").stat().st_uid == 10001
