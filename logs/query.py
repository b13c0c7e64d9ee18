"""The terms of reading logs: what is asked, what a store of rows offers, what is answered.

Rows are ordered by (time, page, row within the page), so that no two are equal, and a cursor is the key of the last row
that was answered: rows that arrive meanwhile neither shift nor repeat others.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from django.utils.translation import gettext as _

from common.errors import Invalid
from logs.columns import Selection
from logs.filters import Filters

Keys = npt.NDArray[np.int64]

MAX_LIMIT = 10_000
MAX_ANSWER_BYTES = 10 * 1024**2
# What one query may look at when its filters leave few rows: about half a second of work.
MAX_SCANNED_ROWS = 1_000_000
MAX_SCANNED_BYTES = 512 * 1024**2
_LAST = 2**63 - 1


class Order(StrEnum):
    NEWEST_FIRST = "desc"
    OLDEST_FIRST = "asc"

    @property
    def sign(self) -> int:
        """What keys are multiplied with, so that the first row in this order has the largest."""
        return 1 if self is Order.NEWEST_FIRST else -1


class Status(StrEnum):
    """Why an answer ends where it does. Words of the SDK's wire contract.

    ByteLimited: the rows are large, or many were looked at that the filters did not let through.
    """

    ALL = "All"
    RECORD_LIMITED = "RecordLimited"
    BYTE_LIMITED = "ByteLimited"
    SCHEMA_CHANGE = "SchemaChange"


@dataclass(frozen=True)
class Cursor:
    """The key of the last row that was answered, and in which order."""

    order: Order
    time: int
    page: int
    row: int

    def __str__(self) -> str:
        text = f"{self.order} {self.time} {self.page} {self.row}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def before(cls, order: Order, time: int) -> "Cursor":
        """The place before every row of that time, in that order."""
        return cls(order, time, order.sign * _LAST, order.sign * _LAST)

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises `Invalid`."""
        try:
            order, *numbers = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode().split(" ")
            time, page, row = (int(number) for number in numbers)
            if max(abs(time), abs(page), abs(row)) >= 2**63:
                raise ValueError("no such key")
            return cls(Order(order), time, page, row)
        except (binascii.Error, ValueError) as exc:
            raise Invalid(_("The cursor is not one that a query of logs gave: begin without one.")) from exc


@dataclass(frozen=True)
class Query:
    """What to read. `start` and `end` are epoch ms, both within; None is open. `max_bytes` is of decoded rows.

    `filters` choose among rows by what is in them; their times are not looked at, `start` and `end` are.
    """

    order: Order = Order.NEWEST_FIRST
    limit: int = 100
    start: int | None = None
    end: int | None = None
    cursor: Cursor | None = None
    selection: Selection = field(default_factory=Selection)
    max_bytes: int = MAX_ANSWER_BYTES
    filters: Filters = field(default_factory=Filters)
    max_scanned_rows: int = MAX_SCANNED_ROWS
    max_scanned_bytes: int = MAX_SCANNED_BYTES

    def __post_init__(self) -> None:
        if self.cursor and self.cursor.order is not self.order:
            raise Invalid(
                _("The cursor is of a query with order=%(order)s: keep the order.") % {"order": self.cursor.order}
            )
        if self.limit < 1:
            raise Invalid(_("limit must be at least 1."))

    @property
    def earliest(self) -> int | None:
        """The oldest time that may still be answered."""
        return self._later(self.start, Order.OLDEST_FIRST, max)

    @property
    def latest(self) -> int | None:
        """The newest time that may still be answered."""
        return self._later(self.end, Order.NEWEST_FIRST, min)

    def needs(self, group: str) -> bool:
        """Whether a column of rows (`time`, `in`, …) is answered or looked at."""
        return group == "time" or self.selection.may_want(group) or self.filters.looks_at(group)

    def _later(self, bound: int | None, order: Order, choose: Callable[[int, int], int]) -> int | None:
        if self.cursor is None or self.order is not order:
            return bound
        return self.cursor.time if bound is None else choose(bound, self.cursor.time)


@dataclass(frozen=True)
class Rows:
    """Decoded rows with all that the query's selection and filters need, and, for each, the key's page and row."""

    table: pa.Table
    page: Keys
    row: Keys


class Rearranged(Exception):
    """Rows went from one piece to another while pieces were listed: list them anew."""


class Piece(Protocol):
    """Rows of one schema: a live page, or a group of a segment's rows, which keep their page and row as keys."""

    @property
    def reach(self) -> int:
        """Its largest time times the order's sign: none of its rows comes before that."""

    def read(self) -> Rows | None:
        """Decodes it, which is done only when its rows may be needed. None when it is gone."""


class Source(Protocol):
    def pieces(self, query: Query) -> Iterable[Piece]:
        """Those that may hold rows of the query, the largest reach first. Raises `Rearranged`, not before the first."""


@dataclass(frozen=True)
class Answer:
    """Rows of one schema in the order asked for. `next` is set unless the status is All.

    There may be no rows and yet a `next`: those that were looked at are not what the filters ask for.
    """

    table: pa.Table
    status: Status
    next: Cursor | None
