"""Bodies of one column of numbers, read as text: the same numbers, and the same faults, as read one by one."""

import re

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from opsengine import decode, vectors
from opsengine.errors import RequestError
from opsengine.runtime import Input

LIMIT = 2**26
NUMBER_TYPE = re.compile(r"type (float64|u?int64)")  # which of them JSON's numbers were kept as
TYPES = ("float32", "float64", "float16", "int8", "int32", "int64", "uint64", "bool", "O")
NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.integers(-(2**54), 2**54),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, -0.0, 1e22, 1.7976931348623157e308, 5e-324, 0.1 + 0.2]),
)
ANYTHING = st.one_of(
    NUMBERS, st.booleans(), st.none(), st.text('],[{}"\\a\u20ac', max_size=4), st.just([1]), st.just({"a": 1})
)
SPACES = st.sampled_from(["", "", " ", "\n  ", "\t\r\n"])
NAMES = st.one_of(st.just("tensor"), st.text(max_size=3))


@st.composite
def bodies(draw):
    """Text of records with a column of lists, mostly even and of numbers, in one style of white space or in several."""
    name, width = draw(NAMES), draw(st.integers(1, 4))
    values = st.lists(NUMBERS, min_size=width, max_size=width)
    if draw(st.integers(0, 3)) == 0:
        values = st.one_of(values, st.lists(ANYTHING, max_size=4), ANYTHING)
    rows = draw(st.lists(values, min_size=1, max_size=4))
    one = draw(SPACES)
    space = (lambda: one) if draw(st.booleans()) else (lambda: draw(SPACES))

    def text(row):
        told = orjson.dumps(row) if _fits(row) else str(row).encode()
        return f"{{{space()}{orjson.dumps(name).decode()}{space()}:{space()}".encode() + told + f"{space()}}}".encode()

    between = f"{space()},{space()}".encode()
    return f"{space()}[{space()}".encode() + between.join(map(text, rows)) + f"{space()}]{space()}".encode()


def _fits(row):
    """Whether orjson prints it; what else there is are lists of numbers, which Python prints as JSON."""
    values = row if isinstance(row, list) else [row]
    return all(not isinstance(value, int) or -(2**63) <= value < 2**64 for value in values)


@st.composite
def bent(draw):
    """A body with a piece taken out, put in or repeated: often no JSON any more."""
    body = draw(bodies())
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    piece = draw(
        st.one_of(st.sampled_from([b"", b"]", b"[", b"],[", b"}", b"{", b",", b'"', b"1", b"]},{", b"\xff", b"\0"]))
    )
    return body[:start] + piece + body[draw(st.sampled_from([start, end])) :]


def outcome(body):
    """What each type of model gets of the body's columns, or why not; and the columns as answers tell them."""
    try:
        batch = decode.read(body, decode.JSON, LIMIT)
    except RequestError as error:
        return str(error)
    told = {}
    for name, column in batch.columns.items():
        for kind in TYPES:
            try:
                array = Input("x", np.dtype(kind), (None,), None).prepare(column, name)
                told[name, kind] = array.shape, array.tolist()
            except RequestError as error:
                told[name, kind] = NUMBER_TYPE.sub("of numbers", str(error))
    return batch.count, told, {name: sent_as(value) for name, value in batch.sent.items()}


def sent_as(value):
    return [orjson.loads(b"[%b]" % text) for text in value.texts] if isinstance(value, vectors.Written) else value


def both_ways(body):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "LEAST_BODY", 0)
        quick = outcome(body)
        patch.setattr(vectors, "LEAST_BODY", 2**30)
        return quick, outcome(body)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies())
@example(b'[{"tensor":[1,2]},{"tensor":[3,4]}]')
@example(b'[{"tensor":[1],[2]},{"tensor":[3]}]')
@example(b'[{"tensor":[1,2]},{"tensor":[3]},{"tensor":[4,5,6]}]')
@example(b'[{"tensor":[]},{"tensor":[]}]')
@example(b'[{"tensor":[],"x":[1]}]')
@example(b'[{"tensor":[true]},{"tensor":[1]}]')
@example(b'[{"tensor":["]},{\\"tensor\\":["]},{"tensor":[1]}]')
@example(b'[{"tensor":[{"a":1]},{"tensor":["b":2}]}]')
@example(b'[{"tensor":[9007199254740993]}]')
@example(b'[{"tensor":[1e400]}]')
@example(b'[{"\xff":[1]}]')
@example('[{"\u20ac":[1]}]'.encode())
def test_any_body_is_read_like_record_by_record(body):
    quick, slow = both_ways(body)
    assert quick == slow


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(bent())
def test_any_damaged_body_is_read_like_record_by_record(body):
    quick, slow = both_ways(body)
    assert quick == slow


@pytest.mark.parametrize(
    "body",
    [
        b'[{"tensor":[1.5,2]},{"tensor":[3,-4e2]}]',
        b'[{"tensor": [1.5, 2]}, {"tensor": [3, -4e2]}]',
        b' [\n {"tensor":\t[1.5,2\n]\n },\n {"tensor":\t[3, -4e2]\r}]\n',
    ],
)
def test_usual_ways_to_write_a_body_are_known(body):
    column = vectors.read(body)
    assert column.name == "tensor"
    assert (column.numbers.dtype, column.numbers.tolist()) == (np.float64, [[1.5, 2.0], [3.0, -400.0]])
    assert [text.replace(b" ", b"").strip() for text in column.sent.texts] == [b"1.5,2", b"3,-4e2"]


def test_single_row_is_known_however_long():
    numbers = np.random.default_rng(1).normal(size=100_000).tolist()
    column = vectors.read(orjson.dumps([{"tensor": numbers}]))
    assert column.numbers.tolist() == [numbers]


@pytest.mark.parametrize(
    "body",
    [
        b'[{"tensor":[1],"x":[2]}]',
        b'[{"tensor":1}]',
        b'[{"tensor":[[1]]}]',
        b'[{"tensor":[9007199254740992]}]',
        b'[{"a\\u0062":[1]}]',
        b'{"tensor":[1]}',
        b"[]",
        b"",
    ],
)
def test_other_bodies_are_left_to_the_other_way(body):
    assert vectors.read(body) is None
