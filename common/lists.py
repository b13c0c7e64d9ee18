"""REST lists of rows that are wide."""

from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from rest_framework.generics import ListAPIView

Row = TypeVar("Row", bound=Model)


class ListByKey(ListAPIView[Row]):
    """A list of which only keys are found and sorted; the rows of the page are read by these.

    Sorted whole, ten thousand rows are all carried along, with what they are joined with.
    """

    def whole_rows(self) -> QuerySet[Row]:
        """All rows with what is shown of them; for keys that were found for who asks."""
        raise NotImplementedError

    def paginate_queryset(self, queryset: Any) -> list[Any] | None:
        """The page in its order. What went meanwhile is left out."""
        keys = super().paginate_queryset(queryset.prefetch_related(None).values_list("pk", flat=True)) or []
        rows: dict[Any, Row] = self.whole_rows().order_by().in_bulk(list(keys))
        return [rows[key] for key in keys if key in rows]
