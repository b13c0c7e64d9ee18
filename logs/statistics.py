"""What a Parquet file says of its row groups, so that those which cannot hold rows of a filter are not read."""

import pyarrow.parquet as pq

from logs.conditions import BoundsOf
from logs.filters import Filters
from logs.values import Bounds

# What Parquet puts between a list and its elements, by the writers that there are.
_OF_LISTS = frozenset({"list", "element", "item", "array", "bag", "array_element"})


def bounds_of(described: pq.FileMetaData, row_group: int) -> BoundsOf:
    """The least and the greatest value of a column in a row group; None where the file does not say."""
    group = described.row_group(row_group)
    places = {tuple(_path(described.schema.column(index).path)): index for index in range(described.num_columns)}

    def bounds(path: tuple[str, ...]) -> Bounds | None:
        index = places.get(path)
        if index is None:
            return None
        statistics = group.column(index).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        low, high = statistics.min, statistics.max
        return (low, high) if isinstance(low, bool | int | float | str) else None

    return bounds


def may_hold(described: pq.FileMetaData, row_group: int, filters: Filters) -> bool:
    """Whether rows of a filter may be in a row group."""
    return filters.may_hold(bounds_of(described, row_group))


def _path(dotted: str) -> list[str]:
    """The names of a column without those of lists. A column whose own name has such a part is not found, and read."""
    return [part for part in dotted.split(".") if part not in _OF_LISTS]
