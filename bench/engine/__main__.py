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
    for base in [name for name in names if name not in OURS]:
        for ours in OURS:
            ratios = [found[f"{ours} b{n} c{c}"]["rps"] / found[f"{base} b{n} c{c}"]["rps"] for n, c in CASES]
            wanted = [TARGETS.get((base, n)) if c == 16 and ours == "json" else None for n, c in CASES]
            texts = [f"x{r:.2f}" + (f" (>={w:g})" if w else "") for r, w in zip(ratios, wanted, strict=True)]
            lines.append(f"{ours}/{base:9}"[:20].ljust(20) + "".join(f"{text:>20}" for text in texts))
    return "\n".join(lines)


def main() -> int:
    """Install, start, measure, print."""
    parser = argparse.ArgumentParser(prog="bench.engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--peers", default="all", help="all, none, or names with commas")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        print("The client wrk is missing: install it (Debian: apt install wrk).", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = FOLDER / "house.onnx"
    model.write_bytes(house_model())
    processes = []
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name)
        targets, process = servers.engine(model, folder)
        processes.append(process)
        try:
            reason = servers.wait(targets[0], process)
            if reason:
                print(f"The engine does not serve: {reason}\n{(folder / 'engine.log').read_text()}", file=sys.stderr)
                return 1
            for peer, needs in servers.requirements().items():
                if options.peers not in ("all", peer) and peer not in options.peers.split(","):
                    continue
                reason = servers.install(peer, needs, FOLDER)
                if reason is None:
                    target, process = servers.peer(peer, model, FOLDER)
                    processes.append(process)
                    reason = servers.wait(target, process)
                if reason is None:
                    targets.append(target)
                else:
                    print(f"{peer} is left out: {reason}")
            found = measure(model, targets, options, folder)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20)
    print(table(found, ["onnxruntime", *(target.name for target in targets)]))
    told = {"time": int(time.time()), "load": os.getloadavg(), "cores": os.cpu_count(), "found": found}
    (FOLDER / "engine.json").write_text(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
