"""Registries that publishing is tested against: a faulty one in this process, and a real one beside it."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalog.models import PipelineVersion, User
from publishing import engine_config
from publishing.models import Publish, RegistrySettings
from publishing.oci import blobs, images, manifests
from publishing.oci.blobs import Blob, of_bytes
from publishing.oci.client import Client, Registry, Retries
from publishing.oci.manifests import Manifest
from tests.fakes.oci import FakeRegistry


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """`connect(fake)` is a client that knows its password and retries without waiting."""
    opened: list[Client] = []

    def make(registry: FakeRegistry, **changes: Any) -> Client:
        fields = {"username": registry.username, "password": registry.password, "plain_http": True}
        retries = changes.pop("retries", Retries(tries=4, first=0.001, most=0.002))
        sleep = changes.pop("sleep", time.sleep)
        client = Client(Registry(registry.host, **(fields | changes)), retries=retries, sleep=sleep)
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__()


@pytest.fixture
def make_blob() -> Callable[..., Blob]:
    def make(content: bytes = b"weights", title: str = "model.onnx") -> Blob:
        return of_bytes(content, "application/vnd.cncf.model.weight.v1.raw", title)

    return make


def tool(name: str) -> str:
    """The path of a program that a test runs for real; skips the test where it is not installed."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


@dataclass(frozen=True)
class RealRegistry:
    host: str
    username: str
    password: str
    folder: Path


@pytest.fixture(scope="session")
def real_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """CNCF distribution with a password, on a free port."""
    program, htpasswd = tool("docker-registry"), tool("htpasswd")
    folder = tmp_path_factory.mktemp("registry")
    username, password = "robot$ml+pusher", "real s3cret"
    line = subprocess.run([htpasswd, "-Bbn", username, password], capture_output=True, text=True, check=True).stdout
    (folder / "htpasswd").write_text(line)
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: {host}}}\nauth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"
    )
    log = (folder / "log").open("w")
    process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait_for(host, process, folder)
        yield RealRegistry(host, username, password, folder)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _wait_for(host: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"http://{host}/v2/", timeout=1).close()
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code == 401:
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"docker-registry did not start: {(folder / 'log').read_text()[-500:]}")


@pytest.fixture
def to_registry(db: None) -> Callable[..., RegistrySettings]:
    """`to_registry(host, …)` makes the registry settings point there."""

    def make(host: str, **fields: Any) -> RegistrySettings:
        values = {"registry": host, "repository": "ml", "plain_http": True}
        RegistrySettings.objects.filter(pk=1).delete()
        return RegistrySettings.objects.create(pk=1, **(values | fields))

    return make


@pytest.fixture
def to_fake(fake: FakeRegistry, to_registry: Callable[..., RegistrySettings]) -> FakeRegistry:
    """The fake registry, configured to be published to."""
    to_registry(fake.host, username=fake.username, password=fake.password)
    return fake


@pytest.fixture
def make_publish(owner: User, make_pipeline_version: Callable[..., PipelineVersion]) -> Callable[..., Publish]:
    """A publish that waits, of a version of one small model."""

    def make(version: PipelineVersion | None = None, **fields: Any) -> Publish:
        values = {"engine_config": engine_config.checked(None), "created_by": owner}
        return Publish.objects.create(pipeline_version=version or make_pipeline_version(), **(values | fields))

    return make


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs retry and record without the pauses of real life."""
    monkeypatch.setattr("publishing.jobs.RETRIES", Retries(first=0.001, most=0.001))
    monkeypatch.setattr("publishing.jobs.RECORD_SECONDS", 0.01)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Any]]]:
    """What was put on the queue, instead of putting it there: (task name, arguments)."""
    found: list[tuple[str, list[Any]]] = []

    def record(self: Any, name: str, args: Any = None, *rest: Any, **options: Any) -> None:
        found.append((name, list(args or ())))

    def record_own(self: Any, args: Any = None, *rest: Any, **options: Any) -> None:
        found.append((self.name, list(args or ())))

    monkeypatch.setattr("celery.Celery.send_task", record)
    monkeypatch.setattr("celery.app.task.Task.apply_async", record_own)
    return found


@pytest.fixture
def make_image() -> Callable[..., str]:
    """`make_image(client, repository, tag, platforms)` pushes a small image, an index with platforms; its digest."""

    def one(client: Client, repository: str, platform: str) -> Manifest:
        layer = of_bytes(f"layer of {platform}".encode() * 1000, "application/vnd.oci.image.layer.v1.tar", "layer")
        told = {
            "architecture": platform.rpartition("/")[2] or "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Entrypoint": ["opsengine"], "User": "10001"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
            "history": [{"created_by": "test"}],
        }
        config = of_bytes(json.dumps(told).encode(), "application/vnd.oci.image.config.v1+json", "config")
        manifest = {"schemaVersion": 2, "mediaType": manifests.IMAGE, "config": config.descriptor()}
        content = json.dumps(manifest | {"layers": [layer.descriptor()]}).encode()
        blobs.push_all(client, repository, [config, layer], lambda more: None)
        return Manifest(content, manifests.IMAGE)

    def make(client: Client, repository: str, tag: str, platforms: tuple[str, ...] = ()) -> str:
        if not platforms:
            top = one(client, repository, "")
            manifests.put(client, repository, tag, top)
            return top.digest
        entries = []
        for platform in platforms:
            manifest = one(client, repository, platform)
            manifests.put(client, repository, manifest.digest, manifest)
            system, _, arch = platform.partition("/")
            entries.append(
                {"mediaType": manifests.IMAGE, "digest": manifest.digest, "size": len(manifest.content)}
                | {"platform": {"os": system, "architecture": arch}}
            )
        top = images.index_of(entries)
        manifests.put(client, repository, tag, top)
        return top.digest

    return make
