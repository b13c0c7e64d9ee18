"""The device API of logs: what engines send. Its messages are in `contract/README.md`, section Logs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.errors import Invalid
from edges import hot
from edges.api import calls
from edges.api.device import COUNTER_MAX, DeviceView, edge_of
from edges.sessions import Identity
from logs import operations, pages

JSON = "application/json"
# Below the largest number that a column holds by more than a page, so that no last row lies beyond it.
LARGEST_SEQUENCE = 2**62


class GapIn(serializers.Serializer[Any]):
    epoch = serializers.UUIDField()
    first = serializers.IntegerField(min_value=1, max_value=LARGEST_SEQUENCE)
    last = serializers.IntegerField(min_value=1, max_value=LARGEST_SEQUENCE)
    count = serializers.IntegerField(min_value=1, max_value=LARGEST_SEQUENCE)
    time_min = serializers.IntegerField(min_value=-COUNTER_MAX, max_value=COUNTER_MAX, allow_null=True, default=None)
    time_max = serializers.IntegerField(min_value=-COUNTER_MAX, max_value=COUNTER_MAX, allow_null=True, default=None)
    reason = serializers.CharField(max_length=64)


@calls.edge_call("POST", most=pages.MAX_BYTES, may_be_chunked=True)
def logs(request: HttpRequest, identity: Identity, now: datetime) -> HttpResponse:
    """`POST logs?epoch=&first=&pipeline_version=`: a page of rows. 200 says they are durable.

    As an Arrow IPC stream or file, or with `Content-Type: application/json` as a list of pandas records. A plain view,
    because a DRF view costs as much as a page.
    """
    edge = hot.caller(identity, now)
    given = place_of(request.GET)
    body = calls.raw_body(request, pages.MAX_BYTES)
    page = operations.SentPage(body, now, is_json=is_json(request.content_type))
    acked = operations.store_page(edge=edge, page=page, **given)
    return calls.answer_json({"acked": acked})


def is_json(content_type: str | None) -> bool:
    """Whether a page comes as records in JSON; whatever else it is called, it is Arrow."""
    return (content_type or "").startswith(JSON)


def place_of(query: Mapping[str, str]) -> dict[str, Any]:
    """Where a page belongs: `epoch`, `first` and `pipeline_version_uuid`. Raises `Invalid` that names the parameter."""
    return {
        "epoch": _uuid(query, "epoch"),
        "first": _sequence(query, "first"),
        "pipeline_version_uuid": _uuid(query, "pipeline_version"),
    }


class Gaps(DeviceView):
    """`POST gaps`: rows that the edge had to drop before they were shipped. Moves `acked` past them."""

    def post(self, request: Request) -> Response:
        gap = operations.SentGap(**self.checked(GapIn, request))
        return Response({"acked": operations.record_gap(edge=edge_of(request), gap=gap, now=timezone.now())})


def _uuid(query: Mapping[str, str], name: str) -> UUID:
    try:
        return UUID(query.get(name, ""))
    except ValueError as exc:
        raise Invalid(f"{name}: must be a UUID.") from exc


def _sequence(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    if not 1 <= number <= LARGEST_SEQUENCE:
        raise Invalid(f"{name}: must be a whole number from 1 to {LARGEST_SEQUENCE}.")
    return number
