"""What a rollout would do: which edges in which group, and how many bytes each must fetch. Nothing is written."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils.translation import gettext

from common.errors import Invalid
from edges.models import Edge
from publishing.models import Publish
from rollouts import sights
from rollouts.budget import Budget
from rollouts.errors import NoEdges

GROUPS = 20
REST: Mapping[str, Any] = {"percent": 100}


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a rollout goes. Times in seconds, except `hours`, after which it ends whatever its edges do."""

    groups: Sequence[Mapping[str, Any]] = (REST,)
    max_in_flight: str = "100%"
    success_percent: int = 95
    error_percent: int = 10
    healthy_seconds: int = 60
    answer_seconds: int = 1800
    auto_rollback: bool = True
    window: Mapping[str, Any] | None = None
    hours: int = 168


@dataclasses.dataclass(frozen=True)
class PlannedEdge:
    edge: UUID
    name: str
    tags: tuple[str, ...]
    previous: int
    bytes_to_fetch: int
    is_online: bool


@dataclasses.dataclass(frozen=True)
class PlannedGroup:
    order: int
    selector: Mapping[str, Any]
    edges: tuple[PlannedEdge, ...]

    @property
    def bytes_to_fetch(self) -> int:
        """Of all its edges together."""
        return sum(edge.bytes_to_fetch for edge in self.edges)

    @property
    def most_bytes(self) -> int:
        """Of the edge that must fetch most."""
        return max((edge.bytes_to_fetch for edge in self.edges), default=0)


@dataclasses.dataclass(frozen=True)
class Plan:
    target: Publish
    replaced: tuple[Publish, ...]
    groups: tuple[PlannedGroup, ...]
    max_in_flight: int

    @property
    def edges(self) -> list[PlannedEdge]:
        """All of them, in the order in which they are reached."""
        return [edge for group in self.groups for edge in group.edges]

    @property
    def bytes_to_fetch(self) -> int:
        """Of all edges together."""
        return sum(group.bytes_to_fetch for group in self.groups)

    def seconds(self, link_mbps: float, healthy_seconds: int) -> int:
        """A rough time for all: groups one after another, as many edges at once as may be, all links equally fast."""
        total = 0.0
        for group in self.groups:
            online = sum(edge.is_online for edge in group.edges)
            each = seconds_to_fetch(group.most_bytes, link_mbps) + healthy_seconds
            total += math.ceil(online / self.max_in_flight) * each
        return math.ceil(total)


def seconds_to_fetch(size: int, link_mbps: float) -> float:
    """How long so many bytes take over a link of so many megabits per second."""
    return size * 8 / (link_mbps * 1_000_000)


def make(target: Publish, replaced: Sequence[Publish], strategy: Strategy, now: datetime) -> Plan:
    """The plan for the edges as they are now. Raises `Invalid`, `NoEdges`."""
    edges = _edges(target, replaced, now)
    if not edges:
        raise NoEdges(
            gettext("No edge should run these publishes: publish with replaces instead, which needs no rollout.")
        )
    groups = _grouped(edges, [_selector(group) for group in strategy.groups])
    return Plan(target, tuple(replaced), groups, at_once(strategy.max_in_flight, len(edges)))


def at_once(limit: str, total: int) -> int:
    """`"25"` or `"10%"` of so many edges as a number of at least one. Raises `Invalid`."""
    digits = limit.removesuffix("%")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10) or int(digits) == 0:
        raise Invalid(gettext('max_in_flight is a number of edges or a share of them, such as "25" or "10%".'))
    if not limit.endswith("%"):
        return int(digits)
    if int(digits) > 100:
        raise Invalid(gettext("max_in_flight can be at most 100%."))
    return max(1, total * int(digits) // 100)


def _edges(target: Publish, replaced: Sequence[Publish], now: datetime) -> list[PlannedEdge]:
    # Ids are random, so their order is a fair draw: percentages take no site because of its name.
    rows = Edge.objects.filter(publish__in=replaced, removed_at=None).order_by("pk")
    online = set(rows.filter(sights.in_contact(now)).values_list("pk", flat=True))
    found = list(rows.values_list("pk", "name", "tags", "publish_id", "serving_digest"))
    budget = Budget(target, {digest for *_, digest in found})
    return [
        PlannedEdge(pk, name, tuple(tags), publish, budget.missing(digest), pk in online)
        for pk, name, tags, publish, digest in found
    ]


def _selector(given: Mapping[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in ("edges", "tags", "percent") if given.get(kind) is not None]
    if len(kinds) != 1:
        raise Invalid(
            gettext('A group is one of {"edges": [names]}, {"tags": [tags]} and {"percent": 25} of the rest.')
        )
    kind, value = kinds[0], given[kinds[0]]
    if kind == "percent":
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
            raise Invalid(gettext("The percent of a group is a whole number from 1 to 100."))
        return {"percent": value}
    if not isinstance(value, list | tuple) or not value or not all(isinstance(text, str) for text in value):
        raise Invalid(gettext("The %(kind)s of a group are a list of at least one.") % {"kind": kind})
    return {kind: list(dict.fromkeys(value))}


def _grouped(edges: list[PlannedEdge], selectors: list[dict[str, Any]]) -> tuple[PlannedGroup, ...]:
    if len(selectors) > GROUPS:
        raise Invalid(gettext("A rollout has at most %(groups)s groups.") % {"groups": GROUPS})
    rest, groups = edges, []
    for order, selector in enumerate(selectors, 1):
        chosen = _chosen(rest, selector, edges)
        taken = {edge.edge for edge in chosen}
        rest = [edge for edge in rest if edge.edge not in taken]
        groups.append(PlannedGroup(order, selector, tuple(chosen)))
    if rest:
        groups.append(PlannedGroup(len(groups) + 1, dict(REST), tuple(rest)))
    return tuple(groups)


def _chosen(rest: list[PlannedEdge], selector: dict[str, Any], edges: list[PlannedEdge]) -> list[PlannedEdge]:
    if "percent" in selector:
        return rest[: math.ceil(len(rest) * selector["percent"] / 100)]
    if "tags" in selector:
        tags = set(selector["tags"])
        return [edge for edge in rest if tags & set(edge.tags)]
    unknown = sorted(set(selector["edges"]) - {edge.name for edge in edges})
    if unknown:
        raise Invalid(
            gettext("No edge of the replaced publishes is called %(unknown)s.") % {"unknown": ", ".join(unknown[:5])}
        )
    by_name = {edge.name: edge for edge in rest}
    return [by_name[name] for name in selector["edges"] if name in by_name]
