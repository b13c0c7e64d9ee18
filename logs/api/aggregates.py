"""REST of aggregates: what rows amount to over time."""

from datetime import timedelta
from typing import Any, cast

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog.models import User
from logs import aggregates, exact
from logs.api.serializers import FiltersIn, Moment
from logs.buckets import MAX_POINTS, Asked, Group
from logs.exact import Question
from logs.filters import Filters

DEFAULT_PERIOD = timedelta(days=1)


class RangeIn(serializers.Serializer[Any]):
    """Which rows to sum up."""

    start = Moment(required=False, help_text="ISO 8601 or epoch ms; a day before `end` when it is not given")
    end = Moment(required=False, help_text="ISO 8601 or epoch ms; now when it is not given")
    points = serializers.IntegerField(
        min_value=1, max_value=MAX_POINTS, default=120, help_text="at most so many steps, of a round length"
    )
    edge = serializers.ListField(
        child=serializers.CharField(max_length=128), required=False, max_length=1000, help_text="names of edges"
    )
    pipeline_version = serializers.UUIDField(required=False)
    model = serializers.CharField(max_length=128, required=False, help_text="a model's name")
    group_by = serializers.ChoiceField([group.value for group in Group], required=False)

    def asked(self) -> Asked:
        """The checked input. Raises `Invalid` for an empty range."""
        given = self.validated_data
        end = given.get("end") or timezone.now() + timedelta(milliseconds=1)
        return Asked(
            start=given.get("start") or end - DEFAULT_PERIOD,
            end=end,
            points=given["points"],
            edges=tuple(given.get("edge", ())),
            pipeline_version=given.get("pipeline_version"),
            model=given.get("model", ""),
            group_by=Group(given["group_by"]) if "group_by" in given else None,
        )


class DistributionIn(RangeIn):
    field = serializers.CharField(max_length=512, help_text="as `logs/fields` names it, for example out.variable[0]")
    bins = serializers.IntegerField(min_value=1, max_value=aggregates.MAX_BINS, default=40)


class ExactIn(FiltersIn):
    """Which rows (of a day until now where no time is given), of which field what, and by which groups."""

    field = serializers.CharField(
        max_length=512, required=False, help_text="a number, for example out.variable[0]; in.tensor[*] is all elements"
    )
    by = serializers.ListField(
        child=serializers.CharField(max_length=512),
        required=False,
        max_length=4,
        help_text="edge, model, pipeline_version, or a field whose values are the groups",
    )
    step = serializers.IntegerField(
        min_value=1, max_value=366 * 86_400, required=False, help_text="seconds: a group for each"
    )

    def question(self) -> Question:
        """What is asked."""
        given = self.validated_data
        return Question(given.get("field", ""), tuple(given.get("by", ())), given.get("step"))


class ExactGroupOut(serializers.Serializer[Any]):
    groups = serializers.ListField(child=serializers.CharField(allow_null=True), help_text="in the order of `by`")
    start = serializers.IntegerField(allow_null=True, help_text="of the step, epoch ms")
    rows = serializers.IntegerField(help_text="of a field that is all elements of a list, values")
    count = serializers.IntegerField(help_text="finite numbers")
    nulls = serializers.IntegerField(help_text="also where rows have no such field")
    odd = serializers.IntegerField(help_text="NaN and infinity")
    min = serializers.FloatField(allow_null=True)
    max = serializers.FloatField(allow_null=True)
    mean = serializers.FloatField(allow_null=True)
    deviation = serializers.FloatField(allow_null=True)
    sum = serializers.FloatField(allow_null=True)
    p50 = serializers.FloatField(allow_null=True)
    p90 = serializers.FloatField(allow_null=True)
    p99 = serializers.FloatField(allow_null=True)


class SpanOut(serializers.Serializer[Any]):
    start = serializers.IntegerField(help_text="epoch ms")
    end = serializers.IntegerField(help_text="epoch ms, not within")
    step = serializers.IntegerField(help_text="seconds")
    pending_rows = serializers.IntegerField(help_text="arrived and not counted, because summing up is far behind")
    groups_left_out = serializers.IntegerField(help_text="those with fewest rows")


class LatencyOut(serializers.Serializer[Any]):
    """Milliseconds."""

    mean = serializers.FloatField()
    p50 = serializers.FloatField()
    p90 = serializers.FloatField()
    p99 = serializers.FloatField()
    max = serializers.FloatField()


class CountsOut(serializers.Serializer[Any]):
    rows = serializers.IntegerField()
    anomalous = serializers.IntegerField(help_text="rows that failed a validation")
    anomalies = serializers.IntegerField(help_text="failed validations")
    failures = serializers.DictField(child=serializers.IntegerField(), help_text="rows that failed it, by validation")
    latency = LatencyOut(allow_null=True)


class PointOut(serializers.Serializer[Any]):
    start = serializers.IntegerField(help_text="epoch ms")
    counts = CountsOut()


class SeriesOut(serializers.Serializer[Any]):
    group = serializers.CharField(help_text="empty when nothing was grouped")
    total = CountsOut()
    points = PointOut(many=True)


class TimeSeriesOut(serializers.Serializer[Any]):
    span = SpanOut()
    series = SeriesOut(many=True, help_text="the group with most rows first")


class SpreadOut(serializers.Serializer[Any]):
    count = serializers.IntegerField(help_text="finite numbers")
    nulls = serializers.IntegerField()
    odd = serializers.IntegerField(help_text="NaN and infinity")
    min = serializers.FloatField(allow_null=True)
    max = serializers.FloatField(allow_null=True)
    mean = serializers.FloatField(allow_null=True)
    deviation = serializers.FloatField(allow_null=True)
    p01 = serializers.FloatField(allow_null=True)
    p10 = serializers.FloatField(allow_null=True)
    p50 = serializers.FloatField(allow_null=True)
    p90 = serializers.FloatField(allow_null=True)
    p99 = serializers.FloatField(allow_null=True)


class SpreadPointOut(serializers.Serializer[Any]):
    start = serializers.IntegerField(help_text="epoch ms")
    spread = SpreadOut()


class SpreadSeriesOut(serializers.Serializer[Any]):
    group = serializers.CharField(help_text="empty when nothing was grouped")
    total = SpreadOut()
    histogram = serializers.ListField(child=serializers.FloatField(), help_text="numbers between each two edges")
    points = SpreadPointOut(many=True)


class DistributionOut(serializers.Serializer[Any]):
    span = SpanOut()
    field = serializers.CharField()
    edges = serializers.ListField(child=serializers.FloatField(), help_text="of the bins; none without numbers")
    series = SpreadSeriesOut(many=True)


class FieldsOut(serializers.Serializer[Any]):
    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """`fields` is taken on a serializer."""
        return {"fields": serializers.ListField(child=serializers.CharField(), help_text="outputs first")}


class GroupRowsOut(serializers.Serializer[Any]):
    group = serializers.CharField()
    rows = serializers.IntegerField()


class GroupsOut(serializers.Serializer[Any]):
    span = SpanOut()
    groups = GroupRowsOut(many=True, help_text="the one with most rows first")


def actor_of(request: Request) -> User:
    """Who asks. Authentication has been required before."""
    return cast(User, request.user)


def checked(serializer: Any) -> Any:
    """The serializer, when its input is right. Raises DRF's `ValidationError`."""
    serializer.is_valid(raise_exception=True)
    return serializer


class PipelineSeries(APIView):
    """Requests, failed validations and latency over time. A row counts as soon as its page is acknowledged."""

    @extend_schema(parameters=[RangeIn], responses=TimeSeriesOut)
    def get(self, request: Request, pk: int) -> Response:
        asked = checked(RangeIn(data=request.query_params)).asked()
        return Response(TimeSeriesOut(aggregates.time_series(actor_of(request), pk, asked)).data)


class PipelineDistribution(APIView):
    """How the numbers of an input or output are distributed: over time and as histograms."""

    @extend_schema(parameters=[DistributionIn], responses=DistributionOut)
    def get(self, request: Request, pk: int) -> Response:
        given = checked(DistributionIn(data=request.query_params))
        found = aggregates.distribution(
            actor_of(request), pk, given.asked(), given.validated_data["field"], given.validated_data["bins"]
        )
        return Response(DistributionOut(found).data)


class PipelineFields(APIView):
    """The numeric inputs and outputs that rows in a range have."""

    @extend_schema(parameters=[RangeIn], responses=FieldsOut)
    def get(self, request: Request, pk: int) -> Response:
        asked = checked(RangeIn(data=request.query_params)).asked()
        return Response({"fields": aggregates.fields(actor_of(request), pk, asked)})


class PipelineGroups(APIView):
    """The rows of every edge, model or version in a range, which is widened to whole hours or days."""

    @extend_schema(parameters=[RangeIn], responses=GroupsOut)
    def get(self, request: Request, pk: int) -> Response:
        asked = checked(RangeIn(data=request.query_params)).asked()
        span, groups = aggregates.rows_by_group(actor_of(request), pk, asked)
        return Response(GroupsOut({"span": span, "groups": groups}).data)


class PipelineExact(APIView):
    """Exact numbers of any field, by any groups and conditions, read from the rows themselves.

    It is broken off when it takes too long or too much memory (400 `too_slow`, 413). Use `logs/series` and
    `logs/distribution` for charts: they read no rows.
    """

    @extend_schema(parameters=[ExactIn], responses=ExactGroupOut(many=True))
    def get(self, request: Request, pk: int) -> Response:
        given = checked(ExactIn(data=request.query_params))
        scope = exact.scope_for(actor_of(request), pk, Filters.parse(request.query_params))
        found = exact.summed(scope, given.question())
        return Response(ExactGroupOut(found, many=True).data)
