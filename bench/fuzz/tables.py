"""Arrow tables of all types, by chance: bytes that are only bent seldom get past what Arrow itself refuses."""

import io
import json

import pyarrow as pa

NAMES = ("tensor", "tensor", "first", "second", "word", "x", "kind", "session", "time", "")
PLAIN = (
    *(pa.float32(), pa.float64(), pa.float16(), pa.int8(), pa.int64(), pa.uint64(), pa.bool_(), pa.null()),
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view(), pa.binary(3), pa.date32()),
    *(pa.date64(), pa.timestamp("ns"), pa.timestamp("us", "Europe/Berlin"), pa.time32("s"), pa.time64("us")),
    *(pa.duration("ms"), pa.decimal128(9, 2), pa.month_day_nano_interval()),
)
TOLD = (b'{"shape": [2, 1]}', b"[value_type=float, shape=[2,3,4]]", b'{"shape": [0]}', b'{"shape": [3, 0]}', b"shape")


def table_bytes(chance):
    """A file or a stream with one to three columns."""
    count = chance.choice((0, 1, 1, 2, 2, 3, 9))
    fields, columns = [], []
    for _ in range(chance.choice((1, 1, 2, 3))):
        column = _column(chance, _kind(chance, 3), count)
        metadata = {"tensor_type": chance.choice(TOLD)} if chance.random() < 0.2 else None
        fields.append(pa.field(chance.choice(NAMES), column.type, metadata=metadata))
        columns.append(column)
    schema, sink = pa.schema(fields), io.BytesIO()
    make = chance.choice((pa.ipc.new_file, pa.ipc.new_file, pa.ipc.new_stream))
    options = pa.ipc.IpcWriteOptions(compression=chance.choice((None, None, "lz4", "zstd")))
    with make(sink, schema, options=options) as writer:
        for _ in range(chance.choice((1, 1, 1, 2))):
            writer.write_batch(pa.record_batch(columns, schema))
    return sink.getvalue()


def records(chance):
    """JSON of the same kind: values of all types, good names."""
    rows = [{chance.choice(NAMES): _any(chance, 3) for _ in range(chance.choice((1, 2)))}]
    rows = [{name: _any(chance, 3) if chance.random() < 0.2 else value for name, value in rows[0].items()}] * 2 + rows
    return json.dumps(rows[: chance.choice((1, 2, 3))]).encode()


def _any(chance, deep):
    if deep and chance.random() < 0.5:
        inner = [_any(chance, deep - 1)] * chance.choice((0, 1, 2, 2, 3, 24))
        return {"a": inner} if chance.random() < 0.2 else inner
    return chance.choice((1.0, 2, -1, 0.5, True, None, "a", "", "é", 2**63, -(2**63), 2**64, 1e39, 1e308, -0.0))


def _kind(chance, deep):
    inner = _kind(chance, deep - 1) if deep and chance.random() < 0.6 else None
    if inner is None:
        return chance.choice(PLAIN)
    return chance.choice(
        (
            *(pa.list_(inner), pa.list_(inner), pa.large_list(inner), pa.list_(inner, chance.choice((0, 1, 2, 24)))),
            *(pa.struct([("a", inner), ("b", pa.int8())]), pa.struct([]), pa.map_(pa.string(), inner)),
            *(pa.list_view(inner), pa.dictionary(pa.int8(), inner if inner in PLAIN else pa.string())),
            pa.fixed_shape_tensor(pa.float32(), chance.choice(((2,), (2, 3, 4), (0, 9)))),
        )
    )


def _column(chance, kind, count):
    """Values as far as they can be made from one small number; nulls for the others."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _column(chance, kind.storage_type, count))
    if isinstance(kind, pa.DictionaryType):
        return _column(chance, kind.value_type, count).dictionary_encode()
    try:
        return pa.array([_value(chance, kind) for _ in range(count)], kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.nulls(count, kind)


def _value(chance, kind):
    if chance.random() < 0.1 or pa.types.is_null(kind):
        return None
    if pa.types.is_fixed_size_list(kind):
        return [_value(chance, kind.value_type) for _ in range(kind.list_size)]
    if pa.types.is_map(kind):
        return [("a", _value(chance, kind.item_type))]
    if pa.types.is_struct(kind):
        return {field.name: _value(chance, field.type) for field in kind}
    if pa.types.is_nested(kind):
        return [_value(chance, kind.value_type) for _ in range(chance.choice((0, 2, 2, 3)))]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return chance.choice(("", "a", "é" * 30))
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
        return chance.choice((b"abc", b"\xff\x00\xfe"))
    return chance.random() < 0.5 if pa.types.is_boolean(kind) else chance.choice((0, 1, 2, 127, 2**40, 2**62))
