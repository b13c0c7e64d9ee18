"""Conditions on values of rows: `out.variable > 500000 and in.city = 'Oslo'`.

    condition  = both { "or" both }
    both       = one { "and" one }
    one        = "not" one | "(" condition ")" | column operator literal | column "is" ["not"] "null"
    column     = group "." name { "." name | "[" index "]" }      group: in, out, out_<model>, anomaly, metadata
    operator   = "=" | "==" | "!=" | "<" | "<=" | ">" | ">="
    literal    = number | 'text' | "text" | true | false

A name with other characters than letters, digits, `_` and `-` is put in backticks. A list meets a condition when any of
its elements does; `[0]` chooses one. Nothing but this is understood, so a condition cannot call or reach anything.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
from django.utils.translation import gettext as _

from common.errors import Invalid
from logs import values
from logs.values import Bounds, Literal

MAX_LENGTH = 1000
MAX_TOKENS = 250
MAX_DEPTH = 20

BoundsOf = Callable[[tuple[str, ...]], Bounds | None]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<quoted>`[^`]+`)
    |(?P<name>[^\W\d][\w-]*)
    |(?P<symbol>==|!=|<=|>=|[=<>()\[\].])
    )""",
    re.VERBOSE,
)
_GROUPS = ("in", "out", "anomaly", "metadata")


class Condition(Protocol):
    def test(self, table: pa.Table) -> pa.Array:
        """For each row true, false or null (unknown)."""

    def may_hold(self, bounds: BoundsOf) -> bool:
        """Whether rows may meet it whose columns have these bounds (None: not known), as Parquet's statistics say."""

    def groups(self) -> set[str]:
        """The groups that it looks at."""


@dataclass(frozen=True)
class Column:
    """A group, and the path in it: names of fields and indices of elements."""

    group: str
    steps: tuple[str | int, ...]

    def test(self, table: pa.Table, test: Callable[[pa.Array], pa.Array]) -> pa.Array:
        """For each row whether any of the column's values passes; null where there are none."""
        found = None
        if self.group in table.column_names:
            found = values.leaves(whole(table.column(self.group)), self.steps)
        if found is None:
            return pa.nulls(len(table), pa.bool_())
        array, rows = found
        return values.any_of_row(test(array), rows, len(table))

    def bounds(self, bounds: BoundsOf) -> Bounds | None:
        return bounds((self.group, *(step for step in self.steps if isinstance(step, str))))


@dataclass(frozen=True)
class Comparison:
    column: Column
    sign: str
    literal: Literal

    def test(self, table: pa.Table) -> pa.Array:
        return self.column.test(table, lambda array: values.compare(array, self.sign, self.literal))

    def may_hold(self, bounds: BoundsOf) -> bool:
        known = self.column.bounds(bounds)
        return known is None or values.may_hold(known, self.sign, self.literal)

    def groups(self) -> set[str]:
        return {self.column.group}


@dataclass(frozen=True)
class IsNull:
    """Whether a row has no value there: no such column, null, or an empty list."""

    column: Column

    def test(self, table: pa.Table) -> pa.Array:
        return pc.invert(self.column.test(table, lambda array: array.is_valid()).fill_null(False))

    def may_hold(self, bounds: BoundsOf) -> bool:
        return True

    def groups(self) -> set[str]:
        return {self.column.group}


@dataclass(frozen=True)
class Not:
    part: Condition

    def test(self, table: pa.Table) -> pa.Array:
        return pc.invert(self.part.test(table))

    def may_hold(self, bounds: BoundsOf) -> bool:
        return True

    def groups(self) -> set[str]:
        return self.part.groups()


@dataclass(frozen=True)
class Every:
    parts: tuple[Condition, ...]

    def test(self, table: pa.Table) -> pa.Array:
        found = self.parts[0].test(table)
        for part in self.parts[1:]:
            found = pc.and_kleene(found, part.test(table))
        return found

    def may_hold(self, bounds: BoundsOf) -> bool:
        return all(part.may_hold(bounds) for part in self.parts)

    def groups(self) -> set[str]:
        return set().union(*(part.groups() for part in self.parts))


@dataclass(frozen=True)
class Either:
    parts: tuple[Condition, ...]

    def test(self, table: pa.Table) -> pa.Array:
        found = self.parts[0].test(table)
        for part in self.parts[1:]:
            found = pc.or_kleene(found, part.test(table))
        return found

    def may_hold(self, bounds: BoundsOf) -> bool:
        return any(part.may_hold(bounds) for part in self.parts)

    def groups(self) -> set[str]:
        return set().union(*(part.groups() for part in self.parts))


def parse(text: str) -> Condition:
    """Reads a condition. Raises `Invalid`, naming what is wrong and where."""
    if len(text) > MAX_LENGTH:
        raise Invalid(_("A filter may have at most %(max_length)s characters.") % {"max_length": MAX_LENGTH})
    return _Parser(text).whole()


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    """Recursive descent over the tokens of one condition."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokens()
        self.place = 0
        self.depth = 0

    def whole(self) -> Condition:
        condition = self._either()
        if self._here.kind != "end":
            raise self._fault(_("and, or, or the end"))
        return condition

    def _tokens(self) -> list[_Token]:
        found: list[_Token] = []
        at, end = 0, len(self.text.rstrip())
        while at < end:
            match = _TOKEN.match(self.text, at)
            if match is None or match.lastgroup is None:
                rest = self.text[at:].lstrip()
                raise Invalid(
                    _("The filter %(text)r cannot be read from %(rest)r on.") % {"text": self.text, "rest": rest[:20]}
                )
            found.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
            at = match.end()
            if len(found) > MAX_TOKENS:
                raise Invalid(
                    _("A filter may have at most %(max_tokens)s words and signs.") % {"max_tokens": MAX_TOKENS}
                )
        return [*found, _Token("end", "", end)]

    @property
    def _here(self) -> _Token:
        return self.tokens[self.place]

    def _taken(self) -> _Token:
        token = self._here
        self.place += 1
        return token

    def _takes(self, *texts: str) -> bool:
        """Whether the next is one of these words or signs, which is then passed."""
        is_it = self._here.kind in ("name", "symbol") and self._here.text.lower() in texts
        self.place += is_it
        return is_it

    def _needs(self, text: str) -> None:
        if not self._takes(text):
            raise self._fault(_("a %(sign)r") % {"sign": text} if len(text) == 1 else text)

    def _fault(self, expected: str) -> Invalid:
        told = {"text": self.text, "expected": expected, "found": self._here.text, "at": self._here.at + 1}
        if self._here.kind == "end":
            return Invalid(_("The filter %(text)r needs %(expected)s where it has its end.") % told)
        return Invalid(_("The filter %(text)r needs %(expected)s where it has %(found)r at character %(at)s.") % told)

    def _either(self) -> Condition:
        parts = [self._every()]
        while self._takes("or"):
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _every(self) -> Condition:
        parts = [self._one()]
        while self._takes("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _one(self) -> Condition:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Invalid(_("A filter may be nested %(max_depth)s deep at most.") % {"max_depth": MAX_DEPTH})
        try:
            if self._takes("not"):
                return Not(self._one())
            if self._takes("("):
                inner = self._either()
                self._needs(")")
                return inner
            return self._comparison()
        finally:
            self.depth -= 1

    def _comparison(self) -> Condition:
        column = self._column()
        if self._takes("is"):
            is_not = self._takes("not")
            self._needs("null")
            return Not(IsNull(column)) if is_not else IsNull(column)
        sign = "=" if self._here.text == "==" else self._here.text
        if self._here.kind != "symbol" or sign not in values.OPERATORS:
            raise self._fault(_("one of = != < <= > >= or `is null`"))
        self.place += 1
        literal = self._literal()
        if isinstance(literal, bool) and sign not in ("=", "!="):
            raise Invalid(
                _("The filter %(text)r orders %(literal)s: use = or !=.")
                % {"text": self.text, "literal": str(literal).lower()}
            )
        return Comparison(column, sign, literal)

    def _column(self) -> Column:
        start = self._here
        group = self._name(_("a column such as out.variable"))
        if group == "time":
            raise Invalid(_("A filter has no time: use start and end."))
        if group not in _GROUPS and not group.startswith("out_"):
            self.place = self.tokens.index(start)
            raise self._fault(_("a column of in, out, anomaly or metadata, such as out.variable,"))
        steps: list[str | int] = []
        while True:
            if self._takes("."):
                steps.append(self._name(_("the name of a column")))
            elif steps and self._takes("["):
                steps.append(self._index())
                self._needs("]")
            elif steps:
                return Column(group, tuple(steps))
            else:
                raise self._fault(_("a '.' and the name of a column of %(group)s") % {"group": group})

    def _name(self, expected: str) -> str:
        if self._here.kind not in ("name", "quoted"):
            raise self._fault(expected)
        return self._taken().text.strip("`")

    def _index(self) -> int:
        if self._here.kind != "number" or not re.fullmatch(r"-?\d{1,6}", self._here.text):
            raise self._fault(_("the index of an element"))
        return int(self._taken().text)

    def _literal(self) -> Literal:
        token = self._here
        if token.kind == "number":
            self.place += 1
            return int(token.text) if re.fullmatch(r"[-+]?\d+", token.text) else float(token.text)
        if token.kind == "text":
            self.place += 1
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        if self._takes("true", "false"):
            return token.text.lower() == "true"
        raise self._fault(_("a number, a text in quotes, true or false"))
