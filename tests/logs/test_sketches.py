"""Sketches add up: in whatever order they are merged, they are the sketch of all numbers."""

import math

import numpy as np
import pytest

from logs import sketches

RANDOM = np.random.default_rng(7)
SPREADS = {
    "prices": RANDOM.lognormal(12, 0.5, 20_000),
    "signed": RANDOM.normal(0, 3, 20_000),
    "far apart": RANDOM.normal(0, 1, 5_000) * 10.0 ** RANDOM.integers(-40, 40, 5_000),
    "one value": np.full(100, 4.25),
    "with zeros": np.concatenate((np.zeros(500), RANDOM.exponential(1, 500))),
}


def sketch_of(values: np.ndarray) -> sketches.Sketch:
    return sketches.of_groups(values, np.zeros(len(values), dtype=np.int64), 1)[0]


@pytest.mark.parametrize("name", SPREADS)
def test_merged_in_any_order_is_the_sketch_of_all(name: str) -> None:
    values = SPREADS[name]
    whole = sketch_of(values)
    parts = [sketch_of(part) for part in np.array_split(values, 13)]
    at_once = sketches.merged(parts)
    one_by_one = parts[5]
    for part in [*parts[6:], *parts[:5][::-1]]:
        one_by_one = sketches.merged([part, one_by_one])
    for found in (at_once, one_by_one):
        assert (found.count, found.level, found.low, found.high) == (whole.count, whole.level, whole.low, whole.high)
        assert np.array_equal(found.keys, whole.keys)
        assert np.array_equal(found.counts, whole.counts)
        assert found.mean == pytest.approx(values.mean())
        assert found.deviation == pytest.approx(values.std())


@pytest.mark.parametrize("name", [name for name in SPREADS if name != "far apart"])
def test_quantiles_are_within_two_percent(name: str) -> None:
    values = SPREADS[name]
    sketch = sketch_of(values)
    wanted = (0, 0.01, 0.25, 0.5, 0.9, 0.99, 1)
    exact = np.quantile(values, wanted, method="lower")
    assert sketch.quantiles(wanted) == pytest.approx(list(exact), rel=0.02 if sketch.level < 2 else 0.04)


def test_groups_are_told_apart() -> None:
    values = np.array([1.0, 2.0, -3.0, math.nan, math.inf, 0.0, 8.0])
    groups = np.array([0, 2, 2, 2, 0, 0, 2])
    first, none, third = sketches.of_groups(values, groups, 3, nulls=np.array([0, 4, 1]))
    assert (first.count, first.odd, first.nulls, first.low, first.high) == (2, 1, 0, 0.0, 1.0)
    assert (none.count, none.odd, none.nulls) == (0, 0, 4)
    assert math.isnan(none.quantiles([0.5])[0])
    assert (third.count, third.odd, third.nulls, third.low, third.high) == (3, 1, 1, -3.0, 8.0)
    assert third.quantiles([0, 0.5, 1]) == pytest.approx([-3, 2, 8], rel=0.01)


def test_histogram_is_near_the_real_one() -> None:
    values = SPREADS["signed"]
    edges = np.linspace(values.min(), values.max(), 21)
    found = sketch_of(values).histogram(edges)
    assert found.sum() == pytest.approx(len(values))
    assert np.abs(found - np.histogram(values, edges)[0]).max() < 0.01 * len(values)


def test_histogram_of_one_value_has_it_in_its_bin() -> None:
    assert list(sketch_of(SPREADS["one value"]).histogram(np.array([3.75, 4.0, 4.5, 4.75]))) == [0, 100, 0]


def test_packing_keeps_everything() -> None:
    given = {
        "": sketches.Sketch(nulls=3),
        "out.x[0]": sketch_of(SPREADS["prices"]),
        "in.y": sketch_of(SPREADS["signed"]),
    }
    found = sketches.unpacked(sketches.packed(given))
    assert list(found) == list(given)
    for name, sketch in given.items():
        same = vars(found[name])
        assert np.array_equal(same.pop("keys"), sketch.keys)
        assert np.array_equal(same.pop("counts"), sketch.counts)
        assert same == {told: value for told, value in vars(sketch).items() if told not in ("keys", "counts")}
    assert list(sketches.unpacked(sketches.packed(given), "in.y")) == ["in.y"]


def test_a_sketch_has_few_buckets_whatever_comes() -> None:
    sketch = sketch_of(SPREADS["far apart"])
    assert len(sketch.keys) <= sketches.MAX_BUCKETS
    assert sketch.counts.sum() == 5_000
    assert sketch.quantiles([0.5])[0] == pytest.approx(np.quantile(SPREADS["far apart"], 0.5), abs=1)
