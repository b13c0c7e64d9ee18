"""A Prometheus histogram that takes many observations in one step.

prometheus_client's own takes one at a time, in a microsecond or two, which is a good part of a small request that runs
together with others. It still tells the metric: this is one of its collectors.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# Half a millisecond (a small model) to half a minute (a large one on a slow device).
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Series:
    """The durations of one set of labels."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """Count a duration, `count` times."""
        place = bisect_left(BUCKETS, seconds)  # a bucket's bound belongs to it
        with self._lock:
            self._counts[place] += count
            self._sum += seconds * count

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """Each bound with how many took no longer, and the sum of all."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        buckets, so_far = [], 0
        for bound, count in zip((*map(float, BUCKETS), "+Inf"), counts, strict=True):
            so_far += count
            buckets.append((str(bound), float(so_far)))
        return buckets, total


class Durations(Collector):
    """A histogram with labels. `name` is the metric's, `labels` the names of its labels."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        self._name, self._help, self._labels = name, help_text, labels
        self._series: dict[tuple[str, ...], Series] = {}

    def labels(self, *values: str) -> Series:
        """The series of these labels: to be kept by whoever observes often."""
        return self._series.setdefault(values, Series())

    def describe(self) -> Iterable[Metric]:
        """The metric without values."""
        return [HistogramMetricFamily(self._name, self._help, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        """The metric."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for values, series in tuple(self._series.items()):
            family.add_metric(values, *series.told())
        yield family
