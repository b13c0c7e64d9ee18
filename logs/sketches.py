"""Summaries of numbers that add up: two of them merge into the one that all their numbers together would have had.

A sketch counts numbers in buckets whose bounds grow by a constant factor, so that a quantile is off by at most 1 % of
its value. When it has too many buckets, each two neighbours become one (the error about doubles), which gives the same
sketch in whatever order it was merged. The buckets are those of DDSketch (Masson et al., arXiv:1908.10693), the joining
is that of UDDSketch (Epicoco et al., arXiv:2004.08604).
"""

import json
import math
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

ERROR = 0.01  # of a quantile, relative, until buckets are joined
MAX_BUCKETS = 256
_LOG_FACTOR = math.log((1 + ERROR) / (1 - ERROR))
# A key is sign * (index + _OFFSET), and 0 for zero, so that keys have the order of the values. The index of the
# smallest and the largest float64 is within +-37,300.
_OFFSET = 1 << 16
_SPAN = 1 << 18
_TOLD = ("count", "nulls", "odd", "low", "high", "mean", "m2", "level")  # what is packed of a sketch beside its buckets


def _nothing() -> Integers:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Sketch:
    """`count` finite numbers; `nulls` were null and `odd` no finite number (NaN, infinity), which is all of those.

    `m2` is the sum of squared differences from the mean. `keys` (ascending) and `counts` are the buckets, after `level`
    joinings.
    """

    count: int = 0
    nulls: int = 0
    odd: int = 0
    low: float = math.inf
    high: float = -math.inf
    mean: float = 0.0
    m2: float = 0.0
    level: int = 0
    keys: Integers = field(default_factory=_nothing)
    counts: Integers = field(default_factory=_nothing)

    @property
    def deviation(self) -> float:
        """The standard deviation of the population."""
        return math.sqrt(self.m2 / self.count) if self.count else math.nan

    def quantiles(self, wanted: Iterable[float]) -> list[float]:
        """Values below which those parts (0 to 1) of the numbers lie; NaN when there are none."""
        parts = np.asarray(list(wanted), dtype=np.float64)
        if not self.count:
            return [math.nan] * len(parts)
        ranks = np.floor(parts * (self.count - 1)).astype(np.int64)
        at = np.searchsorted(np.cumsum(self.counts), ranks, side="right")
        lower, upper = self._bounds()
        # The value whose relative distance from both bounds is the same: 2 l u / (l + u).
        middles = 2 * lower / (1 + lower / np.where(upper == 0, 1.0, upper))
        return [float(value) for value in np.clip(middles[at], self.low, self.high)]

    def histogram(self, edges: Floats) -> Floats:
        """How many numbers lie between each two edges, as far as the buckets tell: a bucket counts as spread evenly."""
        if not self.count:
            return np.zeros(max(len(edges) - 1, 0))
        lower, upper = self._bounds()
        ends = np.cumsum(self.counts).astype(np.float64)
        places = np.column_stack((np.maximum(lower, self.low), np.minimum(upper, self.high))).ravel()
        reached = np.column_stack((ends - self.counts, ends)).ravel()
        # The lowest number itself is in the first bin, not below it.
        below = np.where(edges <= self.low, 0.0, np.interp(edges, places, reached))
        return np.diff(np.where(edges >= self.high, float(self.count), below))

    def _bounds(self) -> tuple[Floats, Floats]:
        """The lower and upper bound of each bucket, as values."""
        scale = _LOG_FACTOR * 2**self.level
        index = np.abs(self.keys) - _OFFSET
        with np.errstate(over="ignore", under="ignore"):
            near, far = np.exp((index - 1) * scale), np.minimum(np.exp(index * scale), np.finfo(np.float64).max)
        lower = np.where(self.keys < 0, -far, near)
        upper = np.where(self.keys < 0, -near, far)
        return np.where(self.keys == 0, 0.0, lower), np.where(self.keys == 0, 0.0, upper)


def of_groups(values: Floats, groups: Integers, count: int, nulls: Integers | None = None) -> list[Sketch]:
    """A sketch of each of `count` groups; `groups` says to which a value belongs. `nulls` are counted per group."""
    is_number = np.isfinite(values)
    odd = np.bincount(groups[~is_number], minlength=count)
    numbers, owners = (values, groups) if is_number.all() else (values[is_number], groups[is_number])
    counts = np.bincount(owners, minlength=count)
    lows, highs = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(lows, owners, numbers)
    np.maximum.at(highs, owners, numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.bincount(owners, weights=numbers, minlength=count) / np.maximum(counts, 1)
        m2s = np.bincount(owners, weights=(numbers - means[owners]) ** 2, minlength=count)
    pairs, sizes = np.unique(owners * _SPAN + _keys(numbers) + _SPAN // 2, return_counts=True)
    begins = np.searchsorted(pairs, np.arange(count + 1) * _SPAN)
    keys = pairs % _SPAN - _SPAN // 2
    missing = np.zeros(count, dtype=np.int64) if nulls is None else nulls
    return [
        _bounded(
            Sketch(
                count=int(counts[at]),
                nulls=int(missing[at]),
                odd=int(odd[at]),
                low=float(lows[at]),
                high=float(highs[at]),
                mean=float(means[at]),
                m2=float(m2s[at]),
                keys=keys[begins[at] : begins[at + 1]],
                counts=sizes[begins[at] : begins[at + 1]].astype(np.int64),
            )
        )
        for at in range(count)
    ]


def merged(sketches: Iterable[Sketch]) -> Sketch:
    """One sketch of all their numbers."""
    given = list(sketches)
    if len(given) == 1:
        return given[0]
    filled = [sketch for sketch in given if sketch.count]
    count = sum(sketch.count for sketch in filled)
    level = max((sketch.level for sketch in filled), default=0)
    parts = [_joined(sketch, level) for sketch in filled]
    keys, counts = _summed([part.keys for part in parts], [part.counts for part in parts])
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.asarray([sketch.count for sketch in filled], dtype=np.float64)
        means = np.asarray([sketch.mean for sketch in filled], dtype=np.float64)
        mean = float((sizes * means).sum() / count) if count else 0.0
        m2 = float((np.asarray([s.m2 for s in filled]) + sizes * (means - mean) ** 2).sum()) if count else 0.0
    return _bounded(
        Sketch(
            count=count,
            nulls=sum(sketch.nulls for sketch in given),
            odd=sum(sketch.odd for sketch in given),
            low=min((sketch.low for sketch in filled), default=math.inf),
            high=max((sketch.high for sketch in filled), default=-math.inf),
            mean=mean,
            m2=m2,
            level=level,
            keys=keys,
            counts=counts,
        )
    )


def _keys(numbers: Floats) -> Integers:
    with np.errstate(divide="ignore"):
        index = np.ceil(np.log(np.abs(numbers)) / _LOG_FACTOR)
    index = np.where(numbers == 0, -_OFFSET, index)
    return np.asarray(np.sign(numbers) * (index + _OFFSET), dtype=np.int64)


def _bounded(sketch: Sketch) -> Sketch:
    while len(sketch.keys) > MAX_BUCKETS:
        sketch = _joined(sketch, sketch.level + 1)
    return sketch


def _joined(sketch: Sketch, level: int) -> Sketch:
    """The sketch with each two neighbouring buckets joined until it has that level."""
    if sketch.level == level:
        return sketch
    index = np.abs(sketch.keys) - _OFFSET
    wider = -((-index) >> (level - sketch.level))  # rounded up, as `_keys` rounds
    keys = np.where(sketch.keys == 0, 0, np.sign(sketch.keys) * (wider + _OFFSET))
    keys, counts = _summed([keys], [sketch.counts])
    return Sketch(**{**vars(sketch), "level": level, "keys": keys, "counts": counts})


def _summed(keys: list[Integers], counts: list[Integers]) -> tuple[Integers, Integers]:
    """Each key once, ascending, with the sum of its counts."""
    if not keys:
        return _nothing(), _nothing()
    found, at = np.unique(np.concatenate(keys), return_inverse=True)
    sums = np.zeros(len(found), dtype=np.int64)
    np.add.at(sums, at, np.concatenate(counts))
    return found, sums


def packed(sketches: Mapping[str, Sketch]) -> bytes:
    """Sketches by name, as few bytes."""
    given = list(sketches.items())
    head = json.dumps(
        [[name, *(getattr(sketch, told) for told in _TOLD), len(sketch.keys)] for name, sketch in given],
        separators=(",", ":"),
    ).encode()
    keys = np.concatenate([_nothing(), *(sketch.keys for _, sketch in given)])
    counts = np.concatenate([_nothing(), *(sketch.counts for _, sketch in given)])
    steps = np.diff(keys, prepend=0).astype("<i4")
    body = struct.pack("<I", len(head)) + head + steps.tobytes() + counts.astype("<i8").tobytes()
    return zlib.compress(body, 1)


def unpacked(data: bytes | memoryview, only: str | None = None) -> dict[str, Sketch]:
    """What `packed` made; just the sketch of one name when it is given."""
    if not data:
        return {}
    body = zlib.decompress(data)
    begin = 4 + struct.unpack_from("<I", body)[0]
    head = json.loads(body[4:begin])
    total = sum(line[-1] for line in head)
    keys = np.cumsum(np.frombuffer(body, dtype="<i4", count=total, offset=begin), dtype=np.int64)
    counts = np.frombuffer(body, dtype="<i8", count=total, offset=begin + 4 * total).astype(np.int64)
    found: dict[str, Sketch] = {}
    at = 0
    for name, *values, buckets in head:
        if only is None or name == only:
            told = dict(zip(_TOLD, values, strict=True))
            found[name] = Sketch(**told, keys=keys[at : at + buckets], counts=counts[at : at + buckets])
        at += buckets
    return found
