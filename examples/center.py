"""A small client of the center's REST API, and an engine on this machine: what the examples are written with."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import urllib3

Json = Any


class Failed(Exception):
    """A step did not do what it should. The message says which and what was seen."""


class Center:
    """The REST API of a center, logged in by e-mail and password."""

    def __init__(self, url: str, email: str, password: str) -> None:
        self.url = url.rstrip("/")
        self.http = urllib3.PoolManager(retries=False, timeout=30)
        self.headers: dict[str, str] = {}
        token = self.post("auth/token", {"email": email, "password": password})["token"]
        self.headers["Authorization"] = f"Token {token}"

    def get(self, path: str, **query: Any) -> Json:
        """The JSON at `path` of the API."""
        return self._call("GET", path, fields=query or None).json()

    def post(self, path: str, body: Json = None) -> Json:
        """Sends JSON, gives the JSON answer."""
        headers = {"Content-Type": "application/json"}
        return self._call("POST", path, body=json.dumps(body or {}), headers=headers).json()

    def put(self, path: str, body: Json) -> Json:
        """Sends JSON that takes the place of what is there, gives the JSON answer."""
        headers = {"Content-Type": "application/json"}
        return self._call("PUT", path, body=json.dumps(body), headers=headers).json()

    def delete(self, path: str) -> None:
        """Removes what is at `path`."""
        self._call("DELETE", path)

    def upload(self, workspace: int, name: str, content: bytes, **fields: str) -> Json:
        """Uploads a model file; the new version."""
        form = {"name": name, **fields, "file": (f"{name}.onnx", content, "application/octet-stream")}
        return self._call("POST", f"workspaces/{workspace}/models", fields=form).json()

    def logs(self, pipeline: int, **query: Any) -> tuple[list[Json], Json]:
        """One page of a pipeline's log rows, and the cursor of the next page (None on the last one)."""
        answer = self._call("GET", f"pipelines/{pipeline}/logs", fields=query)
        return answer.json(), json.loads(answer.headers["X-Log-Status"])["next"]

    def _call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **rest: Any) -> Any:
        answer = self.http.request(method, f"{self.url}/api/v1/{path}", headers=self.headers | (headers or {}), **rest)
        if answer.status >= 400:
            raise Failed(f"{method} {path} answered {answer.status}: {answer.data[:500].decode(errors='replace')}")
        return answer


class Engine:
    """`opsengine serve` as a process of this machine, listening on `host`.

    `within` is a command that runs it elsewhere, such as `ip netns exec <name>`.
    """

    def __init__(
        self,
        folder: Path,
        bundle: str,
        registry: dict[str, str],
        *,
        host: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.url = f"http://{host}:{self.port}"
        self.log = folder / "engine.log"
        self.http = urllib3.PoolManager(retries=False, timeout=30)
        folder.mkdir(parents=True, exist_ok=True)
        environment = (
            os.environ
            | registry
            | {
                "EDGE_BUNDLE": bundle,
                "PERSIST_DIR": str(folder / "persist"),
                "ENGINE_HOST": host,
                "ENGINE_PORT": str(self.port),
                "CHECKIN_SECONDS": "1",
            }
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "opsengine", "serve"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str) -> Json:
        """The JSON at `path` of the engine."""
        return self._checked(self.http.request("GET", self.url + path)).json()

    def infer(self, body: bytes, content_type: str) -> list[Json]:
        """The records that `/infer` answers."""
        headers = {"Content-Type": content_type}
        answer: list[Json] = self._checked(
            self.http.request("POST", self.url + "/infer", body=body, headers=headers)
        ).json()
        return answer

    def is_ready(self) -> bool:
        """Whether it serves. Raises `Failed` when it ended instead."""
        if self.process.poll() is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-1500:]
            raise Failed(f"the engine ended with {self.process.returncode}:\n{tail}")
        try:
            return bool(self.http.request("GET", self.url + "/readyz").status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    def stop(self) -> None:
        """Ends it as a container runtime would."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()

    @staticmethod
    def _checked(answer: Any) -> Any:
        if answer.status >= 400:
            raise Failed(f"the engine answered {answer.status}: {answer.data[:500].decode(errors='replace')}")
        return answer


def wait_for(what: str, ready: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits until `ready()` gives something true, and gives that. Raises `Failed` that says what never came."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := ready():
            return found
        time.sleep(0.2)
    raise Failed(f"{what} did not happen within {seconds:.0f} s")


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bundle_lines(bundle: str) -> dict[str, str]:
    """What an EDGE_BUNDLE says, without running it."""
    lines = base64.b64decode(bundle).decode().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)
