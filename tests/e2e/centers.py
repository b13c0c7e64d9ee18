"""Whole centers as processes, in the two shapes that we ship."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import urllib3
import yaml
from cryptography.fernet import Fernet

from examples.center import Center as Api
from opscenter import lifetime
from scripts.services import free_port

ROOT = Path(__file__).resolve().parents[2]
# For tests of what pages do in a browser, which is the same in both shapes: the second one would double their minutes.
EMBEDDED = pytest.mark.parametrize("center", ["embedded"], indirect=True, scope="session")
READY_SECONDS = 60
ADMIN_EMAIL = "admin@example.com"


@dataclass
class RunningCenter:
    """A center that answers at `url`. `registry` is what an engine's environment needs to pull from it."""

    shape: str
    url: str
    data: Path
    environment: dict[str, str]
    registry: dict[str, str]
    admin_email: str
    admin_password: str
    log: Path
    commands: dict[str, list[str]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _api: Api | None = None

    def api(self) -> Api:
        """The REST API, logged in as the administrator: once, for a center lets nobody log in twenty times a minute."""
        if self._api is None:
            self._api = Api(self.url, self.admin_email, self.admin_password)
        return self._api

    def start(self, role: str) -> subprocess.Popen[bytes]:
        """Starts a role's process (`run`, the supervisor of all roles, in the embedded shape)."""
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                self.commands[role],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lifetime.end_with_parent,
            )
        self.processes[role] = process
        return process

    def pid(self, role: str) -> int:
        """The process of `web`, `worker` or `beat`. Raises `LookupError` while there is none."""
        if role in self.processes:
            return self.processes[role].pid
        names = {"web": "granian", "worker": "worker", "beat": "beat"}
        for child in _children(self.processes["run"].pid):
            if names[role] in _words(child):
                return child
        raise LookupError(f"{self.shape} has no {role} at the moment")

    def kill(self, role: str) -> None:
        """kill -9, as a container runtime or an out-of-memory killer does. The embedded shape restarts it by itself."""
        if role in self.processes:
            os.killpg(self.processes[role].pid, signal.SIGKILL)
            self.processes[role].wait()
        else:
            os.kill(self.pid(role), signal.SIGKILL)

    def restart(self, role: str) -> None:
        """Kills a role and brings it back: by us as by a container runtime, or by the center itself."""
        before = self.pid(role)
        self.kill(role)
        if role in self.processes:
            self.start(role)
        else:
            wait_until(lambda: self._is_replaced(role, before), f"{role} to come back", self.log)
        self.wait_until_ready()

    def _is_replaced(self, role: str, before: int) -> bool:
        try:
            return self.pid(role) != before
        except LookupError:
            return False

    def wait_until_ready(self) -> None:
        """Returns when `/readyz` answers 200."""
        wait_until(lambda: status_of(f"{self.url}/readyz") == 200, f"{self.url} to be ready", self.log)

    def stop(self) -> None:
        """Asks every process to end and waits for it."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(word) for word in listed.split()]


def _words(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    except FileNotFoundError:
        return []


def status_of(url: str) -> int:
    """The answer's status; 0 when there is none."""
    try:
        return int(urllib3.request("GET", url, retries=False, timeout=5).status)
    except urllib3.exceptions.HTTPError:
        return 0


def wait_until(holds: Any, what: str, log: Path, seconds: float = READY_SECONDS) -> None:
    """Polls until `holds()` is true; fails with the end of the log."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-3000:] if log.exists() else ""
    raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}\n{tail}")


def needed(*names: str) -> list[str]:
    """The variables by which `scripts.services` tells of a running service; skips the test without them."""
    values = [os.environ.get(name, "") for name in names]
    for name, value in zip(names, values, strict=True):
        if not value:
            pytest.skip(f"the service of {name} is not installed, or not started by `make test`")
    return values


def _clean_environment() -> dict[str, str]:
    """Ours, without what would configure the center."""
    ours = ("OPSCENTER_", "OCI_", "DJANGO_", "DATABASE_URL", "REDIS_URL", "PORT", "ENGINE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@contextmanager
def embedded(folder: Path, address: str = "127.0.0.1", **settings: str) -> Iterator[RunningCenter]:
    """`manage.py run`: SQLite, a folder as queue, the built-in registry. `settings` are more variables."""
    port, password = free_port(), secrets.token_urlsafe(12)
    environment = _clean_environment() | {
        "PORT": str(port),
        "OPSCENTER_DATA": str(folder),
        "OPSCENTER_ADMIN_EMAIL": ADMIN_EMAIL,
        "OPSCENTER_ADMIN_PASSWORD": password,
        "OPSCENTER_REGISTRY_PASSWORD": "registry-" + password,
        "OPSCENTER_EDGE_CHECKIN_SECONDS": "1",
        "OPSCENTER_BIND": address,
        "OPSCENTER_PUBLIC_URL": f"http://{address}:{port}",
        **settings,
    }
    registry = {
        "OCI_REGISTRY": f"{address}:{port}",
        "OCI_USERNAME": "opscenter",
        "OCI_PASSWORD": environment["OPSCENTER_REGISTRY_PASSWORD"],
    }
    url, log = f"http://{address}:{port}", folder / "center.log"
    center = RunningCenter("embedded", url, folder, environment, registry, ADMIN_EMAIL, password, log)
    center.commands["run"] = [sys.executable, "-m", "opscenter.roles", "run"]
    try:
        center.start("run")
        center.wait_until_ready()
        yield center
    finally:
        center.stop()


@contextmanager
def production(folder: Path, **settings: str) -> Iterator[RunningCenter]:
    """What docker-compose.yml starts, without the containers: a process a service, its command and environment from
    that file, on a PostgreSQL database and a Redis database of its own and the reference registry."""
    postgres, redis_url, registry = needed("TEST_POSTGRES_URL", "TEST_REDIS_URL", "TEST_REGISTRY")
    port, name = free_port(), f"e2e_{secrets.token_hex(4)}"
    filled = {
        "OPSCENTER_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "OPSCENTER_BEHIND_PROXY": "false",
        "OPSCENTER_SECRET_KEY": secrets.token_urlsafe(64),
        "OPSCENTER_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "OPSCENTER_ADMIN_EMAIL": ADMIN_EMAIL,
        "OPSCENTER_ADMIN_PASSWORD": secrets.token_urlsafe(12),
        "POSTGRES_PASSWORD": "elsewhere",
        "REDIS_PASSWORD": "elsewhere",
        "OCI_REGISTRY": registry,
        "OCI_REPOSITORY": name,
        "OCI_USERNAME": os.environ.get("TEST_REGISTRY_USERNAME", ""),
        "OCI_PASSWORD": os.environ.get("TEST_REGISTRY_PASSWORD", ""),
        "OCI_PLAIN_HTTP": "true",
    }
    services = compose_services(filled)
    # Only what the container network and the mounted volume decide is ours.
    here = {
        "DATABASE_URL": postgres.rsplit("/", 1)[0] + f"/{name}",
        "REDIS_URL": redis_url,
        "OPSCENTER_DATA": str(folder),
        "PORT": str(port),
        "OPSCENTER_EDGE_CHECKIN_SECONDS": "1",
        **settings,
    }
    environment = _clean_environment() | services["web"]["environment"] | here
    login = {name: filled[name] for name in ("OCI_REGISTRY", "OCI_USERNAME", "OCI_PASSWORD", "OCI_PLAIN_HTTP")}
    log, password = folder / "center.log", filled["OPSCENTER_ADMIN_PASSWORD"]
    center = RunningCenter(
        "production", filled["OPSCENTER_PUBLIC_URL"], folder, environment, login, ADMIN_EMAIL, password, log
    )
    center.commands = {role: image_entrypoint() + services[role]["command"] for role in roles(services)}
    with _database(postgres, name):
        redis.Redis.from_url(redis_url).flushdb()
        try:
            assert center.start("bootstrap").wait(READY_SECONDS) == 0, log.read_text()
            del center.processes["bootstrap"]
            for role in ("web", "worker", "beat"):
                center.start(role)
            center.wait_until_ready()
            yield center
        finally:
            center.stop()


@contextmanager
def _database(server: str, name: str) -> Iterator[None]:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def compose_services(values: dict[str, str]) -> dict[str, Any]:
    """The services of docker-compose.yml with the values filled in as Compose does. Fails on a missing value."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    filled: dict[str, Any] = json.loads(_fill(json.dumps(services), values))
    return filled


def _fill(text: str, values: dict[str, str]) -> str:
    def replacement(match: re.Match[str]) -> str:
        name, operator, word = match["name"], match["operator"], match["word"]
        if values.get(name):
            return json.dumps(values[name])[1:-1]
        if operator == ":-":
            return word
        raise KeyError(f"{name}: {word}")

    return re.sub(r"(?<!\$)\$\{(?P<name>\w+)(?P<operator>:[-?])(?P<word>[^}]*)\}", replacement, text).replace("$$", "$")


def image_entrypoint() -> list[str]:
    """The Dockerfile's ENTRYPOINT, with this Python for the image's."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    words: list[str] = json.loads(re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[-1])
    assert words[0] == "python"
    return [sys.executable, *words[1:]]


def roles(services: dict[str, Any]) -> list[str]:
    """The services that run our image."""
    return [name for name, service in services.items() if "build" in service]
