"""Every real model of the test data, through the engine as a process: what onnxruntime alone gives."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import orjson
import pyarrow as pa
import pytest

from engine.tests.conftest import ARROW, ROOT, EngineProcess
from engine.tests.fakes.registry import FakeRegistry, publish
from engine.tests.test_main_job import V1

FOLDER = Path(os.environ.get("OPSCENTER_TEST_DATA", ROOT.parent / "shared" / "data"))
FOUND = sorted(FOLDER.glob("*/*.onnx"))
ROWS = 20
pytestmark = pytest.mark.skipif(not FOUND, reason="the real models are not on this machine (OPSCENTER_TEST_DATA)")


@pytest.fixture(scope="module", params=FOUND, ids=lambda path: path.stem)
def served(request, tmp_path_factory):
    """An engine with this model; its inputs of some rows, and the outputs that onnxruntime alone gives for each row."""
    path, registry = request.param, FakeRegistry()
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    shape = [length if isinstance(length, int) else 1 for length in node.shape[1:]]
    values = np.random.default_rng(7).random((ROWS, *shape)).astype(np.float32)
    alone = [session.run(None, {node.name: values[at : at + 1]}) for at in range(ROWS)]
    wanted = {
        output.name: np.concatenate([made[place] for made in alone])
        for place, output in enumerate(session.get_outputs())
    }
    url, _ = publish(registry, path.stem, V1, [(path.stem, "m1", path.read_bytes(), ["tensor"])])
    engine = EngineProcess(tmp_path_factory.mktemp(path.stem), PIPELINE_URL=url).start().ready(60)
    yield engine, values, wanted
    engine.stop()
    registry.stop()


def compare(rows, wanted):
    assert len(rows) == ROWS
    assert set(rows[0]["out"]) == set(wanted)
    for name, expected in wanted.items():
        got = np.array([row["out"][name] for row in rows])
        np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


def test_answers_to_records_are_those_of_onnxruntime_alone(served):
    engine, values, wanted = served
    status, rows = engine.post("/infer", [{"tensor": row.tolist()} for row in values])
    assert status == 200
    compare(rows, wanted)


@pytest.mark.parametrize("kind", ["list", "fixed", "tensor"])
def test_answers_to_arrow_are_those_of_onnxruntime_alone(served, kind):
    """Rows as lists, as lists of fixed size, and as those with the shape beside them (`tensor_type`)."""
    engine, values, wanted = served
    flat, size = pa.array(values.reshape(-1)), values[0].size
    column = pa.FixedSizeListArray.from_arrays(flat, size)
    if kind == "list":
        column = column.cast(pa.list_(pa.float32()))
    shape = orjson.dumps({"shape": list(values.shape[1:])}) if kind == "tensor" else None
    field = pa.field("tensor", column.type, metadata={"tensor_type": shape} if shape else None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.schema([field])) as writer:
        writer.write_table(pa.Table.from_arrays([column], schema=pa.schema([field])))
    body = sink.getvalue().to_pybytes()
    status, _, answer = engine.call("POST", "/infer", body, {"Content-Type": ARROW})
    assert status == 200, answer
    compare(orjson.loads(answer), wanted)
    status, _, answer = engine.call("POST", "/infer", body, {"Content-Type": ARROW, "Accept": ARROW})
    assert status == 200
    compare([{"out": out} for out in pa.ipc.open_file(answer).read_all().column("out").to_pylist()], wanted)
