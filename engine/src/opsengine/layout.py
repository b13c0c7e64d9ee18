"""Rows as JSON text: what all rows of one kind share is put together once, values are filled in between."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import orjson

from opsengine.selection import Selection

Part = bytes | int  # text, or the place of a value
Cell = tuple[Part, ...]
Value = bytes | list[bytes]  # the same for all rows, or one a row


class Layout:
    """A row as text with places for values."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._texts = [b""]
        self._order: list[int] = []
        for part in parts:
            if isinstance(part, bytes):
                self._texts[-1] += part
            else:
                self._order.append(part)
                self._texts.append(b"")
        self._single = b"[{" + b"%b".join([text.replace(b"%", b"%%") for text in self._texts]) + b"}]"

    def render(self, values: Sequence[Value], count: int) -> bytes:
        """`[{row},{row},...]`. With a single row all values are bytes."""
        if count == 1:
            return self._single % tuple([values[place] for place in self._order])
        texts: list[bytes] = []
        columns: list[list[bytes]] = []
        text = self._texts[0]
        for place, after in zip(self._order, self._texts[1:], strict=True):
            value = values[place]
            if isinstance(value, bytes):
                text += value + after
            else:
                texts.append(text)
                columns.append(value)
                text = after
        if not columns:
            return b"[" + b",".join([b"{" + text + b"}"] * count) + b"]"
        return _joined(texts, columns, text, count)


def _joined(texts: list[bytes], columns: list[list[bytes]], last: bytes, count: int) -> bytes:
    """Rows of text, value, text, value, ..., last: laid side by side in one list, so that they are copied once."""
    width = 2 * len(columns)
    pieces = [last + b"},{" + texts[0]] * (width * count + 1)
    pieces[0], pieces[-1] = b"[{" + texts[0], last + b"}]"
    for at, (text, column) in enumerate(zip(texts, columns, strict=True)):
        if at:
            pieces[2 * at :: width] = [text] * count
        pieces[2 * at + 1 :: width] = column
    return b"".join(pieces)


def bracketed(place: int, axes: int) -> Cell:
    """A value in that many pairs of brackets."""
    return (b"[" * axes, place, b"]" * axes) if axes else (place,)


def nested(time: Cell, groups: Mapping[str, Mapping[str, Cell]]) -> Iterator[Part]:
    """A row with its groups as objects."""
    yield b'"time":'
    yield from time
    for group, cells in groups.items():
        yield b"," + orjson.dumps(group) + b":"
        yield from object_of(cells)


def object_of(cells: Mapping[str, Cell]) -> Iterator[Part]:
    """Columns as a JSON object."""
    before = b"{"
    for name, cell in cells.items():
        yield before + orjson.dumps(name) + b":"
        yield from cell
        before = b","
    yield b"}" if cells else b"{}"


def flat(time: Cell, groups: Mapping[str, Mapping[str, Cell]], selection: Selection) -> Iterator[Part]:
    """A row with a key a column, as the selection names it."""
    yield b'"time":'
    yield from time
    for group, cells in groups.items():
        for name, cell in cells.items():
            yield b"," + orjson.dumps(selection.name(group, name)) + b":"
            yield from cell
