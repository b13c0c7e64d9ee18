"""The measurements of `bench.fleet`, once Django is set up on a database of its own."""

import argparse
import asyncio
import base64
import dataclasses
import json
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from bench.fleet import cpu, wire
from bench.fleet.wire import Connection, Times
from catalog.models import Membership, Pipeline, PipelineVersion, Role, User, Workspace
from edges import jobs, provisioning, queries, tokens
from edges.models import Edge
from edges.provisioning import NewEdge
from publishing.models import Publish

ENGINE = {"version": "0.1.0", "arch": "x86_64", "accel": "none", "os": "linux", "started_at": 1763683000000}
OFFLINE, FAILING = 0.05, 0.02
JOIN_SECONDS, CHECKINS, P99 = 60.0, 700.0, 100.0  # the targets
BULK = 1000


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


class Center:
    """The center under test: its rows, and its web server as a process of its own."""

    def __init__(self, workers: int) -> None:
        call_command("migrate", verbosity=0)
        self.owner = User.objects.create_user("bench@example.com", "bench-password-1")
        workspace = Workspace.objects.create(name="bench", created_by=self.owner)
        Membership.objects.create(workspace=workspace, user=self.owner, role=Role.OWNER)
        self.pipeline = Pipeline.objects.create(workspace=workspace, name="fleet", created_by=self.owner)
        self.web = subprocess.Popen(_web(workers), cwd=settings.BASE_DIR)
        _wait(settings.PORT)

    def publish(self, *replaces: Publish) -> Publish:
        """A publish as it is when it has arrived in the registry."""
        version = PipelineVersion.objects.create(
            pipeline=self.pipeline, definition={"id": "fleet", "steps": []}, created_by=self.owner
        )
        made = Publish.objects.create(
            pipeline_version=version,
            status=Publish.Status.PUBLISHED,
            pipeline_url=f"registry.example.com/ml/pipelines/fleet:{version.uuid}",
            pipeline_digest=f"sha256:{uuid.uuid4().hex * 2}",
            published_at=timezone.now(),
            created_by=self.owner,
        )
        made.replaces.set(replaces)
        return made

    def bundles(self, publish: Publish, count: int) -> list[str]:
        """The join tokens of new edges; of every tenth thousand one fleet token that they share."""
        found: list[str] = []
        for first in range(0, count, BULK):
            some = min(BULK, count - first)
            if first // BULK % 10 == 9:
                fleet = provisioning.make_fleet_token(
                    actor=self.owner, publish=publish, pattern=f"fleet-{first}-{{n:04}}", max_edges=some
                )
                found += [_token_in(fleet.bundle)] * some
            else:
                new = [NewEdge(f"edge-{number:05}") for number in range(first, first + some)]
                added = provisioning.add_edges(actor=self.owner, publish=publish, edges=new)
                found += [_token_in(edge.bundle) for edge in added]
        return found

    def measured(self, name: str, run: Callable[[], Awaitable[Times]]) -> Times:
        """Runs and prints a line: calls a second, percentiles, CPU milliseconds a call."""
        before = cpu.used(self.web.pid)
        times: Times = asyncio.run(_awaited(run))
        after = cpu.used(self.web.pid)
        spent = {part: (after[part] - before[part]) * 1000 / len(times.took) for part in sorted(after)}
        total = sum(spent.values())
        parts = ", ".join(f"{part} {value:.2f}" for part, value in spent.items())
        print(
            f"{name:28} {len(times.took):6} calls {times.wall:6.1f} s {times.per_second:7.0f}/s  "
            f"p50 {times.percentile(0.5):6.1f} ms  p99 {times.percentile(0.99):6.1f} ms  "
            f"CPU ms/call {total:.2f} ({parts}): {1000 / total:.0f}/s a core",
            flush=True,
        )
        if times.refused:
            print(f"  refused {len(times.refused)}: {Counter(times.refused).most_common(3)}", flush=True)
        return times


async def _awaited(run: Callable[[], Awaitable[Times]]) -> Times:
    return await run()


def _web(workers: int) -> list[str]:
    options = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(settings.PORT), "--backlog", "1024"]
    options += ["--workers", str(workers), "--blocking-threads", str(settings.WEB_THREADS), "--log-level", "error"]
    return [sys.executable, "-m", "granian", *options, "--no-ws", "opscenter.wsgi:application"]


def _wait(port: int) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("granian did not start")


def _token_in(bundle: str) -> str:
    lines = base64.b64decode(bundle).decode().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)["JOIN_TOKEN"]


def _round(engines: Sequence[Engine], count: int) -> list[wire.Work]:
    """So many check-ins, of the engines in turn."""
    return [engines[number % len(engines)].checkin for number in range(count)]


def measure(given: argparse.Namespace, center: Center) -> bool:
    """All measurements; whether every target was met and every edge ended right."""
    port, chance = settings.PORT, random.Random(4)
    old = center.publish()
    begin = time.perf_counter()
    join_tokens = center.bundles(old, given.edges)
    print(f"{given.edges} edges added by bulk and fleet tokens in {time.perf_counter() - begin:.1f} s", flush=True)
    engines = [
        Engine(token, ec.generate_private_key(ec.SECP256R1()), kind < OFFLINE, OFFLINE <= kind < OFFLINE + FAILING)
        for token, kind in ((token, chance.random()) for token in join_tokens)
    ]
    joins = center.measured("joins", lambda: wire.each(port, [engine.join for engine in engines]))
    center.measured("first check-ins", lambda: wire.each(port, [engine.checkin for engine in engines]))
    chance.shuffle(engines)
    count = int(given.rate * given.seconds)
    paced = center.measured(
        f"check-ins at {given.rate}/s", lambda: wire.each(port, _round(engines, count), rate=given.rate)
    )
    center.measured("check-ins, as many as go", lambda: wire.each(port, _round(engines, count)))
    right = replaced(center, old, engines)
    goals = {
        f"{given.edges} joins in under {JOIN_SECONDS * given.edges / 10_000:.0f} s": joins.wall
        < JOIN_SECONDS * given.edges / 10_000
        and not joins.refused,
        f"{CHECKINS:.0f} check-ins/s with p99 under {P99:.0f} ms": paced.per_second >= min(CHECKINS, given.rate) * 0.98
        and paced.percentile(0.99) < P99
        and not paced.refused,
        "every edge ended in the right state": right,
    }
    for goal, is_met in goals.items():
        print(f"{'met   ' if is_met else 'MISSED'}  {goal}")
    return all(goals.values())


def replaced(center: Center, old: Publish, engines: list[Engine]) -> bool:
    """Replaces the publish that all edges run. Whether each edge ended as its engine did, the offline ones too."""
    port = settings.PORT
    online = [engine for engine in engines if not engine.is_offline]
    new = center.publish(old)
    begin = time.perf_counter()
    moved = jobs.follow_publish(new.pk, timezone.now())
    print(f"{moved} edges moved to the new publish in {time.perf_counter() - begin:.1f} s", flush=True)
    for turn in ("told", "proof"):
        works = [engine.checkin for engine in online]
        center.measured(f"replaced, {turn}", lambda works=works: wire.each(port, works))  # type: ignore[misc]
    right = _right(engines, old, new)
    back = [engine for engine in engines if engine.is_offline]
    works = [work for engine in back for work in (engine.checkin,)]
    center.measured("offline ones return", lambda: wire.each(port, works))
    center.measured("and prove it", lambda: wire.each(port, works))
    for engine in back:
        engine.is_offline = False
    return right and _right(engines, old, new)


def _right(engines: list[Engine], old: Publish, new: Publish) -> bool:
    now = timezone.now()
    rows = {str(edge.pk): edge for edge in Edge.objects.select_related("publish__pipeline_version__pipeline")}
    wrong: Counter[str] = Counter()
    for engine in engines:
        state = queries.edge_state(rows[engine.id], now)
        serving = old if engine.is_offline or engine.is_failing else new
        if state.should_run.publish_id != new.pk or state.serving_digest != serving.pipeline_digest:
            wrong["publish"] += 1
        elif state.is_serving != (serving == new):
            wrong["proof"] += 1
        elif engine.is_failing and not engine.is_offline and "golden request" not in state.explain:
            wrong["reason"] += 1
    print(f"  states: {len(engines) - wrong.total()} right, {dict(wrong) or 'none'} wrong", flush=True)
    return not wrong and len(rows) == len(engines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--edges", type=int)
    parser.add_argument("--database")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    print(f"{connection.vendor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    center = Center(given.workers)
    try:
        return 0 if measure(given, center) else 1
    finally:
        center.web.terminate()
        center.web.wait()
