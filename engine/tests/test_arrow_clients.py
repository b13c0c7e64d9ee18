"""Arrow bodies as the libraries of callers write them, and what no Python value can be made of."""

import io

import orjson
import polars as pl
import pyarrow as pa
import pytest

from engine.tests.conftest import ARROW
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from opsengine import arrowsize, decode
from opsengine.errors import RequestError

VERSION = "3b49fba8-94d8-4fca-aecc-c75257fd16c6"
ROWS = [[1.0, 2.0], [3.0, 4.0]]
LIMIT = 2**20
COMPRESSIONS = ("uncompressed", "lz4", "zstd")


def polars_file(columns, **options):
    sink = io.BytesIO()
    pl.DataFrame(columns).write_ipc(sink, **options)
    return sink.getvalue()


def arrow_file(columns, make=pa.ipc.new_file, batches=1):
    table, sink = pa.table(columns), pa.BufferOutputStream()
    with make(sink, table.schema) as writer:
        for _ in range(batches):
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def columns_of(body, limit=LIMIT):
    batch = decode.read(body, decode.ARROW, limit)
    return {name: value if isinstance(value, list) else value.tolist() for name, value in batch.columns.items()}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_files_of_polars_are_read(compression):
    columns = {
        "tensor": ROWS,
        "fixed": pl.Series(ROWS, dtype=pl.Array(pl.Float32, 2)),
        "text": ["longer than the twelve bytes of a view", "short"],
        "kind": pl.Series(["a", "b"], dtype=pl.Categorical),
    }
    read = columns_of(polars_file(columns, compression=compression))
    assert read == {"tensor": ROWS, "fixed": ROWS, "text": columns["text"], "kind": ["a", "b"]}


def test_file_of_polars_in_several_batches_is_read_in_order():
    read = columns_of(polars_file({"x": list(range(500)), "k": ["a", "b"] * 250}, record_batch_size=100))
    assert read == {"x": list(range(500)), "k": ["a", "b"] * 250}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_file_of_polars_that_unpacks_too_large_is_413(compression):
    body = polars_file({"x": [0] * 100_000}, compression=compression)
    with pytest.raises(RequestError, match="unpacks to more than") as refused:
        columns_of(body, limit=2**16)
    assert refused.value.status == 413


def test_footer_that_names_a_batch_twice_is_refused(monkeypatch):
    body = polars_file({"x": [1, 2]})
    blocks = list(arrowsize._blocks(body))
    monkeypatch.setattr(arrowsize, "_blocks", lambda _: iter(blocks * 2))
    with pytest.raises(RequestError, match="messages that overlap"):
        columns_of(body)


def test_damaged_file_of_polars_is_answered_or_refused():
    body = polars_file({"tensor": ROWS, "k": pl.Series([1, 2], dtype=pl.Decimal(10, 2))})
    ended = set()
    for at in range(8, len(body)):
        for wrong in (body[:at], body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]):
            try:
                columns_of(wrong)
                ended.add("read")
            except RequestError as error:
                ended.add(error.status)
    assert 400 in ended and ended <= {"read", 400, 413}


TIMES = (
    pa.array([1_700_000_000_000_000_001, 2], pa.timestamp("ns")),
    pa.array([10**12, 1], pa.timestamp("s")),
    pa.array([10**15, 0], pa.duration("s")),
    pa.array([2**30, 1], pa.date32()),
)


@pytest.mark.parametrize("values", TIMES, ids=lambda values: str(values.type))
def test_times_beyond_those_of_python_are_answered(infer, values):
    body = arrow_file({"tensor": ROWS, "when": values})
    rows = infer(body, ("by-2", "m1", models.scale(2.0), ["tensor"]), kind=ARROW)
    assert [row["out"]["y"] for row in rows] == [[2.0, 4.0], [6.0, 8.0]]
    assert all(isinstance(row["in"]["when"], str) for row in rows)


def test_damaged_values_are_a_400_that_names_the_column(infer):
    body = arrow_file({"tensor": [ROWS[0]], "price": pa.array([1], pa.decimal128(38, 0))})
    wrong = body.replace((1).to_bytes(16, "little"), b"\xff" * 15 + b"\x7f")  # more digits than the type has
    assert wrong != body
    with pytest.raises(RequestError, match=r"Arrow file|price") as refused:
        infer(wrong, ("by-2", "m1", models.scale(2.0), ["tensor"]), kind=ARROW)
    assert refused.value.status == 400


@pytest.mark.parametrize("make", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("batches", [1, 3])
def test_categories_of_views_are_read(make, batches):
    view = pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array(["a", "b"], pa.string_view()))
    assert columns_of(arrow_file({"kind": view}, make, batches)) == {"kind": ["b", "a"] * batches}


def test_engine_without_pandas_answers_them_all(start_engine, registry):
    url, _ = publish(registry, "scale", VERSION, [("by-2", "m1", models.scale(2.0), ["tensor"])])
    engine = start_engine(PIPELINE_URL=url).ready()
    bodies = [polars_file({"tensor": ROWS}), *(arrow_file({"tensor": ROWS, "when": values}) for values in TIMES)]
    for body in bodies:
        status, _, answer = engine.call("POST", "/infer", body, {"Content-Type": ARROW})
        assert status == 200, answer
        assert [row["out"]["y"] for row in orjson.loads(answer)] == [[2.0, 4.0], [6.0, 8.0]]
    assert len(engine.post("/logs", {})[1]) == 2 * len(bodies)
    assert "Traceback" not in engine.log
