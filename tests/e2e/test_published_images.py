"""With a real Docker: images that were published run by the commands that are printed.

The engine image is made here on `opscenter-test-base` (Debian with Python), pushed to `docker-registry`, published by a
running center, and pulled and run by Docker.
"""

import functools
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from engine.tests.fakes import models
from examples.center import Center, free_port, wait_for
from tests.e2e import centers

pytestmark = pytest.mark.e2e

BASE = "opscenter-test-base"
NEEDS = (
    *("cryptography", "flatbuffers", "httptools", "numpy", "onnxruntime", "orjson", "prometheus-client", "pyarrow"),
    *("pyjwt", "pysimdjson", "urllib3", "uvloop"),
)
DOCKERFILE = f"""
FROM {BASE}
COPY site /app/site
COPY src /app/src
RUN mkdir -p /persist && chown 10001:10001 /persist
ENV PYTHONPATH=/app/src:/app/site RUN_AS=10001
VOLUME /persist
ENTRYPOINT ["python3", "-m", "opsengine", "serve"]
"""


def run(*words: str, **options: Any) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def docker() -> str:
    """Docker's program, where a daemon and the base image are."""
    program = shutil.which("docker")
    if not program:
        pytest.skip("docker is not installed")
    if subprocess.run([program, "info"], capture_output=True, timeout=30).returncode:
        pytest.skip("no Docker daemon is running")
    if subprocess.run([program, "image", "inspect", BASE], capture_output=True, timeout=30).returncode:
        pytest.skip(f"the image {BASE} is not there: make it with debootstrap and Python {sys.version_info[:2]}")
    return program


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """CNCF distribution without a login."""
    program = shutil.which("docker-registry")
    if not program:
        pytest.skip("docker-registry is not installed")
    folder = tmp_path_factory.mktemp("registry")
    host = f"127.0.0.1:{free_port()}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: {host}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        wait_for("the registry", lambda: centers.status_of(f"http://{host}/v2/") == 200)
        yield host
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def engine_image(docker: str, registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The engine of this tree with the packages of this Python, in the registry."""
    context = tmp_path_factory.mktemp("context")
    for name in distributions(NEEDS):
        copy_distribution(name, context / "site")
    shutil.copytree(centers.ROOT / "engine" / "src", context / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (context / "Dockerfile").write_text(DOCKERFILE)
    name = f"{registry}/sources/opsengine:test"
    run(docker, "build", "-q", "-t", name, str(context), env=os.environ | {"DOCKER_BUILDKIT": "0"})
    run(docker, "push", "-q", name)
    run(docker, "rmi", name)
    yield name
    pulled = run(docker, "images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    for one in (image for image in pulled if image.startswith(f"{registry}/")):
        subprocess.run([docker, "rmi", "-f", one], capture_output=True)


def distributions(names: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        requires = importlib.metadata.distribution(name).requires or []
        todo += [re.match(r"[\w.-]+", line)[0] for line in requires if "extra ==" not in line]  # type: ignore[index]
    return found


def copy_distribution(name: str, target: Path) -> None:
    for file in importlib.metadata.distribution(name).files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            place = target / str(file)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), place)


@dataclass
class Published:
    center: Center
    pipeline: int
    publish: dict[str, Any]
    edge: dict[str, Any]

    def command(self, title: str) -> str:
        """What is printed for the edge."""
        commands = self.edge["commands"]
        return next(command["text"] for command in commands if command["title"] == title)


@pytest.fixture(scope="module")
def published(
    registry: str, engine_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Published]]:
    """`published(packaging)`: a pipeline that doubles, published by a running center, with an edge."""
    settings = {
        "OCI_REGISTRY": registry,
        "OCI_REPOSITORY": "ml",
        "OCI_PLAIN_HTTP": "true",
        "ENGINE_IMAGE": engine_image,
    }
    with centers.embedded(tmp_path_factory.mktemp("center"), **settings) as running:
        api = running.api()
        workspace = api.post("workspaces", {"name": "images"})["id"]

        @functools.cache
        def make(packaging: str) -> Published:
            name = f"doubles-{packaging}"
            model = api.upload(workspace, name, models.scale(2.0), tensor_fields="tensor")
            pipeline = api.post(f"workspaces/{workspace}/pipelines", {"name": name})
            step = {"ModelInference": {"models": [{"name": name, "version": model["version"]}]}}
            api.post(f"pipelines/{pipeline['id']}/versions", {"steps": [step]})
            publish = api.post(f"pipelines/{pipeline['id']}/publishes", {"packaging": packaging})

            def finished() -> Any:
                found = api.get(f"publishes/{publish['id']}")
                return found if found["status"] in {"Published", "Error"} else None

            publish = wait_for("the publish", finished)
            assert publish["status"] == "Published", publish["error"]
            edge = api.post(f"publishes/{publish['id']}/edges", {"name": f"site-{packaging}"})
            return Published(api, pipeline["id"], publish, edge)

        yield make


@pytest.fixture
def start(docker: str, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Runs a printed command in an empty folder; answers the engine's URL.

    Only the network is changed, since the center and the registry of the test listen on this machine alone, and the
    user where one is given: an image may have a fixed one, to whom the volume must belong as well.
    """
    names: list[str] = []
    volumes: list[str] = []

    def begin(command: str, user: str = "", **variables: str) -> str:
        port, name = free_port(), f"opscenter-test-{free_port()}"
        assert "-p 8080:8080" in command
        here = f"-d --name {name} --network host -e ENGINE_PORT={port} -e CHECKIN_SECONDS=1"
        here += f" --user {user}" if user else ""
        names.append(name)
        volumes.extend(re.findall(r"-v (\S+):/persist", command))
        text = command.replace("-p 8080:8080", here)
        run("sh", "-c", text, cwd=tmp_path, env=os.environ | variables)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for("the engine", lambda: centers.status_of(f"{url}/readyz") == 200, 60)
        except Exception as exc:
            logs = subprocess.run([docker, "logs", name], capture_output=True, text=True)
            raise AssertionError(f"{exc}\n{text}\n{logs.stdout}{logs.stderr}") from exc
        return url

    yield begin
    for name in names:
        subprocess.run([docker, "rm", "-f", name], capture_output=True)
    for volume in volumes:
        subprocess.run([docker, "volume", "rm", volume], capture_output=True)


def infer(url: str) -> list[Any]:
    body = json.dumps([{"tensor": [1.0, 2.0]}, {"tensor": [3.0, 4.0]}])
    headers = {"Content-Type": "application/json; format=pandas-records"}
    answer = urllib3.request("POST", f"{url}/infer", body=body, headers=headers)
    assert answer.status == 200, answer.data
    return [record["out"] for record in answer.json()]


def shipped(one: Published) -> Any:
    rows, _cursor = one.center.logs(one.pipeline)
    return rows if len(rows) == 2 else None


def test_the_self_contained_image_serves_and_ships_by_its_printed_command(
    published: Callable[[str], Published], start: Callable[..., str]
) -> None:
    one = published("image")
    url = start(one.command("docker run, one image"))
    assert infer(url) == [{"y": [2.0, 4.0]}, {"y": [6.0, 8.0]}]
    rows = wait_for("the logs", lambda: shipped(one))
    assert {row["metadata"]["partition"] for row in rows} == {"site-image"}
    path = f"edges/{one.edge['id']}"
    wait_for("the center to see what is served", lambda: one.center.get(path)["status"]["is_serving"])


def test_the_self_contained_image_needs_no_variables_at_all(
    docker: str, published: Callable[[str], Published], tmp_path: Path
) -> None:
    """No port mapped, no volume, no environment: it serves its models in its own network."""
    image = published("image")
    name = f"opscenter-test-{free_port()}"
    run(docker, "run", "-d", "--name", name, image.publish["image_url"])
    try:
        address = run(docker, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", name)
        url = f"http://{address}:8080"
        wait_for("the engine", lambda: centers.status_of(f"{url}/readyz") == 200)
        assert infer(url) == [{"y": [2.0, 4.0]}, {"y": [6.0, 8.0]}]
        env = json.loads(run(docker, "inspect", "-f", "{{json .Config.Env}}", name))
        assert "PIPELINE_DIR=/pipeline" in env and not any("PIPELINE_URL" in line for line in env)
    finally:
        run(docker, "rm", "-f", name)


def test_the_copied_engine_image_serves_and_ships_by_its_printed_command(
    published: Callable[[str], Published], start: Callable[..., str], engine_image: str
) -> None:
    one = published("artifact")
    assert one.publish["engine_url"] == engine_image.replace("/sources/", "/ml/engines/")
    url = start(one.command("docker run"), user="10001:10001", OCI_USERNAME="", OCI_PASSWORD="")
    assert infer(url) == [{"y": [2.0, 4.0]}, {"y": [6.0, 8.0]}]
    wait_for("the logs", lambda: shipped(one))
