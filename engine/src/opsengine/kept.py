"""What was made once is kept for the next time, by keys that callers choose: as much as may be, and then anew."""

from typing import TypeVar

MOST = 256  # that are kept: inputs of free shapes could make any number
MOST_BYTES = 16 * 2**20  # that they may take: nobody bounds how many columns there are, or how long their names

K = TypeVar("K")
V = TypeVar("V")


class Kept(dict[K, V]):
    """A dictionary that forgets all when there would be too much in it."""

    _size = 0

    def keep(self, key: K, value: V, size: int) -> None:
        """Keep it, unless it alone is too much. `size`: the bytes that it takes with its key, roughly."""
        if size > MOST_BYTES:
            return
        if len(self) >= MOST or self._size + size > MOST_BYTES:
            self.clear()
        self[key] = value
        self._size += size

    def clear(self) -> None:
        """Forget all."""
        super().clear()
        self._size = 0
