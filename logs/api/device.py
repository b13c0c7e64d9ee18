"""The device API of logs: what engines send. Its messages are in `contract/README.md`, section Logs."""

from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from edges.api.device import COUNTER_MAX, DeviceView, edge_of
from edges.errors import BodyTooLarge
from logs import operations, pages, records

JSON = "application/json"
READ_BYTES = 64 * 1024


class PageIn(serializers.Serializer[Any]):
    epoch = serializers.UUIDField()
    # Below the largest number that a column holds by more than a page, so that no last row lies beyond it.
    first = serializers.IntegerField(min_value=1, max_value=2**62)
    pipeline_version = serializers.UUIDField()


class GapIn(serializers.Serializer[Any]):
    epoch = serializers.UUIDField()
    first = serializers.IntegerField(min_value=1, max_value=2**62)
    last = serializers.IntegerField(min_value=1, max_value=2**62)
    count = serializers.IntegerField(min_value=1, max_value=2**62)
    time_min = serializers.IntegerField(min_value=-COUNTER_MAX, max_value=COUNTER_MAX, allow_null=True, default=None)
    time_max = serializers.IntegerField(min_value=-COUNTER_MAX, max_value=COUNTER_MAX, allow_null=True, default=None)
    reason = serializers.CharField(max_length=64)


class Logs(DeviceView):
    """`POST logs?epoch=&first=&pipeline_version=`: a page of rows. 200 says they are durable.

    As an Arrow IPC stream or file, or with `Content-Type: application/json` as a list of pandas records.
    """

    max_body = pages.MAX_BYTES

    def post(self, request: Request) -> Response:
        given = PageIn(data=request.query_params)
        given.is_valid(raise_exception=True)
        edge, version, body = edge_of(request), given.validated_data["pipeline_version"], self.raw_body(request)
        if (request.content_type or "").startswith(JSON):
            body = records.to_stream(body, pipeline_version=str(version), partition=edge.name)
        acked = operations.store_page(
            edge=edge,
            epoch=given.validated_data["epoch"],
            first=given.validated_data["first"],
            pipeline_version_uuid=version,
            body=body,
            now=timezone.now(),
        )
        return Response({"acked": acked})

    def raw_body(self, request: Request) -> bytes:
        """Also of a request in chunks, whose length is only known at its end."""
        if not _is_chunked(request):
            return super().raw_body(request)
        source, body = request.META["wsgi.input"], bytearray()
        while part := source.read(READ_BYTES):
            body += part
            if len(body) > self.max_body:
                raise BodyTooLarge(f"The body is larger than {self.max_body} bytes.", limit=self.max_body)
        return bytes(body)

    def _bound(self, request: Request) -> None:
        if not _is_chunked(request):
            super()._bound(request)


class Gaps(DeviceView):
    """`POST gaps`: rows that the edge had to drop before they were shipped. Moves `acked` past them."""

    def post(self, request: Request) -> Response:
        gap = self.checked(GapIn, request)
        return Response({"acked": operations.record_gap(edge=edge_of(request), now=timezone.now(), **gap)})


def _is_chunked(request: Request) -> bool:
    return str(request.META.get("HTTP_TRANSFER_ENCODING", "")).strip().lower() == "chunked"
