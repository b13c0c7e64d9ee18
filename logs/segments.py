"""Segments as a source of rows: what became of pages."""

import heapq
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from django.db.models import Q, QuerySet

from logs import segment_files, storage
from logs.live import changes
from logs.models import LogSegment
from logs.query import Order, Query, Rearranged, Rows
from logs.schemas import TIME
from logs.segment_files import KEYS, Group, Reader

logger = logging.getLogger(__name__)

LISTED = 256
_NONE = np.empty(0, dtype=np.int64)
_NOTHING = Rows(pa.table({"time": pa.array([], TIME)}), _NONE, _NONE)


class Segments:
    """The segments of a queryset as a source of rows, a piece a group of rows."""

    def __init__(self, found: QuerySet[LogSegment]) -> None:
        self.found = found

    def pieces(self, query: Query) -> Iterator["SegmentPiece"]:
        """The groups that may hold rows of the query. A file is opened when its newest (or oldest) row is next."""
        sign, count = query.order.sign, itertools.count()
        waiting: list[tuple[int, int, SegmentPiece]] = []
        for segment in self._listed(query):
            reach = sign * (segment.time_max if sign > 0 else segment.time_min)
            while waiting and -waiting[0][0] > reach:
                yield heapq.heappop(waiting)[2]
            if query.filters.edges and not _may_be_of_edges(segment, query):
                continue
            for piece in _pieces(segment, query):
                heapq.heappush(waiting, (-piece.reach, next(count), piece))
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _listed(self, query: Query) -> Iterator[LogSegment]:
        """The segments that may hold rows of the query, the largest reach first, some at a time."""
        sign = query.order.sign
        key, beyond = ("time_max", "lt") if query.order is Order.NEWEST_FIRST else ("time_min", "gt")
        found = self.found.order_by(f"-{key}" if sign > 0 else key, "-pk" if sign > 0 else "pk")
        found = found.annotate(changes=changes())
        if query.earliest is not None:
            found = found.filter(time_max__gte=query.earliest)
        if query.latest is not None:
            found = found.filter(time_min__lte=query.latest)
        after = Q()
        known: int | None = None
        while True:
            some = list(found.filter(after)[:LISTED])
            told = some[0].changes if some else known
            known = told if known is None else known
            if told != known:
                raise Rearranged
            yield from some
            if len(some) < LISTED:
                return
            at, pk = getattr(some[-1], key), some[-1].pk
            after = Q(**{f"{key}__{beyond}e": at}) & (
                Q(**{f"{key}__{beyond}": at}) | Q(**{key: at, f"pk__{beyond}": pk})
            )


@dataclass(frozen=True)
class SegmentPiece:
    """A group of rows of a segment. Without a reader its file is gone."""

    path: str
    reader: Reader | None
    group: int
    reach: int
    query: Query

    def read(self) -> Rows | None:
        """Decodes it; None when it went away since it was listed."""
        if self.reader is None:
            return None
        try:
            # That is found out here, not when listing, so that it counts as looked at: a query looks at so much only.
            if not self.reader.may_hold(self.group, self.query.filters):
                return _NOTHING
            needed = [name for name in self.reader.schema.names if name not in KEYS and self.query.needs(name)]
            return Rows(*segment_files.split(self.reader.read(self.group, needed)))
        except FileNotFoundError:
            return None


def _may_be_of_edges(segment: LogSegment, query: Query) -> bool:
    return segment.partitions is None or any(query.filters.wants_edge(name) for name in segment.partitions)


def _pieces(segment: LogSegment, query: Query) -> Iterator[SegmentPiece]:
    sign = query.order.sign
    try:
        reader = segment_files.opened(storage.open_file(segment.path), segment.form)
    except FileNotFoundError:
        if LogSegment.objects.filter(pk=segment.pk, removed_at=None).exists():
            # One lost file must not hide all the rows that are there.
            logger.error("%s is missing, and with it %d rows of logs: restore it", segment.path, segment.rows)
            return
        yield SegmentPiece(segment.path, None, 0, sign * (segment.time_max if sign > 0 else segment.time_min), query)
        return
    for group in reader.groups:
        if _is_asked(group, query):
            reach = sign * (group.time_max if sign > 0 else group.time_min)
            yield SegmentPiece(segment.path, reader, group.number, reach, query)


def _is_asked(group: Group, query: Query) -> bool:
    is_early = query.earliest is not None and group.time_max < query.earliest
    is_late = query.latest is not None and group.time_min > query.latest
    return not (is_early or is_late)
