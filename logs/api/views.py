"""REST of logs: rows of a pipeline, and what came of the rows of an edge."""

from typing import Any, cast
from uuid import UUID

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog.models import User
from edges.api import calls
from logs import accounting, formats, operations, pages, queries
from logs.api import device, renderers, serializers
from logs.filters import Filters

STATUS_HEADER = "X-Log-Status"


class PipelineLogs(APIView):
    """Rows that a pipeline's edges inferred, in true global time order, the newest first unless `order=asc`.

    An answer holds rows of one schema. Its header `X-Log-Status` is JSON, `{"status", "next"}`, and in Arrow the
    schema's metadata key `status` is the same: `All` (no more rows), `RecordLimited` (by `limit`), `ByteLimited` (the
    rows are large, or the filters let few of many through) or `SchemaChange` (the next row has other columns). Unless
    it is `All`, more logs are available: `message` says so, and `next` is the `cursor` to go on with.
    """

    renderer_classes = (renderers.Records, renderers.ArrowFile, renderers.ArrowStream)
    content_negotiation_class = renderers.Negotiation

    @extend_schema(
        parameters=[
            serializers.LogsIn,
            serializers.FiltersIn,
            OpenApiParameter("format", str, enum=["json", "arrow", "arrow-stream"], description="instead of Accept"),
            OpenApiParameter(STATUS_HEADER, str, OpenApiParameter.HEADER, response=[200]),
        ],
        responses={
            (200, "application/json"): serializers.RowOut(many=True),
            (200, renderers.ARROW_FILE): OpenApiTypes.BINARY,
            (200, renderers.ARROW_STREAM): OpenApiTypes.BINARY,
        },
    )
    def get(self, request: Request, pk: int) -> Response:
        given = serializers.LogsIn(data=request.query_params)
        given.is_valid(raise_exception=True)
        filters = Filters.parse(request.query_params)
        answer = queries.read(cast(User, request.user), pk, given.query(filters))
        return Response(answer, headers={STATUS_HEADER: formats.status_text(answer)})

    @extend_schema(
        parameters=[serializers.PageIn],
        request={
            renderers.ARROW_STREAM: OpenApiTypes.BINARY,
            renderers.ARROW_FILE: OpenApiTypes.BINARY,
            "application/json": serializers.RowOut(many=True),
        },
        responses=serializers.AckedOut,
        description="A page of rows of a source in the center, such as a batch job. 200 says they are durable.",
    )
    def post(self, request: Request, pk: int) -> Response:
        body = calls.bounded_body(request, pages.MAX_BYTES)
        place = device.place_of(request.query_params)
        sent = operations.SentPage(body, timezone.now(), is_json=device.is_json(request.content_type))
        acked = operations.store_source_page(
            actor=cast(User, request.user),
            pipeline_pk=pk,
            source=request.query_params.get("source", ""),
            page=sent,
            **place,
        )
        return Response({"acked": acked})

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """All but rows is JSON, whatever format was asked for."""
        if isinstance(response, Response) and (response.exception or request.method != "GET"):
            request.accepted_renderer = JSONRenderer()
            request.accepted_media_type = JSONRenderer.media_type
        return super().finalize_response(request, response, *args, **kwargs)


class PipelineGaps(APIView):
    """Rows that a source in the center lost before it sent them: told here, they are counted and not waited for."""

    @extend_schema(
        parameters=[OpenApiParameter("source", str, required=True, description=serializers.SOURCE_HELP)],
        request=device.GapIn,
        responses=serializers.AckedOut,
    )
    def post(self, request: Request, pk: int) -> Response:
        given = device.GapIn(data=request.data)
        given.is_valid(raise_exception=True)
        acked = operations.record_source_gap(
            actor=cast(User, request.user),
            pipeline_pk=pk,
            source=request.query_params.get("source", ""),
            gap=operations.SentGap(**given.validated_data),
            now=timezone.now(),
        )
        return Response({"acked": acked})


class EdgeAccounting(APIView):
    """What came of every row of an edge: each is durable here or was told to be dropped, `received + shed = acked`."""

    @extend_schema(responses=serializers.AccountingOut)
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(serializers.AccountingOut(accounting.accounting_for(cast(User, request.user), pk)).data)


class PipelineSources(APIView):
    """The sources in the center that wrote rows of a pipeline, and what came of these, as for edges."""

    @extend_schema(responses=serializers.SourceOut(many=True))
    def get(self, request: Request, pk: int) -> Response:
        found = accounting.sources_for(cast(User, request.user), pk)
        return Response(serializers.SourceOut(found, many=True).data)
