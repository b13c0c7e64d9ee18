"""The main job, from a trained model to what a site infers, each step checked against what it should give.

Needs a running center (OPSCENTER_URL, OPSCENTER_ADMIN_EMAIL, OPSCENTER_ADMIN_PASSWORD) and, for the engine, the
registry's login (OCI_REGISTRY, OCI_USERNAME, OCI_PASSWORD). `make demo` starts a center and runs this. Ends with 0
when every check held. With `--stay` the edge's engine runs on until Ctrl-C.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from center import Center, Engine, Failed, bundle_lines, wait_for
from house_models import HouseModel, boosting, forest, houses

EDGE = "shop-window"
PIPELINE = "houseprice"
JSON_TYPE = "application/json; format=pandas-records"
ARROW_TYPE = "application/vnd.apache.arrow.file"
# Trees add up float32 leaves in another order than scikit-learn does.
TOLERANCE = 1e-4


def main() -> int:
    """Does the job; 0 when every check held, else 1."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    demo = Demo()
    began = time.monotonic()
    try:
        demo.run()
        print(f"\n  Every check held, in {time.monotonic() - began:.0f} s.", flush=True)
        if "--stay" in sys.argv:
            stay(demo)
    except Failed as failure:
        print(f"\n  FAILED: {failure}", flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        demo.stop()
    return 0


def stay(demo: "Demo") -> None:
    """Leaves the engine running for people to look around, until Ctrl-C."""
    print(f"  The edge {EDGE} keeps serving at {demo.engine.url} until Ctrl-C.\n", flush=True)
    for name, variable in (("Dashboard", "URL"), ("Log in as", "ADMIN_EMAIL"), ("Password", "ADMIN_PASSWORD")):
        print(f"  {name + ':':<11}{os.environ['OPSCENTER_' + variable]}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


class Demo:
    """The steps of the main job and what they hand on."""

    engine: Engine

    def __init__(self) -> None:
        self.rows = houses(1000)
        self.answers: list[Any] = []
        folder = Path(os.environ.get("OPSCENTER_DATA") or tempfile.gettempdir())
        self.folder = folder / "demo" / time.strftime("%Y%m%d-%H%M%S")

    def run(self) -> None:
        """All steps in order. Raises `Failed`."""
        environment = os.environ
        self.center = Center(
            environment["OPSCENTER_URL"], environment["OPSCENTER_ADMIN_EMAIL"], environment["OPSCENTER_ADMIN_PASSWORD"]
        )
        self.workspace = self.find_or_make("workspaces", "demo")["id"]
        self.pipeline = self.find_or_make(f"workspaces/{self.workspace}/pipelines", PIPELINE)["id"]
        first = forest()
        published = self.publish(first, replaces=[])
        self.start_edge(published, first)
        self.infer_all(first)
        self.read_logs_back(first)
        self.replace_in_line(published, boosting())

    def find_or_make(self, path: str, name: str) -> Any:
        """The object of this name in the list at `path`, made when it is new."""
        found = [item for item in self.center.get(path, limit=1000)["results"] if item["name"] == name]
        return found[0] if found else self.center.post(path, {"name": name})

    def publish(self, model: HouseModel, replaces: list[int]) -> Any:
        """Uploads the model, makes a version of the pipeline with it, publishes that, and waits for it to arrive."""
        uploaded = self.center.upload(self.workspace, model.name, model.onnx, tensor_fields="tensor")
        check(uploaded["status"] == "ready", f"the upload became {uploaded['status']}: {uploaded['error']}")
        tell(f"uploaded {model.name}", f"{uploaded['size'] / 1024:.0f} KiB, sha256 {uploaded['sha256'][:12]}…")
        reference = {"name": model.name, "version": uploaded["version"]}
        version = self.center.post(
            f"pipelines/{self.pipeline}/versions", {"steps": [{"ModelInference": {"models": [reference]}}]}
        )
        tell(f"made a version of {PIPELINE}", version["version"])
        publish = self.center.post(
            f"pipelines/{self.pipeline}/publishes", {"pipeline_version": version["id"], "replaces": replaces}
        )

        def finished() -> Any:
            now = self.center.get(f"publishes/{publish['id']}")
            return now if now["status"] in ("Published", "Error") else None

        publish = wait_for("the publish", finished)
        check(publish["status"] == "Published", f"the publish failed: {publish['error']}")
        check(publish["pipeline_url"].endswith(f":{version['version']}"), f"odd location {publish['pipeline_url']}")
        tell("published", f"{publish['pipeline_url']}\n{'':34}{publish['pipeline_digest']}")
        return publish | {"uuid": version["version"], "sha256": uploaded["sha256"]}

    def start_edge(self, publish: Any, model: HouseModel) -> None:
        """Adds the edge (afresh when an earlier run left it) and starts its engine with the bundle."""
        for old in self.center.get("edges", name=EDGE)["results"]:
            self.center.delete(f"edges/{old['id']}")
        added = self.center.post(f"publishes/{publish['id']}/edges", {"name": EDGE, "tags": ["demo"]})
        self.edge = added["edge"]["id"] if "edge" in added else added["id"]
        bundle = added["edge_bundle"]
        check(bundle_lines(bundle)["EDGE_NAME"] == EDGE, "the bundle names another edge")
        tell(f"added the edge {EDGE}", "its bundle holds a join token, good once, for 24 h")
        self.engine = Engine(self.folder, bundle, registry_login())
        wait_for("the engine's start", self.engine.is_ready)
        log = self.engine.log.read_text(encoding="utf-8", errors="replace")
        check("Node attestation was successful" in log, "the engine does not say that it joined")
        served = self.engine.get("/models")["models"]
        check([m["sha"] for m in served] == [publish["sha256"]], f"the engine serves {served}")
        tell("the engine joined and serves", f"{model.name} at {self.engine.url}")

    def infer_all(self, model: HouseModel) -> None:
        """1,000 inferences: half as JSON, one a request, half as Arrow, 50 a request."""
        half = len(self.rows) // 2
        for done, row in enumerate(self.rows[:half], start=1):
            self.answers += self.engine.infer(json.dumps([{"tensor": row.tolist()}]).encode(), JSON_TYPE)
            progress("inferring", done, len(self.rows))
        for start in range(half, len(self.rows), 50):
            self.answers += self.engine.infer(arrow_file(self.rows[start : start + 50]), ARROW_TYPE)
            progress("inferring", start + 50, len(self.rows))
        check(len(self.answers) == len(self.rows), f"{len(self.answers)} answers to {len(self.rows)} inferences")
        for number, (answer, price) in enumerate(zip(self.answers, model.expected, strict=True)):
            check_price(number, answer, price)
        tell("inferred 1,000 houses", "500 as JSON, 500 as Arrow; each price is scikit-learn's")

    def read_logs_back(self, model: HouseModel) -> None:
        """Reads the log through the API and compares it with what was inferred, row by row."""
        version = self.answers[0]["metadata"]["pipeline_version"]
        logged = self.logged(version, len(self.answers))
        for number, (row, answer) in enumerate(zip(logged, self.answers, strict=True)):
            for column in ("time", "in", "out", "anomaly"):
                check(row[column] == answer[column], f"log row {number} has {column} {row[column]}")
            check(row["metadata"]["partition"] == EDGE, f"log row {number} is of {row['metadata']['partition']}")
        tell("read 1,000 log rows back", f"equal row by row, each of partition {EDGE}")

    def logged(self, version: str, count: int) -> list[Any]:
        """The rows of a pipeline version in the order they were inferred, once there are `count` of them."""

        def read() -> list[Any] | None:
            rows: list[Any] = []
            query = {"pipeline_version": version, "edge": EDGE, "limit": 1000}
            while True:
                page, cursor = self.center.logs(self.pipeline, **query)
                rows += page
                if not cursor:
                    break
                query["cursor"] = cursor
            progress("reading logs", len(rows), count)
            return rows[::-1] if len(rows) >= count else None

        rows: list[Any] = wait_for(f"the arrival of {count} log rows", read)
        check(len(rows) == count, f"{len(rows)} log rows for {count} inferences")
        return rows

    def replace_in_line(self, published: Any, model: HouseModel) -> None:
        """Publishes another model in place of the first while the edge is asked without a pause."""
        asking = Asking(self.engine, self.rows[0])
        try:
            successor = self.publish(model, replaces=[published["id"]])
            wait_for("the swap at the edge", lambda: asking.versions()[-1:] == [successor["uuid"]])
            time.sleep(0.5)
        finally:
            asking.stop()
        check(not asking.failures, f"{len(asking.failures)} requests failed while swapping: {asking.failures[:1]}")
        check(asking.versions() == [published["uuid"], successor["uuid"]], f"versions came as {asking.versions()}")
        check_price(0, asking.answers[-1], model.expected[0])
        tell("replaced it in line", f"{len(asking.answers)} requests meanwhile, none failed")
        old = [answer for answer in asking.answers if answer["metadata"]["pipeline_version"] == published["uuid"]]
        self.logged(published["uuid"], len(self.answers) + len(old))
        self.logged(successor["uuid"], len(asking.answers) - len(old))
        tell(
            "every answer is logged",
            f"{len(old)} by the old version, {len(asking.answers) - len(old)} by the new",
        )
        edge = self.center.get(f"edges/{self.edge}")
        check(edge["should_run_publish"] == successor["id"], f"the center says the edge should run {edge}")

    def stop(self) -> None:
        """Stops the edge's engine, if it was started."""
        if hasattr(self, "engine"):
            self.engine.stop()


class Asking:
    """Somebody who asks for one house's price again and again, and keeps every answer."""

    def __init__(self, engine: Engine, row: Any) -> None:
        self.engine = engine
        self.body = json.dumps([{"tensor": row.tolist()}]).encode()
        self.answers: list[Any] = []
        self.failures: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                self.answers += self.engine.infer(self.body, JSON_TYPE)
            except Exception as failure:  # noqa: BLE001  # whatever it is, it is a failed request
                self.failures.append(repr(failure))
            time.sleep(0.005)

    def versions(self) -> list[str]:
        """The pipeline versions that answered, in the order they first did."""
        return list(dict.fromkeys(answer["metadata"]["pipeline_version"] for answer in self.answers))

    def stop(self) -> None:
        """No further question."""
        self._over.set()
        self._thread.join()


def registry_login() -> dict[str, str]:
    """The registry login that the engine's environment gets, as the site's own secrets would give it."""
    names = ("OCI_REGISTRY", "OCI_USERNAME", "OCI_PASSWORD")
    return {name: os.environ[name] for name in names if name in os.environ}


def arrow_file(rows: Any) -> bytes:
    """The rows as an Arrow file with the one column `tensor`."""
    table = pa.table({"tensor": pa.array(rows.tolist(), pa.list_(pa.float32()))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def check_price(number: int, answer: Any, expected: float) -> None:
    """That the answer has the expected price, within float32's reach."""
    price = answer["out"]["variable"][0]
    check(bool(np.isclose(price, expected, rtol=TOLERANCE)), f"house {number} costs {price}, expected {expected}")


def check(held: bool, otherwise: str) -> None:
    """Raises `Failed` when a check does not hold."""
    if not held:
        raise Failed(otherwise)


def progress(what: str, done: int, total: int) -> None:
    """A line that counts, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r  … {what} {done}/{total}\033[K", end="\r", flush=True)


def tell(step: str, detail: str) -> None:
    """One line of the account."""
    print(f"\r  ✓ {step:<30}{detail}\033[K" if sys.stdout.isatty() else f"  ✓ {step:<30}{detail}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
