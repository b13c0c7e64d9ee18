"""Pages of the log: what is stored is what was answered, whatever its types and shapes."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.tests.test_logstore import FACTS, result, values
from opsengine import chunks, logpages
from opsengine.errors import DamagedPage
from opsengine.logstore import LogStore
from opsengine.rows import Answering, Result, of_result, to_batch

NUMBERS = st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]).map(np.dtype)
SHAPES = st.sampled_from([(), (1,), (3,), (0,), (2, 2), (2, 0, 3)])
TEXTS = st.text("aé0", max_size=3)
ARMS = (Answering('{"model_name":"m"}', "m", "m1", "{}"), Answering('{"model_name":"n"}', "n", "n1", "{}"))


def packed(results):
    return list(chunks.pack(results))


def read(pages):
    """The rows of pages, and their schema."""
    return pa.Table.from_batches(
        [logpages.batch_of(page.described, page.body, page.size, page.count) for page in pages]
    )


@st.composite
def columns(draw, count):
    names = draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))
    return {name: draw(arrays.arrays(draw(NUMBERS), (count, *draw(SHAPES)))) for name in names}


@st.composite
def results(draw):
    """A request of numbers only, of any kind."""
    count = draw(st.integers(1, 4))
    made = Result(
        FACTS,
        draw(st.integers(0, 2**41)),
        count,
        draw(columns(count)),
        draw(columns(count)),
        draw(st.tuples(st.integers(0, 2**40))),
    )
    if draw(st.booleans()):
        made.checks["low"] = draw(arrays.arrays(np.bool_, count))
    if draw(st.booleans()):
        made.recorded["shadow"] = draw(columns(count))
    if draw(st.booleans()):
        made.facts = FACTS._replace(arms=ARMS)
        made.arms = draw(arrays.arrays(np.int64, count, elements=st.integers(0, 1)))
    made.dropped = tuple(draw(st.lists(TEXTS, max_size=2)))
    return made


@settings(deadline=None)
@given(results(), st.integers(1, 3))
def test_numbers_are_read_as_they_were_answered(made, times):
    pages = logpages.of_chunks(packed([made] * times))
    expected = pa.Table.from_batches([to_batch(of_result(made))] * times)
    assert not pages[0].described.startswith(logpages.BATCH_SCHEMA)
    assert read(pages).schema == expected.schema
    assert repr(read(pages).to_pylist()) == repr(expected.to_pylist())  # so that NaN is itself


@settings(deadline=None)
@given(st.one_of(st.none(), TEXTS, st.lists(st.integers(0, 9))))
def test_other_values_are_read_as_they_were_answered(sent):
    made = result(1, note=[sent], words=np.array([["b"]], dtype=object))
    (page,) = logpages.of_chunks(packed([made]))
    assert page.described.startswith(logpages.BATCH_SCHEMA)
    assert read([page]).to_pylist() == to_batch(of_result(made)).to_pylist()


@pytest.mark.parametrize("more", [{}, {"note": ["a"] * 2500}], ids=["numbers", "others"])
def test_a_page_has_a_thousand_rows_at_most_and_tells_their_times(more):
    some = packed([result(*range(2500), moment=20, **more), result(*range(2500), moment=10, **more)])
    pages = logpages.of_chunks(some)
    assert [page.count for page in pages] == [1000] * 5
    assert [(page.time_min, page.time_max) for page in pages] == [(20, 20)] * 2 + [(10, 20)] + [(10, 10)] * 2
    assert [row["out"]["y"] for row in read(pages).to_pylist()] == [*range(2500)] * 2


@pytest.mark.parametrize("more", [{}, {"note": ["a"] * 50}], ids=["numbers", "others"])
def test_a_page_of_large_rows_has_fewer(more):
    wide = np.zeros((50, 2**18), dtype=np.float32)  # a MiB a row
    pages = logpages.of_chunks(packed([result(*range(50), x=wide, **more)]))
    assert max(page.size for page in pages) <= logpages.MOST_BYTES + 2**20
    assert sum(page.count for page in pages) == 50 and len(pages) >= 13


def test_pages_of_an_engine_that_stored_all_as_arrow_are_read_and_sent(tmp_path):
    store = LogStore(tmp_path / "rows.sqlite", 2**23)
    before = logpages.of_batch(FACTS.version, to_batch(of_result(result(1, 2))))
    store.append([before, *logpages.of_chunks(packed([result(3), result(4)]))])
    assert [row["out"]["y"] for batch in store.newest(10) for row in batch.to_pylist()] == [1, 2, 3, 4]
    sent = []
    while shipment := store.next(1000):
        sent.append(values(shipment))
        store.acknowledge(shipment.first + shipment.count - 1)
    assert sent == [[1, 2], [3, 4]]
    store.close()


def test_rows_of_other_shapes_are_sent_together(tmp_path):
    store = LogStore(tmp_path / "rows.sqlite", 2**23)
    for width in (3, 1, 4):
        store.append(logpages.of_chunks(packed([result(width, width=width)])))
    shipment = store.next(1000)
    assert [len(row["in"]["x"]) for batch in shipment.batches for row in batch.to_pylist()] == [3, 1, 4]
    store.close()


@pytest.mark.parametrize("more", [{}, {"note": ["a", "b"]}], ids=["numbers", "others"])
@pytest.mark.parametrize("harm", [lambda body: body[:-9], lambda body: b"\0" * len(body), lambda body: b""])
def test_a_damaged_page_is_no_rows(more, harm):
    (page,) = logpages.of_chunks(packed([result(1, 2, **more)]))
    with pytest.raises(DamagedPage):
        read([replace(page, body=harm(page.body))])


@pytest.mark.parametrize("more", [{}, {"note": ["a", "b"]}], ids=["numbers", "others"])
def test_a_page_that_tells_of_fewer_rows_is_damaged(more):
    (page,) = logpages.of_chunks(packed([result(1, 2, **more)]))
    (shorter,) = logpages.of_chunks(packed([result(1, **{name: few[:1] for name, few in more.items()})]))
    with pytest.raises(DamagedPage, match="1 rows instead of 2"):
        read([replace(page, body=shorter.body, size=shorter.size)])


def test_a_damaged_page_is_told_before_its_rows_are_used():
    """Arrow ends the process over places of texts that are not there, where they are sent or cut."""
    (page,) = logpages.of_chunks(packed([result(1, 2, note=["one", "twenty"])]))
    message = pa.decompress(page.body, decompressed_size=page.size, codec=logpages.BATCH_CODEC, asbytes=True)
    ends = np.array([0, 3, 9], dtype="<i4").tobytes()
    assert ends in message
    harmed = message.replace(ends, np.array([0, 2**30, 9], dtype="<i4").tobytes())
    with pytest.raises(DamagedPage):
        read([replace(page, body=pa.compress(harmed, codec=logpages.BATCH_CODEC, asbytes=True))])


@pytest.mark.parametrize("fault", [EOFError, IndexError, OverflowError, SyntaxError], ids=lambda fault: fault.__name__)
def test_whatever_is_raised_over_a_page_it_is_damaged(monkeypatch, fault):
    def refuse(*_):
        raise fault("end of stream")

    monkeypatch.setattr(logpages, "_read", refuse)
    (page,) = logpages.of_chunks(packed([result(1)]))
    with pytest.raises(DamagedPage, match="end of stream"):
        read([page])
