"""The engine as it serves, on a model from a file, and a constant answer from the same HTTP server.

python -m bench.engine.serve MODEL FOLDER PORT [--slots N] [--batching] [--no-log]
"""

import argparse
import signal
import threading
from pathlib import Path

import orjson

from engine.tests.fakes.registry import publish
from opsengine import memory, pipeline
from opsengine.app import App
from opsengine.engine import BODIES, SLOTS
from opsengine.gate import Gate
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.messages import Reply, Request
from opsengine.metrics import Metrics
from opsengine.plane import DataPlane
from opsengine.recorder import Recorder
from opsengine.server import Lane, Server
from opsengine.store import ContentStore
from opsengine.traffic import Traffic
from opsengine.views import Views

CONSTANT = orjson.dumps([{"time": 1, "out": {"variable": [718013.7]}}])
LARGEST_BODY = 64 * 2**20
LARGEST_FIELD = 64 * 2**10
QUEUE = 64


class Shelf:
    """Takes an artifact like a registry, straight into a content store."""

    host = "bench"

    def __init__(self, store: ContentStore) -> None:
        self.put = store.write

    def push(self, repository: str, tag: str, manifest: dict[str, object]) -> str:
        return self.put(orjson.dumps(manifest))


class Constant(App):
    """The engine, and beside it an answer that costs nothing."""

    def respond(self, request: Request) -> Reply:
        """Answer."""
        return Reply(200, "application/json", CONSTANT) if request.path == "/constant" else super().respond(request)

    def admit(self, request: Request) -> Reply | None:
        """Let it in with bodies as large as those of inferences."""
        return None if request.path == "/constant" else super().admit(request)

    def lane(self, request: Request) -> Lane:
        """Where a request is to run."""
        return Lane.HERE if request.path == "/constant" else super().lane(request)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="bench.engine.serve", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("port", type=int)
    parser.add_argument("--slots", type=int, default=SLOTS, help="long requests that run at once")
    parser.add_argument("--batching", action="store_true", help="the model's rows may run with those of other callers")
    parser.add_argument("--no-log", action="store_true", help="answer without logging")
    chosen = parser.parse_args()
    memory.be_frugal()
    folder, model = chosen.folder, chosen.model
    store = ContentStore(Path(folder) / "store")
    config = {
        "tensor_fields": ["tensor"],
        "batching": {"max_rows": 64, "max_wait_us": 500} if chosen.batching else None,
    }
    part = ("house", "00000000-0000-4000-8000-000000000001", Path(model).read_bytes(), None, {"config": config})
    _, digest = publish(Shelf(store), "house", "00000000-0000-4000-8000-000000000002", [part])
    log_store = LogStore(Path(folder) / "logs" / "rows.sqlite", 256 * 2**20)
    writer = LogWriter(log_store, Path(folder) / "logs" / "taken")
    writer.start()
    gate, metrics = Gate(chosen.slots, QUEUE, BODIES * LARGEST_BODY), Metrics(lambda: ("house",))
    log = (lambda result: None) if chosen.no_log else writer.take
    plane = DataPlane(Recorder(log, metrics.result, LARGEST_FIELD), LARGEST_BODY)
    plane.swap(pipeline.load(digest, store, 1, "bench"))
    traffic = Traffic(plane, gate, metrics, lambda digest, fine: None)
    app = Constant(plane, traffic, (log_store, writer), Views(dict, metrics.render), LARGEST_BODY)

    server = Server(app, "127.0.0.1", chosen.port, chosen.slots, QUEUE)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    server.start()
    keeper = memory.Keeper()
    keeper.start()
    stopped.wait()
    keeper.stop()
    server.stop(2)
    writer.stop()


if __name__ == "__main__":
    main()
