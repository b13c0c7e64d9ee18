"""Pages as an engine makes them: rows of the contract, as Arrow IPC streams."""

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

VERSION = uuid.UUID("11111111-1111-4111-8111-111111111111")
EPOCH = uuid.UUID("1d0a9c1e-8a3e-4a53-9a53-3f3ff1a0a6a5")
START = 1_763_683_200_000

METADATA = pa.struct(
    {
        "last_model": pa.string(),
        "pipeline_version": pa.string(),
        "elapsed": pa.list_(pa.int64()),
        "dropped": pa.list_(pa.string()),
        "partition": pa.string(),
    }
)


def columns(
    times: Sequence[int],
    *,
    version: uuid.UUID | str = VERSION,
    partition: str = "houseprice-edge-01",
    inputs: dict[str, pa.Array] | None = None,
    outputs: dict[str, pa.Array] | None = None,
    names: Iterable[float] | None = None,
) -> dict[str, Any]:
    """The columns of a page. `names` are the values of `in.id`, by which tests know rows again."""
    count = len(times)
    ids = list(names) if names is not None else list(range(count))
    metadata = {
        "last_model": json.dumps({"model_name": "house-price", "model_sha": "ab" * 32}),
        "pipeline_version": str(version),
        "elapsed": [1200, 34000],
        "dropped": [],
        "partition": partition,
    }
    given = {"id": pa.array(ids, pa.int64()), "tensor": pa.array([[1.5, 2.5]] * count, pa.list_(pa.float32()))}
    made = {"variable": pa.array([[718013.7]] * count, pa.list_(pa.float32()))}
    return {
        "time": pa.array(times, pa.timestamp("ms")),
        "in": struct(inputs if inputs is not None else given, count),
        "out": struct(outputs if outputs is not None else made, count),
        "anomaly": pa.array([{"count": 0}] * count, pa.struct({"count": pa.int32()})),
        "metadata": pa.array([metadata] * count, METADATA),
    }


def struct(fields: dict[str, pa.Array], count: int) -> pa.Array:
    if not fields:
        return pa.array([{}] * count, pa.struct([]))
    return pa.StructArray.from_arrays(list(fields.values()), names=list(fields))


def table(times: Sequence[int], **changes: Any) -> pa.Table:
    return pa.table(columns(times, **changes))


def stream(data: pa.Table, compression: str | None = "zstd", rows_a_batch: int | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, data.schema, options=options) as writer:
        writer.write_table(data, rows_a_batch)
    return bytes(sink.getvalue())


def file(data: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, data.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(data)
    return bytes(sink.getvalue())


def page(times: Sequence[int], **changes: Any) -> bytes:
    """A page as an engine ships it."""
    return stream(table(times, **changes))


def run(count: int, begin: int = START) -> range:
    """So many times, a millisecond apart."""
    return range(begin, begin + count)
