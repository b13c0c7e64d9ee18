"""Validations: the boolean expressions of `Check` steps.

Two forms are read. `tree` holds expressions as polars writes them in JSON, which is what the public SDK sends (polars
0.18; what 1.x and 2.x write differs little and is read too). `rules` is a plain form of our own:
`{"too_high": {"field": "out.variable[0]", "op": ">", "value": 1000000}}`. Only what compares, counts and combines
columns is understood; everything else is refused when the version is made. The engine keeps the same rules; both prove
it on contract/definitions.json.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from catalog.errors import UnusableDefinition

# polars' names of operators and functions, the functions with how many inputs they have.
COMPARISONS = ("Eq", "NotEq", "Lt", "LtEq", "Gt", "GtEq")
ARITHMETIC = ("Plus", "Minus", "Multiply", "Divide", "TrueDivide", "FloorDivide", "Modulus")
BINARY = frozenset((*COMPARISONS, *ARITHMETIC, "And", "Or", "Xor", "LogicalAnd", "LogicalOr"))
FUNCTIONS = {
    "Abs": 1,
    "Negate": 1,
    "Boolean.Not": 1,
    "Boolean.IsNot": 1,  # as polars 0.18 calls it
    "Boolean.IsNull": 1,
    "Boolean.IsNotNull": 1,
    "Boolean.IsNan": 1,
    "Boolean.IsBetween": 3,
    "ListExpr.Get": 2,
    "ListExpr.Length": 1,
    "ListExpr.Max": 1,
    "ListExpr.Min": 1,
    "ListExpr.Sum": 1,
    "ListExpr.Mean": 1,
}
PLAIN = {">": "Gt", ">=": "GtEq", "<": "Lt", "<=": "LtEq", "==": "Eq", "!=": "NotEq"}
PLAIN_FIELD = re.compile(r"(?P<column>(?:in|out|out_[^.]+)\..+?)(?:\[(?P<index>-?[0-9]{1,6})\])?\Z", re.DOTALL)
COLUMN = re.compile(r"(in|out|out_[^.]+)\..+\Z", re.DOTALL)
DEPTH_LIMIT = 50
TEXT_LIMIT = 100_000  # characters of one expression
RULE_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Expression:
    """A node: `op` is `column`, `literal`, or the name of an operator or function; `value` what the first two hold."""

    op: str
    inputs: "tuple[Expression, ...]" = ()
    value: Any = None

    def columns(self) -> set[str]:
        """The columns that are read."""
        if self.op == "column":
            return {self.value}
        return set().union(*(node.columns() for node in self.inputs))


def rules(number: int, content: dict[str, Any]) -> tuple[tuple[str, Expression], ...]:
    """The validations of a `Check` step by name. Raises UnusableDefinition that names step and validation."""
    tree, plain = content.get("tree") or [], content.get("rules") or {}
    if not isinstance(tree, list) or not isinstance(plain, dict) or not 1 <= len(tree) + len(plain) <= RULE_LIMIT:
        raise UnusableDefinition(
            f'Step {number} has 1 to {RULE_LIMIT} validations: {{"tree": [expressions]}} or {{"rules": {{name: '
            '{"field", "op", "value"}}}.'
        )
    made = [_from_text(f"Step {number}, validation {place}", text) for place, text in enumerate(tree, start=1)]
    made += [(name, _from_rule(f"Step {number}, validation {name!r}", rule)) for name, rule in plain.items()]
    if not all(name for name, _ in made):
        raise UnusableDefinition(f"Step {number} has a validation without a name.")
    return tuple(made)


def _from_text(where: str, text: object) -> tuple[str, Expression]:
    if not isinstance(text, str) or len(text) > TEXT_LIMIT:
        raise UnusableDefinition(f"{where}: an expression is a text of at most {TEXT_LIMIT} characters.")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise UnusableDefinition(f"{where}: the expression is not JSON, as polars' write_json makes it.") from None
    alias = told.get("Alias") if isinstance(told, dict) else None
    if not isinstance(alias, list) or len(alias) != 2 or not isinstance(alias[1], str):
        raise UnusableDefinition(f"{where}: the expression has no name: end it with .alias(name).")
    return alias[1], _node(f"{where} ({alias[1]})", alias[0], 0)


def _from_rule(where: str, rule: object) -> Expression:
    told = rule if isinstance(rule, dict) else {}
    field, op, value = told.get("field"), told.get("op"), told.get("value")
    found = PLAIN_FIELD.match(field) if isinstance(field, str) else None
    if found is None:
        raise UnusableDefinition(f'{where}: "field" is a column like "out.variable[0]" or "in.age".')
    if not isinstance(op, str) or op not in PLAIN:
        raise UnusableDefinition(f'{where}: "op" is one of {" ".join(PLAIN)}.')
    node = Expression("column", value=found["column"])
    if found["index"]:
        node = Expression("ListExpr.Get", (node, Expression("literal", value=int(found["index"]))))
    if not _is_plain(value) or value is None:
        raise UnusableDefinition(f'{where}: "value" is a number, a text or a boolean.')
    return Expression(PLAIN[op], (node, Expression("literal", value=value)))


def _node(where: str, told: object, depth: int) -> Expression:
    if depth > DEPTH_LIMIT:
        raise UnusableDefinition(f"{where}: the expression is nested deeper than {DEPTH_LIMIT}.")
    kind, content = next(iter(told.items())) if isinstance(told, dict) and len(told) == 1 else (None, None)
    if kind == "Alias" and isinstance(content, list) and content:
        return _node(where, content[0], depth + 1)
    if kind == "Column" and isinstance(content, str):
        return _column(where, content)
    if kind == "Literal":
        return Expression("literal", value=_literal(where, content))
    if kind == "BinaryExpr" and isinstance(content, dict) and content.get("op") in BINARY:
        sides = (_node(where, content.get(side), depth + 1) for side in ("left", "right"))
        return Expression(content["op"], tuple(sides))
    if kind == "Function" and isinstance(content, dict):
        return _function(where, content, depth)
    raise UnusableDefinition(
        f"{where}: {_shown(kind, content)} is not understood: use columns, numbers, text, comparisons, arithmetic, "
        "& | ~, abs, is_null, is_between, list.get, list.len, list.max, list.min, list.sum, list.mean."
    )


def _shown(kind: object, content: object) -> str:
    if isinstance(content, dict) and isinstance(content.get("function"), dict | str):
        return f"the function {json.dumps(content['function'], separators=(',', ':'))[:60]}"
    if isinstance(content, dict) and isinstance(content.get("op"), str):
        return f"the operator {content['op'][:60]}"
    return f"a part of the kind {str(kind)[:60]}" if kind else "a part without a kind"


def _column(where: str, name: str) -> Expression:
    if not COLUMN.match(name):
        raise UnusableDefinition(f'{where}: column {name[:100]!r} is neither "in.<name>" nor "out.<name>".')
    return Expression("column", value=name)


def _literal(where: str, told: object) -> Any:
    """The value inside: polars wraps it in its type, `{"Int32": 1}`, `{"Dyn": {"Int": 1}}`, `{"Scalar": {…}}`."""
    if told == "Null":
        return None
    value = told
    while isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    if not _is_plain(value):
        raise UnusableDefinition(f"{where}: a literal is a number, a text or a boolean.")
    return value


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 2**63)


def _function(where: str, content: dict[str, Any], depth: int) -> Expression:
    name, option = _function_name(content.get("function"))
    inputs = content.get("input")
    if name not in FUNCTIONS or not isinstance(inputs, list) or len(inputs) != FUNCTIONS[name]:
        raise UnusableDefinition(f"{where}: {_shown('Function', content)} is not understood.")
    nodes = tuple(_node(where, told, depth + 1) for told in inputs)
    if name == "ListExpr.Get":
        index = nodes[1].value if nodes[1].op == "literal" else None
        if not isinstance(index, int) or isinstance(index, bool):
            raise UnusableDefinition(f"{where}: list.get takes a whole number.")
    return Expression(name, nodes, option)


def _function_name(told: object) -> tuple[str, Any]:
    """`"Abs"`, `{"Boolean": "IsNull"}`, `{"ListExpr": {"Get": false}}`; the option is what stands innermost."""
    names: list[str] = []
    while isinstance(told, dict) and len(told) == 1 and len(names) < 2:
        names, told = [*names, str(next(iter(told)))], next(iter(told.values()))
    if isinstance(told, str) and len(names) < 2:
        names, told = [*names, told], None
    return ".".join(names), told.get("closed", "Both") if isinstance(told, dict) else None
