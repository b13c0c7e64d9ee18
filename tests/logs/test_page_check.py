"""What is taken as a page, and what is refused before it costs memory."""

import struct

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logs import envelope, pages
from logs.errors import InvalidPage, PageTooLarge
from logs.pages import Page
from tests.logs import rows

EDGE = "houseprice-edge-01"


def check(body: bytes, partition: str = EDGE) -> Page:
    return pages.check(body, pipeline_version=str(rows.VERSION), partition=partition)


def test_large_page_that_came_uncompressed_is_compressed() -> None:
    sent = rows.table(rows.run(1000))
    page = check(rows.stream(sent, None))
    assert len(page.body) < len(rows.stream(sent, None)) / 3
    assert pages.read(page.body).equals(sent)


def test_small_page_that_came_uncompressed_is_kept_as_it_is() -> None:
    body = rows.stream(rows.table(rows.run(3)), None)
    assert check(body).body == body


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_page_is_kept_byte_for_byte(compression: str) -> None:
    body = rows.stream(rows.table(rows.run(1000)), compression)
    page = check(body)
    assert page.body == body
    assert (page.rows, page.time_min, page.time_max) == (1000, rows.START, rows.START + 999)
    assert pages.read(page.body).equals(rows.table(rows.run(1000)))


def test_times_may_be_plain_whole_numbers() -> None:
    columns = rows.columns([5, 3, 4])
    page = check(rows.stream(pa.table(columns | {"time": pa.array([5, 3, 4], pa.int64())})))
    assert (page.time_min, page.time_max) == (3, 5)


def test_page_of_many_batches_is_one_page() -> None:
    assert check(rows.stream(rows.table(rows.run(100)), rows_a_batch=7)).rows == 100


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_arrow_file_is_stored_as_the_stream_in_it(compression: str | None) -> None:
    data = rows.table(rows.run(10))
    page = check(rows.file(data, compression))
    assert pages.read(page.body).equals(data)
    assert not page.body.startswith(b"ARROW1")


def test_bytes_after_the_stream_are_not_kept() -> None:
    body = rows.page(rows.run(3))
    assert check(body + b"more").body == body


def test_partition_is_the_sessions_whatever_the_body_says() -> None:
    table = pages.read(check(rows.page(rows.run(5), partition="somebody-else")).body)
    assert table.column("metadata").combine_chunks().field("partition").to_pylist() == [EDGE] * 5
    assert table.schema == rows.table([1]).schema
    assert table.drop_columns(["metadata"]).equals(rows.table(rows.run(5)).drop_columns(["metadata"]))


def test_missing_partition_is_filled_in_every_batch() -> None:
    data = rows.columns(rows.run(10))
    children = [*data["metadata"].flatten()[:-1], pa.nulls(10, pa.string())]
    data["metadata"] = pa.StructArray.from_arrays(children, fields=list(rows.METADATA))
    table = pages.read(check(rows.stream(pa.table(data), rows_a_batch=3)).body)
    assert set(table.column("metadata").combine_chunks().field("partition").to_pylist()) == {EDGE}


def test_trimmed_page_has_the_rows_after_the_skipped_ones() -> None:
    page = check(rows.page(rows.run(10))).after(7)
    assert (page.rows, page.time_min) == (3, rows.START + 7)
    assert pages.read(page.body).equals(rows.table(rows.run(10)).slice(7))


def test_schema_id_tells_types_apart_and_ignores_metadata() -> None:
    plain = rows.table([1])
    described = plain.replace_schema_metadata({"made": "by a test"})
    other = rows.table([1], outputs={"variable": pa.array([[1.0]], pa.list_(pa.float64()))})
    ids = [check(rows.stream(data)).schema_id for data in (plain, described, other)]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 64


UNUSABLE = {
    "no time": rows.table([1]).drop_columns(["time"]),
    "times in seconds": pa.table(rows.columns([1]) | {"time": pa.array([1], pa.timestamp("s"))}),
    "times with a zone": pa.table(rows.columns([1]) | {"time": pa.array([1], pa.timestamp("ms", "UTC"))}),
    "a row without a time": pa.table(rows.columns([1]) | {"time": pa.array([None], pa.timestamp("ms"))}),
    "a time before 1970": rows.table([-1]),
    "a time that Python cannot show": rows.table([pages.LATEST_TIME + 1]),
    "flat inputs": pa.table(rows.columns([1]) | {"in": pa.array([1.0])}),
    "no anomaly count": pa.table(rows.columns([1]) | {"anomaly": pa.array([{"other": 1}])}),
    "anomaly count is text": pa.table(rows.columns([1]) | {"anomaly": pa.array([{"count": "1"}])}),
    "no metadata": rows.table([1]).drop_columns(["metadata"]),
    "metadata without partition": pa.table(rows.columns([1]) | {"metadata": pa.array([{"pipeline_version": "x"}])}),
    "null metadata": pa.table(rows.columns([1]) | {"metadata": pa.array([None], rows.METADATA)}),
    "another pipeline version": rows.table([1], version="22222222-2222-4222-8222-222222222222"),
    "a column twice": pa.Table.from_arrays(
        [*rows.table([1]).columns, pa.chunked_array([[1]])], [*rows.table([1]).column_names, "in"]
    ),
    "an output twice": rows.table([1]).set_column(
        2, "out", pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    ),
    "no rows": rows.table([]),
    "a dictionary": rows.table([1], inputs={"a": pa.array(["x"]).dictionary_encode()}),
    "a run-end encoding": rows.table(
        [1], inputs={"a": pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array([1.0]))}
    ),
    "a view": rows.table([1], inputs={"a": pa.array(["x"], pa.string_view())}),
    "bytes": rows.table([1], inputs={"a": pa.array([b"x"])}),
    "a map": rows.table([1], inputs={"a": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8()))}),
    "a union": rows.table(
        [1], inputs={"a": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["x"])])}
    ),
    "a decimal": rows.table([1], inputs={"a": pa.array([1], pa.decimal128(3))}),
    "an input with a zone": rows.table([1], inputs={"a": pa.array([1], pa.timestamp("ms", "UTC"))}),
    "an input that is a timestamp": rows.table([1], inputs={"time": pa.array([-(2**62)], pa.timestamp("ms"))}),
    "a list of no size": rows.table([1], inputs={"a": pa.array([[]], pa.list_(pa.float32(), 0))}),
    "a name with NUL": rows.table([1], inputs={"a\0b": pa.array([1.0])}),
    "an extension": rows.table([1], inputs={"a": pa.array(["{}"], pa.json_())}),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_columns_are_refused(name: str) -> None:
    with pytest.raises(InvalidPage) as refusal:
        check(rows.stream(UNUSABLE[name]))
    assert refusal.value.message.endswith((".", "apart."))


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff" * 64, b"ARROW1", b"ARROW1\0\0" + b"\xff" * 40 + b"ARROW1"])
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidPage):
        check(body)


def test_page_cut_short_is_refused_wherever_it_is_cut() -> None:
    body = rows.page(rows.run(3))
    end = len(body) - 8  # the end-of-stream marker says nothing that the rows before it do not
    for length in range(0, end, 37):
        with pytest.raises(InvalidPage):
            check(body[:length])


def test_more_rows_than_a_page_may_have_are_refused_with_the_limit() -> None:
    with pytest.raises(PageTooLarge) as refusal:
        check(rows.page(rows.run(pages.MAX_ROWS + 1)))
    assert refusal.value.data == {"limit": pages.MAX_ROWS}


def test_more_bytes_than_a_page_may_have_are_refused_with_the_limit() -> None:
    with pytest.raises(PageTooLarge) as refusal:
        check(bytes(pages.MAX_BYTES + 1))
    assert refusal.value.data == {"limit": pages.MAX_BYTES}


# Refused before memory is spent


def bytes_spent_on(body: bytes) -> int:
    """All memory that pyarrow asked for while the page was refused."""
    pool = pa.default_memory_pool()
    before = pool.total_bytes_allocated()
    with pytest.raises((InvalidPage, PageTooLarge)):
        check(body)
    return int(pool.total_bytes_allocated() - before)


def test_bomb_is_refused_before_it_is_decompressed() -> None:
    zeros = pa.array([bytes(64 * 1024**2).decode()] * 5)
    body = rows.page(rows.run(5), inputs={"text": zeros})
    assert len(body) < 200_000
    assert bytes_spent_on(body) < 1024**2


def test_compressed_buffer_that_claims_another_length_is_refused() -> None:
    body = rows.page(rows.run(1000))
    frame = body.index(b"\x28\xb5\x2f\xfd")  # the first zstd frame; its length stands before it
    for length in (2**40, -5, 2**63 - 1):
        forged = body[: frame - 8] + struct.pack("<q", length) + body[frame:]
        assert bytes_spent_on(forged) < 1024**2


def test_values_that_need_no_bytes_are_counted() -> None:
    nothing = pa.FixedSizeListArray.from_arrays(pa.nulls(5 * 20_000_000), 20_000_000)
    with pytest.raises(PageTooLarge):
        check(rows.page(rows.run(5), inputs={"nothing": nothing}))


def test_schema_of_too_many_fields_is_refused() -> None:
    many = {f"f{number}": pa.array([1.0]) for number in range(envelope.MAX_FIELDS)}
    with pytest.raises(InvalidPage, match="fields"):
        check(rows.page([1], inputs=many))


def test_schema_that_is_nested_too_deeply_is_refused() -> None:
    value = pa.array([1.0])
    for _ in range(envelope.MAX_DEPTH):
        value = pa.StructArray.from_arrays([value], names=["a"])
    with pytest.raises(InvalidPage, match="deep"):
        check(rows.page([1], inputs={"a": value}))


def pointing_twice(body: bytes, levels: int) -> bytes:
    """The page with the second child of each nested struct made to point to the first, as FlatBuffers allow."""
    forged = bytearray(body)
    length = struct.unpack_from("<I", body, 4)[0]
    metadata = memoryview(forged)[8 : 8 + length]
    message = envelope._Table(metadata, struct.unpack_from("<I", metadata, 0)[0])
    schema = message.table(2)
    assert schema
    field = list(schema.tables(1))[1]
    for _ in range(levels):
        begin, _count = field.vector(5)
        field = next(field.tables(5))
        struct.pack_into("<I", metadata, begin + 4, field.at - (begin + 4))
    return bytes(forged)


def test_fields_that_are_described_once_and_used_often_are_counted_each_time() -> None:
    levels = envelope.MAX_DEPTH - 2
    value = pa.array([1.0])
    for _ in range(levels):
        value = pa.StructArray.from_arrays([value, pa.array([1])], names=["a", "b"])
    body = rows.stream(rows.table([1]).set_column(1, "in", value))
    assert check(body).rows == 1
    forged = pointing_twice(body, levels)
    with pytest.raises(InvalidPage, match="fields"):
        check(forged)


# Whatever comes, it is a page or it is refused

SMALL = rows.page(rows.run(3))


def taken_or_refused(body: bytes) -> None:
    try:
        page = check(body)
    except (InvalidPage, PageTooLarge):
        return
    pages.read(page.body).to_pylist()
    page.after(page.rows - 1)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    taken_or_refused(body)
    taken_or_refused(SMALL[:16] + body)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from([SMALL, rows.stream(rows.table(rows.run(3)), None), rows.file(rows.table(rows.run(3)))]),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_any_damaged_page_is_taken_or_refused(body: bytes, changes: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(body)
    for at, value in changes:
        at %= len(damaged)
        damaged[at : at + len(value)] = value
    taken_or_refused(bytes(damaged))
