"""REST of assays: validate, one query or operation, answer."""

from collections.abc import Mapping
from typing import Any, cast

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog.models import User
from common.errors import TooLarge
from drift import baselines, operations, queries
from drift.api import serializers
from drift.models import Assay, Baseline, Result


def actor_of(request: Request) -> User:
    """Who asks. Authentication has been required before."""
    return cast(User, request.user)


def checked(serializer: Any) -> Any:
    """The serializer, when its input is right. Raises DRF's `ValidationError`."""
    serializer.is_valid(raise_exception=True)
    return serializer


class Assays(ListAPIView[Assay]):
    """A pipeline's assays, by name."""

    serializer_class = serializers.AssayOut
    queryset = Assay.objects.none()  # for the schema, which asks nobody

    def get_queryset(self) -> QuerySet[Assay]:
        return queries.assays_for(actor_of(self.request), self.kwargs["pk"])

    @extend_schema(request=serializers.AssayIn, responses={201: serializers.AssayOut})
    def post(self, request: Request, pk: int) -> Response:
        """Compares a field's numbers with a baseline, window after window, from now on (and from `first_start` on)."""
        given = checked(serializers.AssayIn(data=request.data))
        values = given.validated_data
        assay = operations.create(
            actor=actor_of(request),
            pipeline_pk=pk,
            name=values["name"],
            comparison=given.comparison(),
            schedule=given.schedule(),
            alert=values.get("alert"),
            warning=values.get("warning"),
            min_records=values["min_records"],
            by_edge=values["by_edge"],
        )
        found = queries.assay_for(actor_of(request), assay.pk)
        return Response(serializers.AssayOut(found).data, status=status.HTTP_201_CREATED)


class Preview(APIView):
    @extend_schema(request=serializers.ComparisonIn, responses=serializers.PreparedOut)
    def post(self, request: Request, pk: int) -> Response:
        """The baseline that an assay would have, with its bins. Nothing is made."""
        given = checked(serializers.ComparisonIn(data=request.data))
        prepared = operations.preview(actor=actor_of(request), pipeline_pk=pk, comparison=given.comparison())
        return Response(serializers.PreparedOut(prepared).data)


class Body(BaseParser):
    """A file as the request's body, of at most `baselines.MAX_BYTES`: `{"body"}`."""

    media_type = "*/*"

    def parse(
        self, stream: Any, media_type: str | None = None, context: Mapping[str, Any] | None = None
    ) -> dict[str, bytes]:
        body: bytes = stream.read(baselines.MAX_BYTES + 1)
        if len(body) > baselines.MAX_BYTES:
            raise TooLarge(
                _("A baseline may have at most %(max_bytes)s bytes.") % {"max_bytes": baselines.MAX_BYTES},
                limit=baselines.MAX_BYTES,
            )
        return {"body": body}


class Baselines(ListAPIView[Baseline]):
    """The baselines that were uploaded for a pipeline, the newest first."""

    serializer_class = serializers.UploadOut
    parser_classes = (Body,)
    queryset = Baseline.objects.none()  # for the schema, which asks nobody

    def get_queryset(self) -> QuerySet[Baseline]:
        return queries.baselines_for(actor_of(self.request), self.kwargs["pk"])

    @extend_schema(
        parameters=[serializers.UploadIn],
        request={"application/octet-stream": OpenApiTypes.BINARY},
        responses={201: serializers.UploadOut},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Uploads numbers to compare with, as the body: Arrow IPC, pandas-records JSON, or CSV with a head."""
        given = checked(serializers.UploadIn(data=request.query_params)).validated_data
        made = operations.upload_baseline(
            actor=actor_of(request),
            pipeline_pk=pk,
            body=cast(dict[str, bytes], request.data).get("body", b""),
            field=given["field_path"],
            column=given.get("column", ""),
            name=given.get("name", ""),
        )
        return Response(serializers.UploadOut(made).data, status=status.HTTP_201_CREATED)


class BaselineDetail(APIView):
    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Deletes an upload that no assay compares with."""
        operations.delete_baseline(actor=actor_of(request), baseline_pk=pk)
        return Response(status=status.HTTP_204_NO_CONTENT)


class AssayDetail(APIView):
    @extend_schema(responses=serializers.AssayOut)
    def get(self, request: Request, pk: int) -> Response:
        """One assay."""
        return Response(serializers.AssayOut(queries.assay_for(actor_of(request), pk)).data)

    @extend_schema(request=serializers.AssayChangesIn, responses=serializers.AssayOut)
    def patch(self, request: Request, pk: int) -> Response:
        """Changes thresholds, name and end, for the windows that are not scored yet. Results stay as they are."""
        changes = checked(serializers.AssayChangesIn(data=request.data)).validated_data
        return Response(serializers.AssayOut(operations.change(actor=actor_of(request), assay_pk=pk, **changes)).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Deletes an assay with its results."""
        operations.delete(actor=actor_of(request), assay_pk=pk)
        return Response(status=status.HTTP_204_NO_CONTENT)


class Pause(APIView):
    @extend_schema(request=serializers.AssayPauseIn, responses=serializers.AssayOut)
    def post(self, request: Request, pk: int) -> Response:
        """Scores no more windows until it is resumed."""
        given = checked(serializers.AssayPauseIn(data=request.data)).validated_data
        return Response(serializers.AssayOut(operations.pause(actor=actor_of(request), assay_pk=pk, **given)).data)


class Resume(APIView):
    @extend_schema(request=None, responses=serializers.AssayOut)
    def post(self, request: Request, pk: int) -> Response:
        """Goes on with the first window that has not ended."""
        return Response(serializers.AssayOut(operations.resume(actor=actor_of(request), assay_pk=pk)).data)


@extend_schema(parameters=[serializers.ResultFilters])
class Results(ListAPIView[Result]):
    """What the windows of an assay came to, the newest first."""

    serializer_class = serializers.AssayResultOut
    queryset = Result.objects.none()  # for the schema, which asks nobody

    def get_queryset(self) -> QuerySet[Result]:
        assay = queries.assay_for(actor_of(self.request), self.kwargs["pk"])
        given = checked(serializers.ResultFilters(data=self.request.query_params)).validated_data
        start, end = given.get("start"), given.get("end")
        return queries.results_of(
            assay,
            edge=given.get("edge"),
            status=given.get("status", ""),
            start=queries.ms(start) if start else None,
            end=queries.ms(end) if end else None,
        )
