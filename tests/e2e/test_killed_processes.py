"""The main job on whole centers, with the real models, and with processes killed at the worst moment."""

import hashlib
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import urllib3
from onnx import TensorProto, helper

from examples.center import Center, Engine, Failed, wait_for
from tests.e2e.centers import RunningCenter

pytestmark = pytest.mark.e2e

StartEngine = Callable[..., Engine]
JSON_TYPE = "application/json; format=pandas-records"
HOUSE = [4.0, 2.5, 2900.0, 5505.0, 2.0, 0.0, 0.0, 3.0, 8.0, 2900.0, 0.0]
HOUSE += [47.6063, -122.02, 2970.0, 5251.0, 12.0, 0.0, 0.0]
QUESTION = json.dumps([{"tensor": HOUSE}]).encode()
PRICES = {"rf_model": 718013.7, "xgb_model": 659806.0, "gbr_model": 704901.9}


class Site:
    """A pipeline of its own in a running center, and what is done with it."""

    def __init__(self, api: Center) -> None:
        self.api = api
        self.name = f"p{secrets.token_hex(4)}"
        workspace = api.post("workspaces", {"name": self.name})["id"]
        self.workspace: int = workspace
        self.pipeline: int = api.post(f"workspaces/{workspace}/pipelines", {"name": self.name})["id"]

    def start_publish(self, content: bytes, model: str = "model", replaces: tuple[int, ...] = ()) -> Any:
        uploaded = self.api.upload(self.workspace, model, content, tensor_fields="tensor")
        assert uploaded["status"] == "ready", uploaded["error"]
        steps = [{"ModelInference": {"models": [{"name": model, "version": uploaded["version"]}]}}]
        version = self.api.post(f"pipelines/{self.pipeline}/versions", {"steps": steps})
        body = {"pipeline_version": version["id"], "replaces": list(replaces)}
        return self.api.post(f"pipelines/{self.pipeline}/publishes", body) | {"uuid": version["version"]}

    def arrived(self, publish: Any, seconds: float = 60) -> Any:
        def finished() -> Any:
            now = self.api.get(f"publishes/{publish['id']}")
            return now if now["status"] in ("Published", "Error") else None

        found = wait_for("the publish", finished, seconds)
        assert found["status"] == "Published", found["error"]
        return publish | found

    def publish(self, content: bytes, model: str = "model", replaces: tuple[int, ...] = ()) -> Any:
        return self.arrived(self.start_publish(content, model, replaces))

    def add_edge(self, publish: Any) -> Any:
        return self.api.post(f"publishes/{publish['id']}/edges", {"name": f"edge-{self.name}"})

    def rows(self) -> list[Any]:
        """Every log row, oldest first."""
        found: list[Any] = []
        query: dict[str, Any] = {"limit": 1000}
        while True:
            page, cursor = self.api.logs(self.pipeline, **query)
            found += page
            if not cursor:
                return found[::-1]
            query["cursor"] = cursor

    def account(self, edge: Any) -> tuple[int, int]:
        """How many rows of an edge arrived, and how many it said that it lost."""
        epochs = self.api.get(f"edges/{edge['id']}/logs/accounting")["epochs"]
        return sum(epoch["received"] for epoch in epochs), sum(epoch["shed"] for epoch in epochs)


@pytest.fixture
def site(center: RunningCenter) -> Site:
    return Site(center.api())


def serving(engine: Engine) -> Engine:
    wait_for("the engine's start", engine.is_ready)
    return engine


def serves(engine: Engine, sha256: str) -> bool:
    return [model["sha"] for model in engine.get("/models")["models"]] == [sha256]


def price(engine: Engine) -> float:
    return float(engine.infer(QUESTION, JSON_TYPE)[0]["out"]["variable"][0])


def question(number: int) -> bytes:
    """A question that can be told from every other in the logs."""
    return json.dumps([{"tensor": [float(number), *HOUSE[1:]]}]).encode()


def test_the_real_models_give_their_known_prices_one_after_another_in_line(
    site: Site, engine: StartEngine, real_models: Path
) -> None:
    published: list[Any] = []
    running: Engine | None = None
    for name, expected in PRICES.items():
        content = (real_models / f"houseprice/{name}.onnx").read_bytes()
        replaced = tuple(one["id"] for one in published[-1:])
        published.append(site.publish(content, name.replace("_", "-"), replaced))
        running = running or serving(engine(site.add_edge(published[0])["edge_bundle"]))
        wait_for("the model at the edge", partial(serves, running, hashlib.sha256(content).hexdigest()))
        assert price(running) == expected
    wait_for("the rows", lambda: len(site.rows()) == len(PRICES))
    rows = site.rows()
    assert [row["out"]["variable"] for row in rows] == [[expected] for expected in PRICES.values()]
    assert [row["metadata"]["pipeline_version"] for row in rows] == [one["uuid"] for one in published]
    assert {row["metadata"]["partition"] for row in rows} == {f"edge-{site.name}"}


def test_a_bundle_works_for_one_key_only(site: Site, engine: StartEngine, real_models: Path, tmp_path: Path) -> None:
    publish = site.publish((real_models / "houseprice/rf_model.onnx").read_bytes())
    bundle = site.add_edge(publish)["edge_bundle"]
    first = serving(engine(bundle, folder=tmp_path / "first"))
    with pytest.raises(Failed, match="ended with 1"):
        serving(engine(bundle, folder=tmp_path / "second"))
    first.stop()
    again = serving(engine(bundle, folder=tmp_path / "first"))
    assert price(again) == PRICES["rf_model"], "the spent bundle in its environment must not keep a joined edge out"


def test_a_removed_edge_serves_on_but_ships_nothing(
    site: Site, engine: StartEngine, real_models: Path, center: RunningCenter
) -> None:
    edge = site.add_edge(site.publish((real_models / "houseprice/rf_model.onnx").read_bytes()))
    running = serving(engine(edge["edge_bundle"]))
    price(running)
    wait_for("the first row", lambda: len(site.rows()) == 1)
    site.api.delete(f"edges/{edge['id']}")
    assert price(running) == PRICES["rf_model"]
    time.sleep(2)
    assert len(site.rows()) == 1


def test_a_publish_whose_worker_was_killed_arrives_within_a_minute_as_if_nothing_had_been(
    site: Site, center: RunningCenter
) -> None:
    content = big_model(192 << 20)
    publish = site.start_publish(content)
    wait_for("bytes on the way", lambda: site.api.get(f"publishes/{publish['id']}")["status"] == "Publishing")
    center.restart("worker")
    arrived = site.arrived(publish, seconds=75)
    # The same version published again ends in the same digests, so nothing of the killed attempt is in it.
    again = site.api.post(f"pipelines/{site.pipeline}/publishes", {})
    again = site.arrived(again)
    assert again["pipeline_digest"] == arrived["pipeline_digest"]
    assert again["chart_digest"] == arrived["chart_digest"]


def test_a_killed_engine_neither_loses_nor_doubles_a_row(
    site: Site, engine: StartEngine, real_models: Path, tmp_path: Path
) -> None:
    edge = site.add_edge(site.publish((real_models / "houseprice/rf_model.onnx").read_bytes()))
    answered = 0
    for _ in range(4):
        running = serving(engine(edge["edge_bundle"], folder=tmp_path / "site"))
        for _ in range(150):
            running.infer(question(answered), JSON_TYPE)
            answered += 1
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
    serving(engine(edge["edge_bundle"], folder=tmp_path / "site"))
    wait_for("every row", lambda: sum(site.account(edge)) >= answered)
    assert site.account(edge) == (answered, 0)
    assert [row["in"]["tensor"][0] for row in site.rows()] == [float(number) for number in range(answered)]


def test_a_killed_web_process_neither_loses_nor_doubles_a_row(
    site: Site, engine: StartEngine, real_models: Path, center: RunningCenter
) -> None:
    edge = site.add_edge(site.publish((real_models / "houseprice/rf_model.onnx").read_bytes()))
    running = serving(engine(edge["edge_bundle"], PLATEAU_PAGE_SIZE="20", LOCAL_INFERENCE_STORAGE="64Mi"))
    over, asked = threading.Event(), 0

    def ask() -> None:
        nonlocal asked
        while not over.wait(0.01):
            running.infer(question(asked), JSON_TYPE)
            asked += 1

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(3):
            time.sleep(1.5)
            center.restart("web")
    finally:
        over.set()
        asking.join()
    wait_for("every row", lambda: site.account(edge)[0] >= asked)
    assert site.account(edge) == (asked, 0)
    assert [row["in"]["tensor"][0] for row in site.rows()] == [float(number) for number in range(asked)]


def test_an_upload_of_a_gigabyte_needs_no_gigabyte_of_memory(site: Site, center: RunningCenter, tmp_path: Path) -> None:
    size = 1 << 30
    file = tmp_path / "big.bin"
    with file.open("wb") as sparse:
        sparse.truncate(size)
    head = (
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nbig\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.onnx"\r\n\r\n'
    )
    tail = b"\r\n--b--\r\n"

    def body() -> Any:
        yield head
        with file.open("rb") as content:
            while piece := content.read(1 << 20):
                yield piece
        yield tail

    answer = urllib3.request(
        "POST",
        f"{center.url}/api/v1/workspaces/{site.workspace}/models",
        body=body(),
        headers=site.api.headers
        | {
            "Content-Type": "multipart/form-data; boundary=b",
            "Content-Length": str(len(head) + size + len(tail)),
        },
        retries=False,
        timeout=120,
    )
    assert answer.status == 201, answer.data
    assert answer.json()["size"] == size
    assert peak_memory_of_web(center) < 400 << 20


def peak_memory_of_web(center: RunningCenter) -> int:
    """The most that the web processes together ever had resident, in bytes."""
    family = [center.pid("web")]
    for process in family:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        family += [int(child) for child in children]
    peaks = [
        int(line.split()[1]) << 10
        for process in family
        for line in Path(f"/proc/{process}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return sum(peaks)


def big_model(size: int) -> bytes:
    """A valid model with a weight of `size` bytes that no layer shares with another test."""
    weight = np.frombuffer(secrets.token_bytes(size), dtype=np.uint8)
    tensor = TensorProto(dims=[size], data_type=TensorProto.UINT8, name="w", raw_data=weight.tobytes())
    nodes = [
        helper.make_node("Gather", ["w", "zero"], ["first"]),
        helper.make_node("Cast", ["first"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["tensor", "as_float"], ["variable"]),
    ]
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    shape = ["batch", 1]
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("tensor", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("variable", TensorProto.FLOAT, shape)],
        [tensor, zero],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
