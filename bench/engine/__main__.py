"""Measures the engine beside its floors and its peers: bench/engine/README.md."""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bench.engine import servers
from bench.engine.model import house_model, rows
from bench.engine.servers import Target

FOLDER = Path("var/bench").absolute()
CASES = ((1, 1), (1, 16), (100, 16), (1000, 16))  # rows a request, connections
SCRIPT = """wrk.method = "POST"
wrk.headers["Content-Type"], wrk.headers["Accept"] = "%s", "%s"
wrk.body = io.open("%s", "rb"):read("*a")
"""
OURS = ("json", "lean", "arrow in", "arrow")  # the engine: what comes in and goes out
VARIANTS = (("--batching",), ("--slots=1",), ("--no-log",))  # of the engine, each a server of its own
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
# reference: at 16 connections, how many times a peer's requests a second the engine should answer (json, lean at 1000).
TARGETS = {
    ("mlserver", 1): 8.0,
    ("kserve", 1): 8.0,
    ("mlserver", 100): 1.6,
    ("kserve", 100): 2.5,
    ("mlserver", 1000): 0.9,
    ("kserve", 1000): 2.0,
}


def floor(model: Path, count: int, seconds: float) -> dict[str, float]:
    """`session.run` in a loop, as requests of `count` rows a second."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    values = np.array(rows(count), dtype=np.float32)
    runs, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        session.run(None, {"float_input": values})
        runs += 1
    return {"rps": runs / seconds, "p99": 0.0}


def wrk(target: Target, count: int, connections: int, seconds: int, folder: Path) -> dict[str, float]:
    """Requests a second, and the 99th percentile in ms."""
    body, script = folder / f"{target.style}-{count}.json", folder / f"{target.name}-{count}.lua"
    body.write_bytes(target.body(count))
    script.write_text(SCRIPT % (*target.types, body))
    url = f"http://127.0.0.1:{target.port}{target.path}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise RuntimeError(f"{target.name} answered with errors:\n{said}")
    late = re.search(r"99%\s+([0-9.]+)(us|ms|s)\b", said)
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    assert late and rate, said
    return {"rps": float(rate[1]), "p99": float(late[1]) * UNITS[late[2]]}


def measure(model: Path, targets: list[Target], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Medians by server and case; in each round every server is measured, one after another."""
    seen: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for count, connections in CASES:
            key = f"b{count} c{connections}"
            seen.setdefault(f"onnxruntime {key}", []).append(floor(model, count, options.seconds / 2))
            for target in targets:
                wrk(target, count, connections, 1, folder)  # warm
                found = wrk(target, count, connections, options.seconds, folder)
                seen.setdefault(f"{target.name} {key}", []).append(found)
    return {
        key: {what: statistics.median(one[what] for one in found) for what in ("rps", "p99")}
        for key, found in seen.items()
    }


def table(found: dict[str, Any], names: list[str]) -> str:
    """Requests a second / p99 in ms, a line a server; then the engine's ratios."""
    lines = ["".join([f"{'':14}", *(f"{f'b{count} c{c}':>20}" for count, c in CASES)])]
    for name in names:
        cells = [found[f"{name} b{count} c{c}"] for count, c in CASES]
        lines.append(f"{name:14}" + "".join(f"{cell['rps']:>12.0f} /{cell['p99']:>6.1f}" for cell in cells))
    for base in [name for name in names if not name.startswith("json") and name not in OURS]:
        for ours in [name for name in (*OURS, "json batching") if name in names]:
            ratios = [found[f"{ours} b{n} c{c}"]["rps"] / found[f"{base} b{n} c{c}"]["rps"] for n, c in CASES]
            wanted = [TARGETS.get((base, n)) if c == 16 and ours == "json" else None for n, c in CASES]
            texts = [f"x{r:.2f}" + (f" (>={w:g})" if w else "") for r, w in zip(ratios, wanted, strict=True)]
            lines.append(f"{ours}/{base}"[:20].ljust(20) + "".join(f"{text:>20}" for text in texts))
    return "\n".join(lines)


class Rig:
    """The servers under measurement."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.targets: list[Target] = []
        self.running: dict[str, tuple[subprocess.Popen[bytes], dict[str, float]]] = {}

    def add(self, targets: list[Target], process: subprocess.Popen[bytes], began: float) -> str | None:
        """Measure a server, if it comes up; why it does not, if so."""
        reason = servers.wait(targets[0], process)
        # Memory twice: when the first answer is out, and at the end of all load.
        self.running[targets[0].server] = (
            process,
            {
                "start": time.monotonic() - began,
                "idle": servers.memory(process),
            },
        )
        if reason is None:
            self.targets += targets
        return reason

    def add_engine(self, variants: bool) -> bool:
        """The engine as it is, and its variants."""
        for options in ((), *VARIANTS) if variants else ((),):
            began, folder = time.monotonic(), self.folder / "".join(("engine", *options))
            reason = self.add(*servers.engine(self.model, folder, *options), began)
            if reason:
                print(f"The engine does not serve: {reason}\n{(folder / 'engine.log').read_text()}", file=sys.stderr)
                return False
        return True

    def add_peers(self, chosen: str) -> None:
        """Those that can be installed and come up."""
        for peer, needs in servers.requirements().items():
            if chosen not in ("all", peer) and peer not in chosen.split(","):
                continue
            reason = servers.install(peer, needs, FOLDER)
            if reason is None:
                began = time.monotonic()
                target, process = servers.peer(peer, self.model, FOLDER)
                reason = self.add([target], process, began)
            if reason is not None:
                print(f"{peer} is left out: {reason}")

    def end(self) -> None:
        """Stop all."""
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.wait(20)


def costs(facts: dict[str, dict[str, float]], found: dict[str, Any]) -> str:
    """Memory and start of each server; what the log and the second slot do to the requests a second."""
    lines = [
        f"{server:14}{fact['idle']:>8.0f} MiB PSS, {fact['pss']:.0f} after the load{fact['start']:>8.1f} s start"
        for server, fact in facts.items()
    ]
    for name, what in (("json no log", "log on/off"), ("json slots=1", "2 slots/1")):
        cells = [(found.get(f"json b{n} c{c}"), found.get(f"{name} b{n} c{c}")) for n, c in CASES]
        texts = [f"x{one['rps'] / other['rps']:.2f}" for one, other in cells if one and other]
        if texts:
            lines.append(f"{what:20}" + "".join(f"{text:>20}" for text in texts))
    return "\n".join(lines)


def main() -> int:
    """Install, start, measure, print."""
    parser = argparse.ArgumentParser(prog="bench.engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    variants = "batching, 1 slot, and no log"
    parser.add_argument("--variants", action=argparse.BooleanOptionalAction, default=True, help=variants)
    parser.add_argument("--peers", default="all", help="all, none, or names with commas")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        print("The client wrk is missing: install it (Debian: apt install wrk).", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = FOLDER / "house.onnx"
    model.write_bytes(house_model())
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        rig = Rig(model, Path(name))
        try:
            if not rig.add_engine(options.variants):
                return 1
            rig.add_peers(options.peers)
            found = measure(model, rig.targets, options, rig.folder)
            facts = {
                server: {**fact, "pss": servers.memory(process)} for server, (process, fact) in rig.running.items()
            }
        finally:
            rig.end()
    print(table(found, ["onnxruntime", *(target.name for target in rig.targets)]))
    print(costs(facts, found))
    told = {
        "time": int(time.time()),
        "load": os.getloadavg(),
        "cores": os.cpu_count(),
        "found": found,
        "servers": facts,
    }
    (FOLDER / "engine.json").write_text(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
