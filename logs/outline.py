"""What records in JSON would need as columns, found before they become columns.

A column has a place for every row, also where a row lacks the field. So records whose fields differ need rows x fields
places: half a megabyte of JSON can ask for half a gigabyte. The same bounds hold as for an Arrow page.
"""

from dataclasses import dataclass, field
from typing import Any

from logs import envelope
from logs.errors import InvalidPage, PageTooLarge

PLACE_BYTES = 8  # of a number; a text's place has as much or less


@dataclass(slots=True)
class _Node:
    """A field of all records together. `elements` of lists in it are one more field, `element`."""

    fields: dict[str, "_Node"] = field(default_factory=dict)
    element: "_Node | None" = None
    elements: int = 0


@dataclass(slots=True)
class _Budget:
    """How many fields the records may still have between them."""

    fields: int = envelope.MAX_FIELDS

    def node(self) -> _Node:
        """A field more. Raises `InvalidPage`."""
        self.fields -= 1
        if self.fields < 0:
            raise InvalidPage(f"The records of a page may have at most {envelope.MAX_FIELDS} different fields.")
        return _Node()


def bound(records: list[dict[str, Any]]) -> None:
    """Refuses records that would be too many, too deep or too large columns.

    Raises `InvalidPage`, and `PageTooLarge` for more than `envelope.MAX_DECODED_BYTES`.
    """
    root, budget = _Node(), _Budget()
    for record in records:
        _add(record, root, budget, depth=0)
    if _places(root, len(records)) * PLACE_BYTES > envelope.MAX_DECODED_BYTES:
        raise PageTooLarge(
            f"The records of a page may need at most {envelope.MAX_DECODED_BYTES} bytes as columns: send fewer a page.",
            limit=envelope.MAX_DECODED_BYTES,
        )


def _add(value: dict[str, Any] | list[Any], node: _Node, budget: _Budget, depth: int) -> None:
    if depth > envelope.MAX_DEPTH:
        raise InvalidPage(f"The page nests its columns more than {envelope.MAX_DEPTH} deep.")
    if isinstance(value, list):
        node.element = node.element or budget.node()
        node.elements += len(value)
        for item in value:
            if isinstance(item, dict | list):
                _add(item, node.element, budget, depth + 1)
        return
    for name, inner in value.items():
        child = node.fields.get(name)
        if child is None:
            child = node.fields[name] = budget.node()
        if isinstance(inner, dict | list):
            _add(inner, child, budget, depth + 1)


def _places(node: _Node, length: int) -> int:
    """Places of everything below a field that itself has `length`."""
    below = sum(length + _places(child, length) for child in node.fields.values())
    return below if node.element is None else below + node.elements + _places(node.element, node.elements)
