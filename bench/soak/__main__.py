"""A soak of the engine: `python -m bench.soak --minutes 10`.

Starts an engine as users do, joined to a center and pulling from a registry on this machine, finds out how many
requests a second it answers, keeps 80 % of that up, swaps to another publish half way, and tells: requests, failures,
answers that mixed two publishes, latencies, and the engine's memory over time. Exits 1 when a request failed, memory
did not stay flat before or after the swap, or the swap left it higher than another model may explain.
"""

import argparse
import http.client
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from engine.tests.conftest import EngineProcess, eventually
from engine.tests.fakes import models
from engine.tests.fakes.center import FakeCenter
from engine.tests.fakes.registry import FakeRegistry, publish

V1, V2 = "3b49fba8-94d8-4fca-aecc-c75257fd16c6", "2e78349c-d282-41c9-a435-0c943c3accf1"
HEADERS = {"Content-Type": "application/json; format=pandas-records"}
CLIENTS = 4
LOAD = 0.8
# Parts of the time in which memory must not grow: once all is warm, and after the swap, which loads another model.
PHASES = ((0.15, 0.5), (0.6, 1.0))
GROWTH = 1.05  # of the median memory, from the first quarter of a part to its last
# Around the swap: the model before must be given back. The two are of different sizes, and the heap has holes.
STEP = 1.15
SAMPLE_SECONDS = 2.0


class ForgetfulCenter(FakeCenter):
    """Acknowledges rows without keeping them: what is measured is the engine."""

    def _logs(self, query, body):
        status, told = super()._logs(query, body)
        self.rows.clear()
        self.pages.clear()
        return status, told


class Client(threading.Thread):
    """Sends requests, `rate` a second (None: as fast as it can), on one connection."""

    def __init__(self, port, body, seconds, rate=None):
        super().__init__(daemon=True)
        self.port, self.body, self.seconds, self.rate = port, body, seconds, rate
        self.latencies, self.failures, self.versions = [], [], {}

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        began = due = time.monotonic()
        while due < began + self.seconds:
            if self.rate:
                due += np.random.exponential(1 / self.rate)
                time.sleep(max(0.0, due - time.monotonic()))
            else:
                due = time.monotonic()
            self._send(connection)
        connection.close()

    def _send(self, connection):
        sent = time.perf_counter()
        try:
            connection.request("POST", "/infer", self.body, HEADERS)
            answer = connection.getresponse()
            told = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.failures.append(repr(error))
            return
        self.latencies.append(time.perf_counter() - sent)
        versions = {row["metadata"]["pipeline_version"] for row in json.loads(told)} if answer.status == 200 else set()
        if len(versions) == 1:
            version = versions.pop()
            self.versions[version] = self.versions.get(version, 0) + 1
        else:
            self.failures.append(f"{answer.status}: {told[:200]!r}")


def load(port, body, seconds, rate=None):
    """Run all clients; returns them when they are done."""
    clients = [Client(port, body, seconds, rate and rate / CLIENTS) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    return clients


def memory(process):
    """Bytes that the engine holds now."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def workload(data):
    """Two publishes' models and a request body: real ones, where the test data is."""
    folder = data and Path(data) / "houseprice"
    if folder and folder.is_dir():
        records = json.loads((folder / "xtest-1k.df.json").read_text())[:1]
        made = [(folder / f"{name}_model.onnx").read_bytes() for name in ("rf", "xgb")]
        return made, json.dumps(records).encode()
    return [models.scale(2.0), models.scale(9.0)], b'[{"tensor": [1.0, 2.0]}]'


def soak(seconds, data):
    """Run it; returns the report."""
    registry, center = FakeRegistry(), ForgetfulCenter()
    (first, second), body = workload(data)
    url, digest = publish(registry, "soak", V1, [("first", "m1", first, ["tensor"])])
    center.wish("soak", V1, url, digest)
    with tempfile.TemporaryDirectory() as folder:
        bundle = center.add_edge(pipeline_url=url)
        engine = EngineProcess(Path(folder), EDGE_BUNDLE=bundle, OCI_REGISTRY=registry.host, CHECKIN_SECONDS="5")
        engine.start().ready()
        try:
            return _measure(engine, center, registry, body, second, seconds)
        finally:
            engine.stop()


def _measure(engine, center, registry, body, second, seconds):
    warm = load(engine.port, body, 10.0)
    for client in warm:
        client.join()
    capacity = sum(len(client.latencies) for client in warm) / 10.0
    clients = load(engine.port, body, seconds, capacity * LOAD)
    began, samples, swapped = time.monotonic(), [], False
    while any(client.is_alive() for client in clients):
        samples.append((time.monotonic() - began, memory(engine._process)))
        if not swapped and samples[-1][0] > seconds / 2:
            swapped = True
            url, digest = publish(registry, "soak", V2, [("second", "m2", second, ["tensor"])])
            with center.lock:
                center.wish("soak", V2, url, digest, publish_id=13)
        time.sleep(SAMPLE_SECONDS)
    told = engine.get("/status.json")[1]
    eventually(lambda: engine.get("/status.json")[1]["logs"]["backlog"] == 0, 60, "the log was not shipped")
    return _report(clients, samples, capacity, seconds, told)


def growth(sizes):
    """How many times the memory of the first quarter the last quarter has, by medians."""
    quarter = max(1, len(sizes) // 4)
    return round(float(np.median(sizes[-quarter:]) / np.median(sizes[:quarter])), 4)


def _report(clients, samples, capacity, seconds, told):
    latencies = np.concatenate([np.array(client.latencies) for client in clients]) * 1000
    failures = [failure for client in clients for failure in client.failures]
    parts = [[size for at, size in samples if a < at / seconds <= b] for a, b in PHASES]
    versions = {}
    for client in clients:
        for version, count in client.versions.items():
            versions[version] = versions.get(version, 0) + count
    return {
        "seconds": seconds,
        "capacity_rps": round(capacity),
        "offered_rps": round(capacity * LOAD),
        "answered": len(latencies) - len([one for one in failures if one[0].isdigit()]),
        "failed": len(failures),
        "first_failures": failures[:3],
        "by_version": versions,
        "p50_ms": round(float(np.percentile(latencies, 50)), 2),
        "p99_ms": round(float(np.percentile(latencies, 99)), 2),
        "p999_ms": round(float(np.percentile(latencies, 99.9)), 2),
        "memory_mib": [round(size / 2**20, 1) for _, size in samples[:: max(1, len(samples) // 12)]],
        "growth": [growth(part) for part in parts],
        "swap_step": round(float(np.median(parts[1]) / np.median(parts[0])), 4),
        "backlog_at_end": told["logs"]["backlog"],
        "shed": told["logs"]["shed"],
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
    }


def verdict(report):
    """What went wrong, in sentences."""
    growth, step = max(report["growth"]), report["swap_step"]
    checks = {
        f"{report['failed']} requests failed: {report['first_failures']}.": report["failed"],
        f"The swap did not happen under load: {report['by_version']}.": len(report["by_version"]) != 2,
        f"Memory grew to {report['growth']} times what it was, before and after the swap.": growth > GROWTH,
        f"The swap left memory at {step} times what it was: the old model may be held.": step > STEP,
        f"{report['shed']} log rows were given up.": report["shed"],
    }
    return [told for told, is_wrong in checks.items() if is_wrong]


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("var/bench/soak.json"))
    chosen = parser.parse_args()
    report = soak(chosen.minutes * 60, os.environ.get("OPSCENTER_TEST_DATA"))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(report, indent=2))
    print(json.dumps(report, indent=2))
    faults = verdict(report)
    if not faults:
        print(
            "PASSED: no request failed, the swap mixed none, the log was shipped whole; memory stayed flat "
            f"(x{max(report['growth'])} at most) and the swap gave the old model's back (x{report['swap_step']})."
        )
    for fault in faults:
        print(f"FAILED: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
