"""Requests to `/infer` as nobody means them: well-formed ones, bent by a numbered random choice.

`request(number)` is the same on every machine, so a request that does harm is told by its number alone.
"""

import http.client
import io
import json
import random

import pyarrow as pa

from engine.tests.conftest import ARROW, JSON

WORDS = (b"null", b"-0", b"1e999", b"NaN", b"\xff\xfe", b"\x00", b"[" * 2000, b'{"":' * 500, b'"\\ud800"', b"9" * 400)
VALUES = (
    *(None, True, -1, 2**63, 2**64, 1e308, -1e-320, "", "1", "\u0000", [], {}, [[]], [None], {"a": {"b": []}}),
    *([1.0, "x"], [[1.0], [2.0, 3.0]], "x" * 5000, [0.5] * 3000, "dataset[]=out"),
)
KINDS = (JSON, ARROW, "", "text/csv", f"Content-Type: {JSON}", f"{JSON}; format=pandas-records", "application/json;;;")
QUERIES = (
    "",
    "?dataset[]=out",
    "?dataset.separator=",
    "?dataset[]=*&dataset.exclude[]=in",
    "?dataset%5b%5d=%ff",
    "?&&=",
)
ARROW_TYPES = (
    pa.float32(),
    pa.float64(),
    pa.int64(),
    pa.string(),
    pa.bool_(),
    pa.list_(pa.float32()),
    pa.list_(pa.float32(), 2),
)


def request(number):
    """The path, the headers and the body of a request."""
    chance = random.Random(number)
    body = _bent(chance, _arrow(chance) if chance.random() < 0.4 else _json(chance))
    is_arrow = body.startswith(b"ARROW1")
    kind = (ARROW if is_arrow else JSON) if chance.random() < 0.7 else chance.choice(KINDS)
    headers = {"Content-Type": kind, "Accept": chance.choice((ARROW, JSON, "*/*", ""))}
    path = chance.choice(("/infer", "/infer", "/infer", "/pipelines/scale", "/pipelines/%00", "/logs"))
    return path + chance.choice(QUERIES), headers, body


def harm(port, number, timeout=20.0):
    """What a request did that it must not: an answer of 500 or more, a closed line, an answer that cannot be read."""
    path, headers, body = request(number)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        told = reply.read()
        if reply.status >= 500:
            return f"request {number}: {reply.status} {told[:300]!r}"
        if reply.getheader("content-type") == ARROW:
            pa.ipc.open_file(told).read_all().validate(full=True)
        else:
            json.loads(told)
    except (OSError, http.client.HTTPException, ValueError, pa.ArrowException) as error:
        return f"request {number}: {type(error).__name__}: {error}"
    finally:
        connection.close()
    return None


def _json(chance):
    rows = [{"tensor": [chance.uniform(-9, 9), float(at)]} for at in range(chance.choice((1, 1, 2, 5, 60)))]
    for _ in range(chance.choice((0, 0, 1, 2))):
        row = chance.choice(rows)
        row[chance.choice(("tensor", "tensor", "x", "", "time", "in.tensor"))] = chance.choice(VALUES)
    if chance.random() < 0.1:
        rows = chance.choice((rows[0], [rows], [rows[0], None], [], {}, None, 7, "rows", {"inputs": rows}))
    return json.dumps(rows).encode()


def _arrow(chance):
    count = chance.choice((0, 1, 2, 7))
    columns = {}
    for name in chance.sample(("tensor", "x", "", "time"), chance.choice((1, 1, 2))):
        kind = pa.list_(pa.float32(), 2) if name == "tensor" and chance.random() < 0.5 else chance.choice(ARROW_TYPES)
        columns[name] = pa.array([_value(chance, kind) for _ in range(count)], kind)
    sink = io.BytesIO()
    make = chance.choice((pa.ipc.new_file, pa.ipc.new_file, pa.ipc.new_stream))
    options = pa.ipc.IpcWriteOptions(compression=chance.choice((None, "lz4", "zstd")))
    table = pa.table(columns)
    with make(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _value(chance, kind):
    if chance.random() < 0.1:
        return None
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return [chance.random() for _ in range(2 if pa.types.is_fixed_size_list(kind) else chance.choice((0, 2, 2, 3)))]
    if pa.types.is_string(kind):
        return chance.choice(("", "a", "é" * 30))
    return chance.random() < 0.5 if pa.types.is_boolean(kind) else chance.randrange(5)


def _bent(chance, body):
    """The bytes, with a few of them changed, cut out, doubled, or replaced by words that are trouble elsewhere."""
    made = bytearray(body)
    for _ in range(chance.choice((0, 0, 1, 1, 3, 20))):
        if not made:
            break
        at = chance.randrange(len(made))
        what = chance.randrange(5)
        if what == 0:
            made[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            del made[at : at + chance.choice((1, 4, 100))]
        elif what == 2:
            made[at:at] = made[at : at + chance.choice((1, 8, 64))]
        elif what == 3:
            made[at:at] = chance.choice(WORDS)
        else:  # lengths and offsets of Arrow
            made[at : at + 4] = chance.choice((b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\1\0\0\0"))
    return bytes(made)
