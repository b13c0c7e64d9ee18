"""JSON bodies with one column of numbers, `[{"tensor":[1.0,2.0]},...]`: the most common ones, and the longest.

To make an object of each number costs more than to read it. So the texts of the rows are cut out, read as one list of
numbers (simdjson), and kept: an answer tells its inputs as they were sent. Whatever is not for certain such a body is
left to opsengine.decode, which reads anything and says what is wrong with it.
"""

import re
from itertools import repeat
from typing import NamedTuple

import numpy as np
import simdjson

from opsengine.fields import EXACT, Array, Written

LEAST_BODY = 1000  # bytes; shorter ones are as quick the other way
LONGEST_END = 100  # bytes: more of them is white space
ARRAY = b"["
COMMA = b","

_SPACE = rb"[ \t\n\r]*"
_OPEN = rb'\{%b"([^"\\\x00-\x1f]+)"%b:%b\[' % (_SPACE, _SPACE, _SPACE)
_FIRST = re.compile(rb"%b\[%b%b" % (_SPACE, _SPACE, _OPEN))
_BETWEEN = re.compile(rb"\]%b\}%b,%b%b" % (_SPACE, _SPACE, _SPACE, _OPEN))
_LAST = re.compile(rb"\]%b\}%b\]%b\Z" % (_SPACE, _SPACE, _SPACE))


class Column(NamedTuple):
    """The only column of a body: float64 of shape (rows, numbers a row), exact, and the text of each row."""

    name: str
    numbers: Array
    sent: Written


def read(body: bytes) -> Column | None:
    """The column of a body with as many numbers in every row; None for any other body, right or wrong."""
    first = _FIRST.match(body)
    last = _LAST.search(body, max(0, len(body) - LONGEST_END))
    if first is None or last is None:
        return None
    texts = _rows(body[first.end() : last.start()], first[1])
    if texts is None:
        return None
    numbers = _numbers(texts)
    try:
        return None if numbers is None else Column(first[1].decode(), numbers, Written(texts))
    except UnicodeDecodeError:
        return None


def _rows(inner: bytes, name: bytes) -> list[bytes] | None:
    """What stands between the outermost brackets of each row, if all rows are written as the first two."""
    end = inner.find(b"]")
    if end < 0:
        return [inner]
    between = _BETWEEN.match(inner, end)
    return inner.split(between[0]) if between is not None and between[1] == name else None


def _numbers(texts: list[bytes]) -> Array | None:
    """The rows' numbers, if their texts hold nothing else and as many each.

    As one list the texts are valid JSON only if each is by itself, but for brackets that one opens and another closes,
    and for rows without numbers, which the count tells.
    """
    counts = set(map(bytes.count, texts, repeat(COMMA)))
    flat = COMMA.join(texts)
    if len(counts) > 1 or ARRAY in flat:
        return None
    try:
        parsed = simdjson.Parser().parse(b"[%b]" % flat)
        assert isinstance(parsed, simdjson.Array)  # by the brackets
        numbers = np.frombuffer(parsed.as_buffer(of_type="d"), np.float64)
    except (ValueError, TypeError, RuntimeError):  # no JSON, no numbers, or larger ones than there are
        return None
    width = counts.pop() + 1
    if numbers.size != width * len(texts) or np.abs(numbers).max() >= EXACT:
        return None
    return numbers.reshape(len(texts), width)
