"""Where a field is in rows of some schema: `out.variable[0]`, `in.box.width`, `in.tensor[*]`, as summaries name them.

A list without an index means all its elements. Nested lists count as one flat list.
"""

import re
from dataclasses import dataclass, replace

import pyarrow as pa

from logs.summaries import is_list


@dataclass(frozen=True)
class Place:
    """Structs' fields by name, then lists of some depth, of which one element or (None) all are meant."""

    names: tuple[str, ...]
    kind: pa.DataType  # of a single value
    depth: int = 0
    index: int | None = None

    @property
    def is_many(self) -> bool:
        """Whether a row has many values there."""
        return self.depth > 0 and self.index is None

    @property
    def is_number(self) -> bool:
        """Booleans are numbers too."""
        return bool(pa.types.is_integer(self.kind) or pa.types.is_floating(self.kind) or pa.types.is_boolean(self.kind))

    @property
    def column(self) -> str:
        """SQL for the value or list that the names lead to."""
        return ".".join(quoted(name) for name in self.names)

    def array(self, table: pa.Table) -> pa.ChunkedArray:
        """The values or lists that the names lead to, null where a struct on the way is."""
        found = table.column(self.names[0])
        for name in self.names[1:]:
            at = found.type.get_field_index(name)
            found = found.flatten()[at]
        return found

    def value(self, column: str) -> str:
        """SQL (of DuckDB) for the value in SQL for what the names lead to: a list when they are many."""
        for _ in range(self.depth - 1):
            column = f"flatten({column})"
        return column if self.index is None else f"{column}[{self.index + 1}]"


def find(schema: pa.Schema, path: str) -> Place | None:
    """Where the field is, None when rows of this schema have none of that name."""
    for name in sorted(schema.names, key=len, reverse=True):
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and path.startswith(f"{name}."):
            return _within(Place((name,), kind), path[len(name) :])
    return None


def quoted(name: str) -> str:
    """A name in SQL."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _within(place: Place, rest: str) -> Place | None:
    if is_list(place.kind):
        return _elements(place, rest)
    if not pa.types.is_struct(place.kind):
        return None if rest else place
    # Names may hold dots and brackets themselves: the longest that fits is meant.
    for child in sorted(place.kind, key=lambda one: len(one.name), reverse=True):
        after = rest[1 + len(child.name) :]
        if rest.startswith(f".{child.name}") and after[:1] in ("", ".", "["):
            found = _within(Place((*place.names, child.name), child.type), after)
            if found:
                return found
    return None


def _elements(place: Place, rest: str) -> Place | None:
    while is_list(place.kind):
        place = replace(place, kind=place.kind.value_type, depth=place.depth + 1)
    index = re.fullmatch(r"(?:\[(\d{1,9}|\*)\])?", rest, re.ASCII)
    if index is None or pa.types.is_struct(place.kind):
        return None
    return place if index[1] in (None, "*") else replace(place, index=int(index[1]))
