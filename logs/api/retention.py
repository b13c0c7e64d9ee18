"""REST of how long logs are kept."""

import dataclasses
from typing import Any, cast

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog import queries as catalog
from catalog.models import Pipeline, User, Workspace
from logs import retention
from logs.retention import Limits


class LimitsField(serializers.IntegerField):
    """A limit; null, or left out, is none."""

    def __init__(self, help_text: str) -> None:
        super().__init__(
            min_value=1, max_value=2**53, required=False, allow_null=True, default=None, help_text=help_text
        )


class RetentionIO(serializers.Serializer[Limits]):
    days = serializers.IntegerField(
        min_value=1,
        max_value=36_500,
        required=False,
        allow_null=True,
        default=None,
        help_text="rows that are older (edge time) may go; null: no limit",
    )
    rows = LimitsField("beyond so many rows the oldest go; null: no limit")
    size = LimitsField("beyond so many stored bytes the oldest go; null: no limit")
    sums_days = serializers.IntegerField(
        min_value=1,
        max_value=36_500,
        required=False,
        allow_null=True,
        default=None,
        help_text="charts keep counting rows that are gone for so long (edge time); null: sums go with their rows",
    )


class _Retention(APIView):
    def owner(self, request: Request, pk: int) -> Pipeline | Workspace:
        raise NotImplementedError

    @extend_schema(responses=RetentionIO)
    def get(self, request: Request, pk: int) -> Response:
        return Response(dataclasses.asdict(retention.limits_of(self.owner(request, pk))))

    @extend_schema(request=RetentionIO, responses=RetentionIO)
    def put(self, request: Request, pk: int) -> Response:
        owner = self.owner(request, pk)
        given = RetentionIO(data=request.data)
        given.is_valid(raise_exception=True)
        values: dict[str, Any] = given.validated_data
        limits = retention.set_limits(cast(User, request.user), owner, Limits(**values))
        return Response(dataclasses.asdict(limits))


class PipelineRetention(_Retention):
    """How long the logs of a pipeline are kept. Segments of logs go whole, when their newest row may. For owners."""

    def owner(self, request: Request, pk: int) -> Pipeline:
        return catalog.pipeline_for(cast(User, request.user), pk)


class WorkspaceRetention(_Retention):
    """How long the logs of all pipelines of a workspace are kept, counted together. For owners."""

    def owner(self, request: Request, pk: int) -> Workspace:
        return catalog.workspace_for(cast(User, request.user), pk)
