"""Live pages as a source of rows: what arrived and is not yet in a segment."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from logs import pages
from logs.models import LogCompaction, LogPage
from logs.query import Order, Query, Rearranged, Rows

BATCH_BYTES = 16 * 1024**2  # bodies fetched at once
BATCH_PAGES = 64
LISTED_PAGES = 256


class LivePages:
    """The pages of a queryset as a source of rows."""

    def __init__(self, found: QuerySet[LogPage]) -> None:
        self.found = found

    def pieces(self, query: Query) -> Iterator["LivePage"]:
        """The pages that may hold rows of the query. Most queries end after a few: bodies are fetched when read."""
        for batch in _batches(self._listed(query), query):
            bodies = _Bodies([page.pk for page in batch])
            for page in batch:
                yield LivePage(page.pk, page.reach, bodies)

    def ordered(self, query: Query) -> QuerySet[LogPage]:
        """The pages that may hold rows of the query, in the order of their reach."""
        key = _reach_column(query.order)
        names = (f"-{key}", "-pk") if query.order is Order.NEWEST_FIRST else (key, "pk")
        found = self.found.order_by(*names)
        if query.earliest is not None:
            found = found.filter(time_max__gte=query.earliest)
        if query.latest is not None:
            found = found.filter(time_min__lte=query.latest)
        return found

    def _listed(self, query: Query) -> Iterator["_Listed"]:
        """What is known of those pages without their bodies."""
        sign, key, after = query.order.sign, _reach_column(query.order), Q()
        found = self.ordered(query).annotate(changes=changes())
        known: int | None = None
        while True:
            told = list(found.filter(after).values_list("pk", key, "rows", "size", "changes")[:LISTED_PAGES])
            known = told[0][4] if told and known is None else known
            if told and told[0][4] != known:
                raise Rearranged
            listed = [_Listed(pk, sign * reach, rows, size) for pk, reach, rows, size, _ in told]
            yield from listed
            if len(listed) < LISTED_PAGES:
                return
            at, pk, beyond = sign * listed[-1].reach, listed[-1].pk, "lt" if sign > 0 else "gt"
            # The first condition is implied by the second; it is what an index can be entered with.
            after = Q(**{f"{key}__{beyond}e": at}) & (
                Q(**{f"{key}__{beyond}": at}) | Q(**{key: at, f"pk__{beyond}": pk})
            )


def changes() -> Any:
    """How often a page's or segment's pipeline was rearranged, as a column of the statement that lists them."""
    state = LogCompaction.objects.filter(pipeline=OuterRef("pipeline"))
    return Coalesce(Subquery(state.values("changes")), 0)


def _reach_column(order: Order) -> str:
    return "time_max" if order is Order.NEWEST_FIRST else "time_min"


@dataclass(frozen=True)
class LivePage:
    """A page of a batch that is fetched when the first of it is read."""

    pk: int
    reach: int
    bodies: "_Bodies"

    def read(self) -> Rows | None:
        """Decodes it; None when it expired since it was listed."""
        body = self.bodies.taken(self.pk)
        if body is None:
            return None
        table = pages.read(body)
        return Rows(table, np.full(len(table), self.pk, dtype=np.int64), np.arange(len(table), dtype=np.int64))


class _Bodies:
    """The bodies of some pages, fetched together once."""

    def __init__(self, pks: list[int]) -> None:
        self.pks = pks
        self.fetched: dict[int, bytes] | None = None

    def taken(self, pk: int) -> bytes | None:
        """The body of a page, which is then let go."""
        if self.fetched is None:
            stored = LogPage.objects.filter(pk__in=self.pks).values_list("pk", "body")
            self.fetched = {pk: bytes(body) for pk, body in stored}
        return self.fetched.pop(pk, None)


@dataclass(frozen=True)
class _Listed:
    pk: int
    reach: int
    rows: int
    size: int


def _batches(listed: Iterable[_Listed], query: Query) -> Iterator[list[_Listed]]:
    """Pages to fetch at once: as many as the rows asked for need in any case, or twice as many as before."""
    batch: list[_Listed] = []
    least, rows, size = 1, 0, 0
    for page in listed:
        if batch and size + page.size > BATCH_BYTES:
            yield batch
            batch, rows, size = [], 0, 0
        batch.append(page)
        rows, size = rows + page.rows, size + page.size
        if len(batch) >= BATCH_PAGES or (len(batch) >= least and rows > query.limit):
            yield batch
            batch, rows, size, least = [], 0, 0, min(2 * least, BATCH_PAGES)
    if batch:
        yield batch
