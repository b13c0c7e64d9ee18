"""The center under test, and the lines that tell of it."""

import asyncio
import base64
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable

from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from bench.fleet import cpu
from bench.fleet.wire import Times
from catalog.models import Membership, Pipeline, PipelineVersion, Role, User, Workspace
from edges import provisioning
from edges.provisioning import NewEdge
from publishing.models import Publish

BULK = 1000
CANARY = "canary"
CANARIES = 100  # one edge in so many


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
                new = [NewEdge(f"edge-{number:05}", _tags_of(number)) for number in range(first, first + some)]
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


def _tags_of(number: int) -> tuple[str, ...]:
    """What the edge of this number is tagged with."""
    return () if number % CANARIES else (CANARY,)


def _token_in(bundle: str) -> str:
    lines = base64.b64decode(bundle).decode().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)["JOIN_TOKEN"]
