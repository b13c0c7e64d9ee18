"""A simulated engine: what the center sees of one, without a model."""

import dataclasses
import json
import time
import uuid
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from bench.fleet import wire
from bench.fleet.wire import Connection
from edges import tokens

ENGINE = {"version": "0.1.0", "arch": "x86_64", "accel": "none", "os": "linux", "started_at": 1763683000000}


@dataclasses.dataclass
class Engine:
    """A simulated engine: its key, its session, what it serves."""

    bundle_token: str
    key: ec.EllipticCurvePrivateKey
    is_offline: bool = False
    is_failing: bool = False
    id: str = ""
    token: str = ""
    serving: str = ""
    version: str = ""
    error: str = ""
    wants: dict[str, Any] = dataclasses.field(default_factory=dict)
    requests: int = 0
    epoch: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))

    async def join(self, line: Connection) -> tuple[int, bytes]:
        """Joins with its bundle's token and its key."""
        body = {"join_token": self.bundle_token, "public_key": tokens.jwk_of(self.key.public_key()), "engine": ENGINE}
        status, answer = await line.call("/edge/v1/join", wire.text(body))
        if status == 201:
            found = json.loads(answer)
            self.id, self.token = found["edge"]["id"], found["session"]["access_token"]
            self.wants = found["desired"]
            self._serve()
        return status, answer

    async def checkin(self, line: Connection) -> tuple[int, bytes]:
        """Says what it serves and takes up what it should, which is instant here."""
        status, answer = await line.call("/edge/v1/checkin", wire.text(self._report()), self.token)
        if status == 200:
            self.wants = json.loads(answer)["desired"]
            self._serve()
        return status, answer

    def _serve(self) -> None:
        if self.wants["digest"] == self.serving:
            return
        if self.is_failing and self.serving:
            self.error = "the golden request gave another answer"
            return
        self.serving, self.version = self.wants["digest"], self.wants["pipeline_version"]

    def _report(self) -> dict[str, Any]:
        self.requests += 7
        serving = {"digest": self.serving, "pipeline": "fleet", "pipeline_version": self.version, "since": 1}
        return {
            "serving": serving if self.serving else None,
            "update": {"state": "failed" if self.error else "idle", "error": self.error or None},
            "engine": ENGINE,
            "counters": {"requests": self.requests, "rows": self.requests, "errors": 0},
            "logs": {"epoch": self.epoch, "last_sequence": self.requests, "acked": 0, "shed": 0},
            "disk": {"free": 51539607552, "total": 107374182400},
            "clock": int(time.time() * 1000),
        }
