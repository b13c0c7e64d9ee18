"""What callers send: an input is a pipeline, a method and a target, two headers, a body.

numbers POST /infer?dataset[]=out
application/json
*/*
[{"tensor": [1.0, 2.0]}]
"""

import io
import random
from dataclasses import replace

import orjson
import pyarrow as pa

from bench.fuzz import tables
from bench.fuzz.site import Bounds, Harm, Site, request
from engine.tests.conftest import ARROW, JSON

STREAM = "application/vnd.apache.arrow.stream"
# Words that open doors, for the mutations.
WORDS = (
    *(b'"tensor"', b'"first"', b'"second"', b'"word"', b'"x"', b'"kind"', b'"session"', b"null", b"true", b"NaN"),
    *(b"1e999", b"-0.0", b"18446744073709551616", b'"\\ud83d\\ude00"', b"[[", b"]]", b"},{", b"dataset[]=", b"out.y"),
    *(b"dataset.exclude[]=", b"dataset.separator=", b"&", b"%ff", b"metadata", b"anomaly", b"/logs", b"/pipelines/"),
    *(b'"limit"', b'"start"', b'"end"', b'"2026-01-31T12:00:00Z"', ARROW.encode(), STREAM.encode(), b"ARROW1"),
    *(b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00\x00\x00\x00\x80", b"tensor_type"),
)


class Bodies:
    """The target: `bodies(data)` raises Harm."""

    def __init__(self, site=None):
        self._site = site or Site()
        asked = [(name, one) for name, one in map(_read, seeds()) if one.path == "/infer"]
        self._site.fill_log(asked)
        self._good = {(name, _is_arrow(one)): one.body for name, one in reversed(asked)}  # the plainest

    def __call__(self, data):
        name, asked = _read(data)
        with Bounds():
            self._site.forget()
            self._site.serve(name)
            first = self._site.answer(asked)
            # Again: an Arrow body of a known form, and an answer of a known kind, take a shorter way.
            again = self._site.answer(asked)
            others = self._with_others(name, asked, first) if asked.path in ("/infer", f"/pipelines/{name}") else None
        if first != again:
            raise Harm(f"the second answer is another: {first} {again}")
        if others:
            raise Harm(others)

    def _with_others(self, name, asked, alone):
        """What is wrong with the answers to requests that are run together."""
        body = self._good.get((name, _is_arrow(asked)))
        if body is None:
            return None
        other = replace(asked, body=body, size=len(body))
        expected = [self._site.answer(other), alone, alone]
        pairs = zip(expected, self._site.answer_together([other, asked, asked]), strict=True)
        return next((f"alone {one.body!r}, with others {met.body!r}" for one, met in pairs if one != met), None)


def _is_arrow(asked):
    return "arrow" in asked.content_type


def _read(data):
    first, kind, accept, body = (*data.split(b"\n", 3), b"", b"", b"")[:4]
    name, method, target = (*first.decode("latin-1").split(" ", 2), "", "")[:3]
    return name, request(method, target, kind.decode("latin-1"), accept.decode("latin-1"), body)


def mutated(data, limit, seed, mutate):
    """Mostly bent bytes (`mutate`, libFuzzer's own); or another body behind the same head, of types by chance."""
    chance = random.Random(seed)
    parts = data.split(b"\n", 3)
    if len(parts) < 4 or chance.random() < 0.7:
        return mutate(data, limit)
    is_arrow = chance.random() < 0.6
    body = tables.table_bytes(chance) if is_arrow else tables.records(chance)
    head = b"\n".join((parts[0], (ARROW if is_arrow else JSON).encode(), parts[2]))
    return (head + b"\n" + body)[:limit]


def seeds():
    """Good requests of all kinds, and the questions about the log."""
    for name, columns in _columns():
        table = pa.table(columns)
        text = orjson.dumps(table.to_pylist(), default=str)
        yield _input(name, "/infer", JSON, "*/*", text)
        yield _input(name, "/infer?dataset[]=out&dataset[]=metadata.elapsed", JSON, ARROW, text)
        yield _input(name, f"/pipelines/{name}?dataset[]=*&dataset.exclude[]=in", ARROW, "", _arrow(table, None))
        yield _input(name, "/infer", STREAM, ARROW, _arrow(table, "lz4", pa.ipc.new_stream))
        yield _input(name, "/infer?dataset.separator=/", ARROW, ARROW, _arrow(table, "zstd"))
    yield _input("numbers", "/infer", f"Content-Type: {JSON}", "", b'[{"tensor":[1,2],"extra":null,"x":{"y":[[]]}}]')
    for body in (b"{}", b"", b'{"limit":3,"start":1,"end":"2026-01-31T12:00:00+01:00"}'):
        yield _input("numbers", "/logs", JSON, "", body)
    yield _input("numbers", "/logs?dataset[]=in&dataset[]=out.y", JSON, "", b'{"limit":10000}')
    for path in ("/pipelines", "/models", "/healthz", "/readyz", "/status", "/status.json", "/metrics"):
        yield _input("numbers", path, "", "", b"", "GET")


def _input(name, target, kind, accept, body, method="POST"):
    return b"\n".join((f"{name} {method} {target}".encode(), kind.encode(), accept.encode(), body))


def _arrow(table, compression, make=pa.ipc.new_file):
    sink = io.BytesIO()
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _columns():
    """Columns for each kind of pipeline, in the types that callers send."""
    pair, floats = [[1.0, 2.0], [0.5, -3.0]], pa.list_(pa.float32(), 2)
    yield "numbers", {"tensor": pa.array(pair, pa.list_(pa.float64()))}
    yield "numbers", {"tensor": pa.array(pair, floats)}
    yield "whole", {"x": pa.array([[1, 2], [3, -4]], pa.list_(pa.int16(), 2))}
    yield "text", {"word": pa.array(["a", "é\U0001f600"])}
    yield "text", {"word": pa.array(["a", "b", "a"]).dictionary_encode()}
    tensors = pa.array([[float(n) for n in range(24)]] * 2, pa.list_(pa.float32(), 24))
    yield "image", {"tensor": tensors}
    yield "image", {"tensor": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2, 3, 4)), tensors)}
    yield "several", {"first": pa.array([1.0, 2.0]), "second": pa.array([0, 1], pa.uint8())}
    yield "scores", {"tensor": pa.array([[0.1, 0.7, 0.2]], pa.list_(pa.float16()))}
    yield "steps", {"tensor": pa.array(pair, floats), "kind": pa.array([0.5, 2.0])}
    yield "split", {"tensor": pa.array(pair, floats), "session": pa.array(["anna", None])}
    for name, column in (("numbers", "tensor"), ("whole", "x")):  # so many that they are packed another way
        yield name, {column: pa.array([[1, 2], [3, -4]] * 60, pa.list_(pa.int32()))}
    yield "numbers", {"tensor": pa.array(pair), "none": pa.nulls(2), "sure": pa.array([True, False])}
    yield "numbers", {"tensor": pa.array(pair), "run": pa.RunEndEncodedArray.from_arrays([2], ["same"])}
    yield "numbers", {"tensor": pa.array(pair), "view": pa.array([[1], [2, 3]], pa.list_view(pa.int8()))}
    yield "numbers", {"tensor": pa.array(pair), "when": pa.array([0, 1], pa.timestamp("us", "UTC"))}
    yield "numbers", {"tensor": pa.array(pair), "bytes": pa.array([b"\xff", b""]), "map": pa.array([{"a": 1}, None])}
