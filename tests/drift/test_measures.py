"""Scores agree with numpy's histograms and the formulas written out."""

import math

import numpy as np
import pytest

from common.errors import Invalid
from drift import measures
from drift.measures import Aggregation, BinMode, Metric

RANDOM = np.random.default_rng(2)
BASELINE = RANDOM.gamma(3, 10, 4000)
WINDOW = RANDOM.gamma(3.5, 11, 900)


def by_hand(edges: list[float], values: np.ndarray) -> np.ndarray:
    """Parts of all numbers below, within and above, by `numpy.histogram`, which has the same rule for edges."""
    inner = np.histogram(values, edges)[0]
    return np.array([(values < edges[0]).sum(), *inner, (values > edges[-1]).sum()]) / len(values)


@pytest.mark.parametrize("mode", [BinMode.QUANTILE, BinMode.EQUAL, BinMode.GIVEN])
def test_scores_are_those_of_the_formulas(mode: BinMode) -> None:
    edges = measures.edges_of(BASELINE, mode, 7, [5.0, 20.0, 25.0, 60.0])
    before, now = by_hand(edges, BASELINE), by_hand(edges, WINDOW)
    dense = [measures.parts_of(values, edges, Aggregation.DENSITY) for values in (BASELINE, WINDOW)]
    assert dense[0] == pytest.approx(list(before))
    assert dense[1] == pytest.approx(list(now))
    floored = [[max(part, 0.0001) for part in parts] for parts in (before, now)]
    psi = sum((w - b) * math.log(w / b) for b, w in zip(*floored, strict=True))
    assert measures.score(Metric.PSI, *dense) == pytest.approx(psi)
    assert measures.score(Metric.MAX_DIFF, *dense) == pytest.approx(max(abs(now - before)))
    assert measures.score(Metric.SUM_DIFF, *dense) == pytest.approx(sum(abs(now - before)))
    whole = [measures.parts_of(values, edges, Aggregation.CUMULATIVE) for values in (BASELINE, WINDOW)]
    steps = abs(np.cumsum(now) - np.cumsum(before))
    assert measures.score(Metric.MAX_DIFF, *whole) == pytest.approx(max(steps))
    assert measures.score(Metric.SUM_DIFF, *whole) == pytest.approx(sum(steps))


def test_quantile_bins_hold_as_many_each() -> None:
    edges = measures.edges_of(BASELINE, BinMode.QUANTILE, 5)
    assert edges == pytest.approx(list(np.quantile(BASELINE, [0, 0.2, 0.4, 0.6, 0.8, 1])))
    assert list(measures.counts_of(BASELINE, edges)) == [0, 800, 800, 800, 800, 800, 0]


def test_equal_bins_are_as_wide_each() -> None:
    edges = measures.edges_of(BASELINE, BinMode.EQUAL, 4)
    assert np.diff(edges) == pytest.approx([(BASELINE.max() - BASELINE.min()) / 4] * 4)


def test_the_same_numbers_score_nothing() -> None:
    edges = measures.edges_of(BASELINE, BinMode.QUANTILE, 5)
    parts = measures.parts_of(BASELINE, edges, Aggregation.DENSITY)
    assert [measures.score(metric, parts, parts) for metric in Metric] == [0, 0, 0]


def test_what_lies_outside_is_counted_apart() -> None:
    edges = measures.edges_of(BASELINE, BinMode.QUANTILE, 5)
    far = np.array([edges[0] - 1, edges[0], edges[-1], edges[-1] + 1, edges[-1] + 2])
    assert list(measures.counts_of(far, edges)) == [1, 1, 0, 0, 0, 1, 2]


def test_a_baseline_of_one_value_has_one_bin() -> None:
    edges = measures.edges_of(np.full(50, 3.0), BinMode.QUANTILE, 5)
    assert list(measures.counts_of(np.array([2.0, 3.0, 3.0, 4.0]), edges)) == [1, 2, 1]


def test_numbers_that_repeat_make_fewer_bins() -> None:
    edges = measures.edges_of(np.array([0.0] * 90 + [1.0] * 10), BinMode.QUANTILE, 5)
    assert edges == [0.0, 1.0]


@pytest.mark.parametrize("edges", [[1.0], [1.0, 1.0], [2.0, 1.0], [float(n) for n in range(103)]])
def test_given_edges_that_are_no_bins_are_refused(edges: list[float]) -> None:
    with pytest.raises(Invalid, match="edges"):
        measures.edges_of(BASELINE, BinMode.GIVEN, given=edges)


def test_stats_are_those_of_numpy() -> None:
    stats = measures.stats_of(WINDOW)
    assert (stats.count, stats.min, stats.max) == (900, WINDOW.min(), WINDOW.max())
    assert (stats.mean, stats.median, stats.deviation) == pytest.approx(
        (WINDOW.mean(), np.median(WINDOW), WINDOW.std())
    )
    assert measures.stats_of(np.empty(0)).as_json() == {
        "count": 0, "min": None, "max": None, "mean": None, "median": None, "deviation": None,
    }  # fmt: skip
