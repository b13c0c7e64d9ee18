"""Conditions on values: what they mean for each kind of column, and how faults are named."""

from typing import Any

import pyarrow as pa
import pytest

from common.errors import Invalid
from logs import conditions
from tests.logs import rows

FLOATS = pa.list_(pa.float32())


def matching(text: str, count: int = 4, anomaly: list[Any] | None = None, **outputs: pa.Array) -> list[int]:
    table = rows.table(rows.run(count), outputs=outputs)
    if anomaly is not None:
        table = table.set_column(3, "anomaly", pa.array(anomaly))
    found = conditions.parse(text).test(table).fill_null(False)
    return [at for at, is_met in enumerate(found.to_pylist()) if is_met]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out.price > 2", [2, 3]),
        ("out.price >= 2", [1, 2, 3]),
        ("out.price < 2", [0]),
        ("out.price <= 2.5", [0, 1]),
        ("out.price = 3", [2]),
        ("out.price == 3.0", [2]),
        ("out.price != 3", [0, 1, 3]),
        ("out.price = 2.5", []),
        ("out.price != 2.5", [0, 1, 2, 3]),
        ("out.price > 1e30", []),
        ("out.price < 99999999999999999999999", [0, 1, 2, 3]),
        ("out.price > -99999999999999999999999", [0, 1, 2, 3]),
        ("out.price > 1 and out.price < 4", [1, 2]),
        ("out.price = 1 or out.price > 3", [0, 3]),
        ("out.price = 1 or out.price > 1 and out.price < 3", [0, 1]),
        ("(out.price = 1 or out.price > 1) and out.price < 3", [0, 1]),
        ("not out.price = 1", [1, 2, 3]),
        ("NOT (out.price = 1 OR out.price = 2)", [2, 3]),
        ("out.price = 'x'", []),
        ("out.price = true", []),
        ("out.price.deeper = 1", []),
        ("out.price[0] = 1", []),
        ("out.missing = 1", []),
        ("not out.missing = 1", []),  # unknown is not false
        ("out_shadow.price = 1", []),
        ("out.price is null", []),
        ("out.missing is null", [0, 1, 2, 3]),
        ("out.missing is not null", []),
        ("in.id >= 2", [2, 3]),
        ("in.tensor = 2.5", [0, 1, 2, 3]),
        ("metadata.partition = 'houseprice-edge-01'", [0, 1, 2, 3]),
        ("metadata.elapsed > 33999", [0, 1, 2, 3]),
    ],
)
def test_whole_numbers(text: str, expected: list[int]) -> None:
    assert matching(text, price=pa.array([1, 2, 3, 4])) == expected


def test_a_list_meets_a_condition_when_any_of_its_elements_does() -> None:
    lists = pa.array([[1.0, 9.0], [2.0], [], None], FLOATS)
    assert matching("out.p > 5", p=lists) == [0]
    assert matching("out.p != 9", p=lists) == [0, 1]
    assert matching("out.p[0] = 1", p=lists) == [0]
    assert matching("out.p[1] > 0", p=lists) == [0]
    assert matching("out.p[-1] = 2", p=lists) == [1]
    assert matching("out.p is null", p=lists) == [2, 3]
    assert matching("not out.p > 5", p=lists) == [1]


def test_lists_in_lists_and_of_structs() -> None:
    nested = pa.array([[[1, 2], [3]], [[4]], [[]], None])
    assert matching("out.n = 3", n=nested) == [0]
    assert matching("out.n[0] = 3", n=nested) == []
    assert matching("out.n[1][0] = 3", n=nested) == [0]
    boxes = pa.array([[{"x": 1}, {"x": 7}], [{"x": 2}], [], None])
    assert matching("out.boxes.x > 5", boxes=boxes) == [0]
    assert matching("out.boxes[0].x = 2", boxes=boxes) == [1]
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0], None, [5.0, 6.0]], pa.list_(pa.float32(), 2))
    assert matching("out.f > 3.5", f=fixed) == [1, 3]
    assert matching("out.f[1] = 2", f=fixed) == [0]


def test_a_number_is_compared_as_the_column_shows_it() -> None:
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        assert matching("out.p = 0.1", count=2, p=pa.array([0.1, 0.2], kind)) == [0]
        assert matching("out.p > 0.1", count=2, p=pa.array([0.1, 0.2], kind)) == [1]
    large = pa.array([2**53, 2**53 + 1], pa.int64())
    assert matching("out.p = 9007199254740993", count=2, p=large) == [1]
    unsigned = pa.array([0, 200], pa.uint8())
    assert matching("out.p > -1", count=2, p=unsigned) == [0, 1]
    assert matching("out.p <= 255.5", count=2, p=unsigned) == [0, 1]
    assert matching("out.p = 300", count=2, p=unsigned) == []


def test_what_is_no_number_meets_nothing_but_unequal() -> None:
    values = pa.array([float("nan"), float("inf"), 1.0, None])
    assert matching("out.p > 0", p=values) == [1, 2]
    assert matching("out.p != 1", p=values) == [0, 1]


def test_texts_and_names_in_quotes() -> None:
    cities = pa.array(["Oslo", "it's", 'say "x"', "a\\b"])
    assert matching("out.city = 'Oslo'", city=cities) == [0]
    assert matching('out.city = "it\'s"', city=cities) == [1]
    assert matching(r"out.city = 'it\'s'", city=cities) == [1]
    assert matching(r"out.city = 'a\\b'", city=cities) == [3]
    assert matching("out.city < 'P'", city=cities) == [0]
    assert matching("out.`my city` = 'Oslo'", **{"my city": cities}) == [0]
    assert matching("out.`a.b` = 'Oslo'", **{"a.b": cities}) == [0]
    assert matching("out.my-city = 'Oslo'", **{"my-city": cities}) == [0]


def test_validations_and_missing_groups() -> None:
    anomaly = [{"count": 1, "too_high": True}, {"count": 0, "too_high": False}, None]
    value = pa.array([1, 2, 3])
    assert matching("anomaly.too_high = true", 3, anomaly, v=value) == [0]
    assert matching("anomaly.too_high != true", 3, anomaly, v=value) == [1]
    assert matching("anomaly.count > 0", 3, anomaly, v=value) == [0]
    assert matching("anomaly.count is null", 3, anomaly, v=value) == [2]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "needs a column such as out.variable where it has its end"),
        ("out", "needs a '.' and the name of a column of out where it has its end"),
        ("price > 1", "needs a column of in, out, anomaly or metadata"),
        ("out.price", "needs one of = != < <= > >= or `is null` where it has its end"),
        ("out.price >", "needs a number, a text in quotes, true or false where it has its end"),
        ("out.price > price", "where it has 'price' at character 13"),
        ("out.price > 1 out.x", "needs and, or, or the end where it has 'out' at character 15"),
        ("(out.price > 1", "needs a ')' where it has its end"),
        ("out.price is 1", "needs null where it has '1'"),
        ("out.price[x] = 1", "needs the index of an element"),
        ("out.price > true", "orders true: use = or !="),
        ("time > 5", "use start and end"),
        ("out.price > 5; drop table", "cannot be read from '; drop table'"),
        ("out.price > 'x", "cannot be read from"),
        ("out.price > __import__('os')", "where it has '__import__'"),
        ("out.price > 1.2.3", "cannot be read from"),
        ("not " * 30 + "out.price = 1", "nested 20 deep at most"),
        ("(" * 30 + "out.price = 1" + ")" * 30, "nested 20 deep at most"),
        ("out.price = 1" + " or out.price = 1" * 50, "at most 250 words"),
        ("out.price = '" + "x" * 1000 + "'", "at most 1000 characters"),
    ],
)
def test_faults_are_named(text: str, part: str) -> None:
    with pytest.raises(Invalid) as fault:
        conditions.parse(text)
    assert part in fault.value.message


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("out.p > 20", False),
        ("out.p >= 20", True),
        ("out.p < 10", False),
        ("out.p <= 10", True),
        ("out.p = 15", True),
        ("out.p = 9", False),
        ("out.p = 21", False),
        ("out.p != 15", True),
        ("out.p = 'x'", True),
        ("not out.p > 0", True),
        ("out.q > 99", True),
        ("out.p > 20 and out.q > 1", False),
        ("out.p > 20 or out.q > 1", True),
        ("out.p is null", True),
        ("out.p[0] > 20", False),
    ],
)
def test_bounds_rule_out_only_what_cannot_be(text: str, may: bool) -> None:
    bounds: dict[tuple[str, ...], tuple[Any, Any]] = {("out", "p"): (10, 20)}
    assert conditions.parse(text).may_hold(bounds.get) is may


def test_bounds_of_floats_are_not_taken_for_exact() -> None:
    stored = pa.scalar(0.1, pa.float32()).as_py()
    assert stored > 0.1
    assert conditions.parse("out.p = 0.1").may_hold(lambda _path: (stored, stored))
    assert conditions.parse("out.p <= 0.1").may_hold(lambda _path: (stored, stored))
    assert conditions.parse("out.p >= 99999999999999999999999").may_hold(lambda _path: (0.0, float("inf")))
