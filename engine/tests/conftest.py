"""Fixtures: a registry, a center, and the engine as the process that users start."""

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from engine.tests.fakes.center import FakeCenter
from engine.tests.fakes.registry import FakeRegistry, publish
from opsengine import pipeline, selection
from opsengine.plane import DataPlane
from opsengine.store import ContentStore

ROOT = Path(__file__).resolve().parents[2]
JSON = "application/json; format=pandas-records"
ARROW = "application/vnd.apache.arrow.file"


def eventually(check, seconds=10.0, why="the expected did not happen"):
    """Wait until `check()` is true; returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{why} within {seconds} s")


def in_a_loop(coroutine):
    """Run it in a thread of its own: a browser that was tested before leaves a loop running in this one."""
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(asyncio.run, coroutine).result()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class EngineProcess:
    """`python -m opsengine serve`, its log in `log`."""

    answer_seconds = 10.0

    def __init__(self, folder, **env):
        self.folder, self.env = folder, env
        self.port = int(env.get("ENGINE_PORT", 0)) or free_port()
        self.log_path = folder / "engine.log"
        self._process = None

    def start(self):
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        env = {
            **keep,
            "PYTHONPATH": str(ROOT / "engine" / "src"),
            "ENGINE_HOST": "127.0.0.1",
            "ENGINE_PORT": str(self.port),
            "PERSIST_DIR": str(self.folder / "persist"),
            "CHECKIN_SECONDS": "0.2",
            **{name: str(value) for name, value in self.env.items()},
        }
        with self.log_path.open("ab") as log:
            command = [sys.executable, "-m", "opsengine", "serve"]
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        return self

    def ready(self, seconds=15.0):
        def is_ready():
            if self._process.poll() is not None:
                raise AssertionError(f"the engine ended with {self._process.returncode}:\n{self.log}")
            try:
                return self.get("/readyz")[0] == 200
            except OSError:
                return False

        try:
            eventually(is_ready, seconds, "the engine was not ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None
        return self

    @property
    def log(self):
        return self.log_path.read_text()

    def wait(self, seconds=15.0):
        return self._process.wait(seconds)

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(5)

    def stop(self, by=signal.SIGTERM):
        """Ask it to end, wait until it has, however slow the disk is, and return the exit code.

        That it bounds its own end by less than the ten seconds that it is given is proved in test_stop.py.
        """
        if self._process is None or self._process.poll() is not None:
            return self._process and self._process.returncode
        self._process.send_signal(by)
        return self._process.wait(120)

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.answer_seconds)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def get(self, path):
        status, _, body = self.call("GET", path)
        return status, orjson.loads(body)

    def post(self, path, told, **headers):
        body = told if isinstance(told, bytes) else orjson.dumps(told)
        status, _, answer = self.call("POST", path, body, {"Content-Type": JSON, **headers})
        return status, orjson.loads(answer)


@pytest.fixture
def registry():
    server = FakeRegistry()
    yield server
    server.stop()


@pytest.fixture
def center():
    server = FakeCenter()
    yield server
    server.stop()
    assert server.faults == [], "the engine broke the contract"


@pytest.fixture
def start_engine(tmp_path):
    """Start an engine in this test's folder; a second call with no changes starts it again on the same state."""
    running = []

    def start(**env):
        engine = EngineProcess(tmp_path, **env).start()
        running.append(engine)
        return engine

    yield start
    for engine in running:
        if engine._process.poll() is None:
            engine.stop()


@pytest.fixture(scope="session")
def data():
    """Real models and inputs with known answers."""
    folder = Path(os.environ.get("OPSCENTER_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real models are not on this machine (OPSCENTER_TEST_DATA)")
    return folder


class Shelf:
    """Takes artifacts like a registry, straight into a content store."""

    host = "registry.example.com"

    def __init__(self, store):
        self.put = store.write

    def push(self, repository, tag, manifest):
        return self.put(orjson.dumps(manifest))


@pytest.fixture
def store(tmp_path):
    return ContentStore(tmp_path / "store")


@pytest.fixture
def load_pipeline(store):
    """Load a pipeline of models (name, version, bytes, tensor_fields) without a registry."""

    def load(*parts, name="small", version="3b49fba8-94d8-4fca-aecc-c75257fd16c6", **changes):
        _, digest = publish(Shelf(store), name, version, parts, **changes)
        return pipeline.load(digest, store, 1, "edge-1")

    return load


@pytest.fixture
def infer(load_pipeline):
    """A data plane on the given models: `infer(records, (name, version, bytes, fields), ...)` gives answer rows."""

    def call(records, *parts, query="", kind=JSON, **changes):
        plane = DataPlane(call.logged.append, 64 * 2**20)
        plane.swap(load_pipeline(*parts, **changes))
        body = records if isinstance(records, bytes) else orjson.dumps(records)
        return orjson.loads(plane.infer(body, kind, as_arrow=False, selection=selection.parse(query)))

    call.logged = []
    return call
