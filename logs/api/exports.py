"""REST of exports: ask for files of rows, see how far they are, fetch them."""

from typing import Any, cast
from uuid import UUID

from django.db.models import QuerySet
from django.http import FileResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog.models import User
from logs import exports
from logs.api.renderers import ARROW_FILE
from logs.api.serializers import ColumnsIn, FiltersIn
from logs.asked import Asked
from logs.filters import Filters
from logs.models import LogExport, LogExportFile
from logs.query import Order

MEDIA_TYPES = {"arrow": ARROW_FILE, "parquet": "application/vnd.apache.parquet", "json": "application/json"}


class ExportIn(FiltersIn, ColumnsIn):
    format = serializers.ChoiceField(LogExport.Format.choices, default=LogExport.Format.ARROW)
    order = serializers.ChoiceField([order.value for order in Order], default=Order.NEWEST_FIRST.value)
    limit = serializers.IntegerField(min_value=1, max_value=10**12, required=False, help_text="rows; all by default")
    data_size_limit = serializers.IntegerField(
        min_value=exports.SMALLEST_FILE,
        max_value=exports.LARGEST_FILE,
        default=exports.DEFAULT_FILE,
        help_text="bytes of one file",
    )


class ExportFileOut(serializers.ModelSerializer[LogExportFile]):
    url = serializers.SerializerMethodField(help_text="where to fetch it, with your own login or token")

    class Meta:
        model = LogExportFile
        fields = ["number", "rows", "size", "url"]

    def get_url(self, file: LogExportFile) -> str:
        return reverse("api-log-export-file", args=[file.export_id, file.number])


class ExportOut(serializers.ModelSerializer[LogExport]):
    created_by = serializers.CharField(source="created_by.email")
    progress = serializers.SerializerMethodField(help_text="of the time that it spans, 0 to 1")
    files = ExportFileOut(many=True)

    class Meta:
        model = LogExport
        fields = [
            "id",
            "pipeline",
            "created_by",
            "created_at",
            "format",
            "data_size_limit",
            "asked",
            "status",
            "error",
            "rows",
            "progress",
            "finished_at",
            "expires_at",
            "files",
        ]

    def get_progress(self, export: LogExport) -> float:
        return exports.progress_of(export)


class Exports(ListAPIView[LogExport]):
    """The exports of a pipeline, the newest first."""

    serializer_class = ExportOut

    def get_queryset(self) -> QuerySet[LogExport]:
        return exports.exports_for(cast(User, self.request.user), self.kwargs["pk"])

    @extend_schema(request=ExportIn, responses={201: ExportOut})
    def post(self, request: Request, pk: int) -> Response:
        """Has a worker write rows to files, each of one schema and at most `data_size_limit` bytes."""
        given = ExportIn(data=request.data)
        given.is_valid(raise_exception=True)
        found: dict[str, Any] = given.validated_data
        export = exports.create_export(
            actor=cast(User, request.user),
            pipeline_pk=pk,
            format=found["format"],
            asked=Asked(
                filters=Filters.parse(cast(dict[str, Any], request.data)),
                selection=given.selection(),
                order=Order(found["order"]),
                limit=found.get("limit"),
            ),
            data_size_limit=found["data_size_limit"],
        )
        return Response(ExportOut(export).data, status=status.HTTP_201_CREATED)


class ExportDetail(APIView):
    @extend_schema(responses=ExportOut)
    def get(self, request: Request, pk: UUID) -> Response:
        """How far an export is, and its finished files."""
        return Response(ExportOut(exports.export_for(cast(User, request.user), pk)).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: UUID) -> Response:
        """Stops an export where it is not over, and removes it with its files."""
        actor = cast(User, request.user)
        exports.delete_export(actor=actor, export=exports.export_for(actor, pk))
        return Response(status=status.HTTP_204_NO_CONTENT)


class ExportCancel(APIView):
    @extend_schema(request=None, responses=ExportOut)
    def post(self, request: Request, pk: UUID) -> Response:
        """Stops an export. Its finished files stay until they expire."""
        actor = cast(User, request.user)
        export = exports.cancel_export(actor=actor, export=exports.export_for(actor, pk))
        return Response(ExportOut(export).data)


class ExportFile(APIView):
    @extend_schema(responses={200: OpenApiTypes.BINARY})
    def get(self, request: Request, pk: UUID, number: int) -> FileResponse:
        """A finished file, for who may see the pipeline."""
        export, _file, path = exports.file_for(cast(User, request.user), pk, number)
        name = f"{export.pipeline.name}-{number:04}.{export.format}"
        return FileResponse(path.open("rb"), as_attachment=True, filename=name, content_type=MEDIA_TYPES[export.format])
