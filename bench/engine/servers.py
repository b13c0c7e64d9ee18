"""Starts what is compared: the engine, and the peers that can be installed."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import pyarrow as pa

from bench.engine.model import rows

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ARROW = "application/vnd.apache.arrow.file"
INSTALL_SECONDS, START_SECONDS = 900, 60


@dataclass(frozen=True)
class Target:
    """A server's address, and how it wants its input. `body` makes the request of a number of rows."""

    name: str
    port: int
    path: str
    style: str  # records, arrow, v2, plain
    accept: str = "application/json"
    server: str = "engine"  # whose memory and start are told

    @property
    def types(self) -> tuple[str, str]:
        """Content types of the request and of the answer that is asked for."""
        return (ARROW if self.style == "arrow" else "application/json"), self.accept

    def body(self, count: int) -> bytes:
        """A request of `count` rows."""
        values = rows(count)
        if self.style == "records":
            return json.dumps([{"tensor": row} for row in values]).encode()
        if self.style == "arrow":
            return arrow_file(values)
        if self.style == "plain":
            return json.dumps({"rows": values}).encode()
        flat = [value for row in values for value in row]
        tensor = {"name": "float_input", "shape": [count, len(values[0])], "datatype": "FP32", "data": flat}
        return json.dumps({"inputs": [tensor]}).encode()


def arrow_file(values: list[list[float]]) -> bytes:
    """Rows as float32 lists of fixed size in an Arrow file."""
    flat = pa.array([value for row in values for value in row], type=pa.float32())
    table = pa.table({"tensor": pa.FixedSizeListArray.from_arrays(flat, len(values[0]))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    made: bytes = sink.getvalue().to_pybytes()
    return made


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], log: Path, env: dict[str, str], cwd: Path = ROOT) -> subprocess.Popen[bytes]:
    """Start a server, its output in `log`."""
    with log.open("wb") as out:
        return subprocess.Popen(command, env={**os.environ, **env}, cwd=cwd, stdout=out, stderr=out)


def is_answering(target: Target) -> bool:
    """Whether the server answers one inference well."""
    headers = dict(zip(("Content-Type", "Accept"), target.types, strict=True))
    request = urllib.request.Request(f"http://127.0.0.1:{target.port}{target.path}", target.body(1), headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def memory(process: subprocess.Popen[bytes]) -> float:
    """MiB that a server and all processes below it hold, what they share counted once (PSS)."""
    found, todo = 0, [process.pid]
    while todo:
        folder = Path(f"/proc/{todo.pop()}")
        try:
            text = (folder / "smaps_rollup").read_text()
            # A child belongs to the thread that started it.
            for task in (folder / "task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
        found += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return found / 1024


def wait(target: Target, process: subprocess.Popen[bytes]) -> str | None:
    """Wait until the server answers; why it does not, if so."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            return f"it ended with exit code {process.returncode}"
        if is_answering(target):
            return None
        time.sleep(0.05)
    return f"it did not answer within {START_SECONDS} s"


def engine(model: Path, folder: Path, *options: str) -> tuple[list[Target], subprocess.Popen[bytes]]:
    """The engine with a durable log, on a port of its own; with options just its target `json` under their name."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bench.engine.serve", str(model), str(folder), str(port), *options]
    path = os.pathsep.join([str(ROOT), str(ROOT / "engine" / "src")])
    process = start(command, folder / "engine.log", {"PYTHONPATH": path})
    if options:
        name = "json " + "".join(options).lstrip("-").replace("-", " ")
        return [Target(name, port, "/infer", "records", server=name)], process
    paths = {"json": "/infer", "lean": "/infer?dataset[]=out", "constant": "/constant"}
    targets = [Target(name, port, path, "records") for name, path in paths.items()]
    arrow = [Target("arrow in", port, "/infer", "arrow"), Target("arrow", port, "/infer", "arrow", ARROW)]
    return [*targets, *arrow], process


def requirements() -> dict[str, list[str]]:
    """What each peer needs, by its name."""
    lines = (HERE / "peers-requirements.txt").read_text().splitlines()
    return {line.split("==")[0]: line.split() for line in lines if line and not line.startswith("#")}


def install(name: str, needs: list[str], folder: Path) -> str | None:
    """Install a peer into its own virtual environment, once; why that failed, if so."""
    home = folder / f"peer-{name}"
    done = home / "installed"
    if done.exists():
        return None
    steps = [
        [sys.executable, "-m", "venv", str(home)],
        [str(home / "bin" / "pip"), "install", "-q", *needs, f"onnxruntime=={onnxruntime.__version__}"],
    ]
    for step in steps:
        try:
            run = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            return f"not installed within {INSTALL_SECONDS} s"
        if run.returncode:
            return (run.stderr.strip().splitlines() or ["pip failed"])[-1][:200]
    done.touch()
    return None


def peer(name: str, model: Path, folder: Path) -> tuple[Target, subprocess.Popen[bytes]]:
    """An installed peer."""
    port, bin_folder = free_port(), folder / f"peer-{name}" / "bin"
    work = folder / f"run-{name}"
    work.mkdir(exist_ok=True)
    env = {"MODEL": str(model), "PYTHONPATH": str(HERE / "peers"), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    log = folder / f"{name}.log"
    if name == "mlserver":
        settings = {"http_port": port, "parallel_workers": 0, "metrics_endpoint": None, "debug": False}
        settings |= {"grpc_port": free_port(), "metrics_port": free_port()}
        told = {"name": "house", "implementation": "mlserver_model.House", "parameters": {"uri": str(model)}}
        (work / "settings.json").write_text(json.dumps(settings))
        (work / "model-settings.json").write_text(json.dumps(told))
        command = [str(bin_folder / "mlserver"), "start", str(work)]
        return Target(name, port, "/v2/models/house/infer", "v2", server=name), start(command, log, env)
    if name == "kserve":
        command = [str(bin_folder / "python"), str(HERE / "peers" / "kserve_model.py"), str(model), str(port)]
        return Target(name, port, "/v2/models/house/infer", "v2", server=name), start(command, log, env)
    command = [str(bin_folder / "bentoml"), "serve", "bentoml_model:House", "--port", str(port), "--host", "127.0.0.1"]
    return Target(name, port, "/predict", "plain", server=name), start(command, log, env, HERE / "peers")
