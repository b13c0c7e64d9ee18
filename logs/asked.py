"""What an export is of, and where its files are."""

import shutil
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.translation import gettext as _

from common.errors import StorageFull
from logs import queries
from logs.columns import DEFAULT_SEPARATOR, Selection
from logs.filters import Filters
from logs.models import LogExport
from logs.query import Order, Query

LEAST_FREE = 512 * 1024**2  # bytes that an export leaves for what must be stored: rows that arrive, the database


@dataclass(frozen=True)
class Asked:
    """What an export is of. `limit` is None for all rows."""

    filters: Filters
    selection: Selection = field(default_factory=Selection)
    order: Order = Order.NEWEST_FIRST
    limit: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "filters": self.filters.as_query(),
            "dataset": list(self.selection.dataset),
            "dataset_exclude": list(self.selection.exclude),
            "dataset_separator": self.selection.separator if self.selection.is_flat else None,
            "order": self.order.value,
            "limit": self.limit,
        }

    @classmethod
    def of(cls, export: LogExport) -> "Asked":
        """What was asked when the export was made."""
        kept = export.asked
        separator = kept["dataset_separator"]
        return cls(
            filters=Filters.parse(kept["filters"]),
            selection=Selection(
                dataset=tuple(kept["dataset"]),
                exclude=tuple(kept["dataset_exclude"]),
                separator=separator or DEFAULT_SEPARATOR,
                is_flat=separator is not None,
            ),
            order=Order(kept["order"]),
            limit=kept["limit"],
        )

    def query(self, export: LogExport, batch: int) -> Query:
        """Where an export goes on, so many rows at once; no row that is newer than the newest when it was made."""
        query = queries.asked(self.filters, order=self.order, limit=batch, selection=self.selection)
        return replace(query, end=export.time_max if query.end is None else query.end)


def folder_of(pk: UUID) -> Path:
    """Where an export's files are."""
    return Path(settings.LOG_EXPORT_ROOT) / str(pk)


def kept_for() -> timedelta:
    """How long files are kept once an export is over."""
    return timedelta(days=settings.LOG_EXPORT_DAYS)


def require_room() -> None:
    """Raises `StorageFull` when little is free where exports are kept."""
    root = Path(settings.LOG_EXPORT_ROOT)
    root.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(root).free < LEAST_FREE:
        raise StorageFull(_("There is little room left where exports are kept: remove some, or ask for fewer rows."))
