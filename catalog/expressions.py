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

from django.utils.translation import gettext

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
            gettext(
                'Step %(number)s has 1 to %(rule_limit)s validations: {"tree": [expressions]} or {"rules": '
                '{name: {"field", "op", "value"}}}.'
            )
            % {"number": number, "rule_limit": RULE_LIMIT}
        )
    made = [_from_text(_place(number, str(place)), text) for place, text in enumerate(tree, start=1)]
    made += [(name, _from_rule(_place(number, repr(name)), rule)) for name, rule in plain.items()]
    if not all(name for name, _ in made):
        raise UnusableDefinition(gettext("Step %(number)s has a validation without a name.") % {"number": number})
    return tuple(made)


def _place(number: int, validation: str) -> str:
    return gettext("Step %(number)s, validation %(validation)s") % {"number": number, "validation": validation}


def _from_text(where: str, text: object) -> tuple[str, Expression]:
    if not isinstance(text, str) or len(text) > TEXT_LIMIT:
        raise UnusableDefinition(
            gettext("%(where)s: an expression is a text of at most %(text_limit)s characters.")
            % {"where": where, "text_limit": TEXT_LIMIT}
        )
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise UnusableDefinition(
            gettext("%(where)s: the expression is not JSON, as polars' write_json makes it.") % {"where": where}
        ) from None
    alias = told.get("Alias") if isinstance(told, dict) else None
    if not isinstance(alias, list) or len(alias) != 2 or not isinstance(alias[1], str):
        raise UnusableDefinition(
            gettext("%(where)s: the expression has no name: end it with .alias(name).") % {"where": where}
        )
    return alias[1], _node(f"{where} ({alias[1]})", alias[0], 0)


def _from_rule(where: str, rule: object) -> Expression:
    told = rule if isinstance(rule, dict) else {}
    field, op, value = told.get("field"), told.get("op"), told.get("value")
    found = PLAIN_FIELD.match(field) if isinstance(field, str) else None
    if found is None:
        raise UnusableDefinition(
            gettext('%(where)s: "field" is a column like "out.variable[0]" or "in.age".') % {"where": where}
        )
    if not isinstance(op, str) or op not in PLAIN:
        raise UnusableDefinition(
            gettext('%(where)s: "op" is one of %(plain)s.') % {"where": where, "plain": " ".join(PLAIN)}
        )
    node = Expression("column", value=found["column"])
    if found["index"]:
        node = Expression("ListExpr.Get", (node, Expression("literal", value=int(found["index"]))))
    if not _is_plain(value) or value is None:
        raise UnusableDefinition(gettext('%(where)s: "value" is a number, a text or a boolean.') % {"where": where})
    return Expression(PLAIN[op], (node, Expression("literal", value=value)))


def _node(where: str, told: object, depth: int) -> Expression:
    if depth > DEPTH_LIMIT:
        raise UnusableDefinition(
            gettext("%(where)s: the expression is nested deeper than %(depth_limit)s.")
            % {"where": where, "depth_limit": DEPTH_LIMIT}
        )
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
        gettext(
            "%(where)s: %(part)s is not understood: use columns, numbers, text, comparisons, arithmetic, & | "
            "~, abs, is_null, is_between, list.get, list.len, list.max, list.min, list.sum, list.mean."
        )
        % {"where": where, "part": _shown(kind, content)}
    )


def _shown(kind: object, content: object) -> str:
    if isinstance(content, dict) and isinstance(content.get("function"), dict | str):
        told = json.dumps(content["function"], separators=(",", ":"))[:60]
        return gettext("the function %(name)s") % {"name": told}
    if isinstance(content, dict) and isinstance(content.get("op"), str):
        return gettext("the operator %(name)s") % {"name": content["op"][:60]}
    if not kind:
        return gettext("a part without a kind")
    return gettext("a part of the kind %(kind)s") % {"kind": str(kind)[:60]}


def _column(where: str, name: str) -> Expression:
    if not COLUMN.match(name):
        raise UnusableDefinition(
            gettext('%(where)s: column %(name)r is neither "in.<name>" nor "out.<name>".')
            % {"where": where, "name": name[:100]}
        )
    return Expression("column", value=name)


def _literal(where: str, told: object) -> Any:
    """The value inside: polars wraps it in its type, `{"Int32": 1}`, `{"Dyn": {"Int": 1}}`, `{"Scalar": {…}}`."""
    if told == "Null":
        return None
    value = told
    while isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    if not _is_plain(value):
        raise UnusableDefinition(gettext("%(where)s: a literal is a number, a text or a boolean.") % {"where": where})
    return value


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 2**63)


def _function(where: str, content: dict[str, Any], depth: int) -> Expression:
    name, option = _function_name(content.get("function"))
    inputs = content.get("input")
    if name not in FUNCTIONS or not isinstance(inputs, list) or len(inputs) != FUNCTIONS[name]:
        raise UnusableDefinition(
            gettext("%(where)s: %(part)s is not understood.") % {"where": where, "part": _shown("Function", content)}
        )
    nodes = tuple(_node(where, told, depth + 1) for told in inputs)
    if name == "ListExpr.Get":
        index = nodes[1].value if nodes[1].op == "literal" else None
        if not isinstance(index, int) or isinstance(index, bool):
            raise UnusableDefinition(gettext("%(where)s: list.get takes a whole number.") % {"where": where})
    return Expression(name, nodes, option)


def _function_name(told: object) -> tuple[str, Any]:
    """`"Abs"`, `{"Boolean": "IsNull"}`, `{"ListExpr": {"Get": false}}`; the option is what stands innermost."""
    names: list[str] = []
    while isinstance(told, dict) and len(told) == 1 and len(names) < 2:
        names, told = [*names, str(next(iter(told)))], next(iter(told.values()))
    if isinstance(told, str) and len(names) < 2:
        names, told = [*names, told], None
    return ".".join(names), told.get("closed", "Both") if isinstance(told, dict) else None
