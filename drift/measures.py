"""How far the numbers of a window are from those of a baseline.

Both are counted in the same bins: those of the baseline between its lowest and highest number, one for what is below
and one for what is above. A *density* is each bin's part of all numbers, *cumulative* the part up to and with each.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from django.utils.translation import gettext as _

from common.errors import Invalid

Floats = npt.NDArray[np.float64]

MAX_BINS = 100
LEAST_PART = 1e-4  # so that an empty bin does not make PSI infinite


class BinMode(StrEnum):
    """Quantile: as many of the baseline's numbers in each. Equal: of the same width. Given: by their edges."""

    QUANTILE = "quantile"
    EQUAL = "equal"
    GIVEN = "given"


class Aggregation(StrEnum):
    DENSITY = "density"
    CUMULATIVE = "cumulative"


class Metric(StrEnum):
    """PSI: sum of (w - b) ln(w / b) over the bins. Max diff: the largest |w - b|. Sum diff: the sum of |w - b|."""

    PSI = "psi"
    MAX_DIFF = "max_diff"
    SUM_DIFF = "sum_diff"


@dataclass(frozen=True)
class Stats:
    """None where there are no numbers. The deviation is that of a population."""

    count: int
    min: float | None
    max: float | None
    mean: float | None
    median: float | None
    deviation: float | None

    def as_json(self) -> dict[str, float | int | None]:
        """As it is stored and answered."""
        return asdict(self)


def stats_of(values: Floats) -> Stats:
    """Of finite numbers."""
    if not len(values):
        return Stats(0, None, None, None, None, None)
    with np.errstate(over="ignore", invalid="ignore"):
        found = (values.min(), values.max(), values.mean(), np.median(values), values.std())
    return Stats(len(values), *(float(value) if np.isfinite(value) else None for value in found))


def edges_of(baseline: Floats, mode: BinMode, bins: int = 5, given: Sequence[float] = ()) -> list[float]:
    """The edges of the inner bins, ascending. Quantiles that are the same make one bin. Raises `Invalid`."""
    if mode is BinMode.GIVEN:
        if not 2 <= len(given) <= MAX_BINS + 1 or any(left >= right for left, right in pairwise(given)):
            raise Invalid(
                _("Give 2 to %(max_bins)s edges of bins, each larger than the one before.") % {"max_bins": MAX_BINS + 1}
            )
        return [float(edge) for edge in given]
    if not 1 <= bins <= MAX_BINS:
        raise Invalid(_("bins must be from 1 to %(max_bins)s.") % {"max_bins": MAX_BINS})
    if mode is BinMode.QUANTILE:
        edges = np.unique(np.quantile(baseline, np.linspace(0, 1, bins + 1)))
    else:
        # Halves, because the difference of the largest numbers is beyond the largest number.
        edges = np.unique(2 * np.linspace(baseline.min() / 2, baseline.max() / 2, bins + 1))
    found = [float(edge) for edge in edges]
    return found if len(found) > 1 else found * 2


def counts_of(values: Floats, edges: Sequence[float]) -> npt.NDArray[np.int64]:
    """How many numbers are below the edges, in each bin, and above. A bin has its lower edge, the last both."""
    bounds = np.asarray(edges)
    at = np.searchsorted(bounds, values, side="right")
    at = np.where(values == bounds[-1], len(bounds) - 1, at)
    return np.bincount(at, minlength=len(bounds) + 1).astype(np.int64)


def parts_of(values: Floats, edges: Sequence[float], aggregation: Aggregation) -> list[float]:
    """The numbers' parts by bin: below, the inner ones, above. There must be some."""
    parts = counts_of(values, edges) / len(values)
    return [float(part) for part in (np.cumsum(parts) if aggregation is Aggregation.CUMULATIVE else parts)]


def score(metric: Metric, baseline: Sequence[float], window: Sequence[float]) -> float:
    """The distance of two lists of parts; 0 when they are the same."""
    before, now = np.asarray(baseline), np.asarray(window)
    if metric is Metric.PSI:
        before, now = np.maximum(before, LEAST_PART), np.maximum(now, LEAST_PART)
        return float(((now - before) * np.log(now / before)).sum())
    differences = np.abs(now - before)
    return float(differences.max() if metric is Metric.MAX_DIFF else differences.sum())
