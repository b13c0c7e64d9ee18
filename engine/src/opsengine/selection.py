"""Which columns a caller wants: the query `dataset[]`, `dataset.exclude[]`, `dataset.separator` of the public SDK."""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qs

from opsengine.errors import RequestError

LONGEST_KEPT = 1000  # characters of a query whose reading is kept


@dataclass(frozen=True, slots=True)
class Selection:
    """Asked for columns; answers are flat then: `in.tensor`, `out.variable`. `time` always comes along."""

    include: frozenset[str]
    exclude: frozenset[str]
    separator: str = "."

    def name(self, group: str, column: str) -> str:
        """The flat name of a column."""
        return f"{group}{self.separator}{column}"

    def wants(self, group: str, column: str) -> bool:
        """Whether a column is asked for: a column named itself beats the exclusion of its group."""
        names = {f"{group}.{column}", self.name(group, column)}
        if names & self.include and not names & self.exclude:
            return True
        if names & self.exclude or group in self.exclude:
            return False
        return "*" in self.include or group in self.include


def parse(query: str) -> Selection | None:
    """Read the query string; None when it asks for nothing special. Raises RequestError."""
    if "dataset" not in query:
        return None
    return _parse(query) if len(query) <= LONGEST_KEPT else _parse.__wrapped__(query)


@lru_cache(64)  # callers ask for the same columns again and again
def _parse(query: str) -> Selection | None:
    try:
        values = parse_qs(query, keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise RequestError("The query string cannot be read: it has too many or broken fields.") from None
    include = {*values.get("dataset[]", ()), *values.get("dataset", ())}
    exclude = {*values.get("dataset.exclude[]", ()), *values.get("dataset.exclude", ())}
    separator = values.get("dataset.separator", ["."])[-1]
    if not include and not exclude and "dataset.separator" not in values:
        return None
    return Selection(frozenset(include or {"*"}), frozenset(exclude), separator or ".")
