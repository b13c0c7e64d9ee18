"""The JSON of assays. Inputs hold field rules only; outputs read what the view fetched."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from drift.measures import MAX_BINS, Aggregation, BinMode, Metric
from drift.models import Assay, Baseline, Result
from drift.operations import BaselineAsked, Comparison, Schedule
from logs.api.serializers import Moment

LARGEST_ID = 2**63 - 1
LONGEST = 366 * 86_400  # seconds


class Number(serializers.FloatField):
    """A finite number: JSON as Python reads it has others."""

    def to_internal_value(self, data: Any) -> float:
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            self.fail("invalid")
        return value


class AssayBaselineIn(serializers.Serializer[Any]):
    """A time range of the logs, or a file that was uploaded before."""

    start = Moment(required=False, help_text="ISO 8601 or epoch ms")
    end = Moment(required=False, help_text="ISO 8601 or epoch ms, not within")
    file = serializers.IntegerField(required=False, min_value=1, max_value=LARGEST_ID, help_text="id of an upload")


class ComparisonIn(serializers.Serializer[Any]):
    model = serializers.CharField(max_length=128, help_text="a model's name")
    field_path = serializers.CharField(max_length=512, help_text="`logs/fields` lists them, as out.variable[0]")
    baseline = AssayBaselineIn()
    edges = serializers.ListField(
        child=serializers.CharField(max_length=128),
        required=False,
        max_length=1000,
        help_text="names or patterns; none is all",
    )
    bin_mode = serializers.ChoiceField([mode.value for mode in BinMode], default=BinMode.QUANTILE.value)
    bins = serializers.IntegerField(min_value=1, max_value=MAX_BINS, default=5)
    bin_edges = serializers.ListField(
        child=Number(), required=False, max_length=MAX_BINS + 1, help_text="for bin_mode given, ascending"
    )
    aggregation = serializers.ChoiceField([one.value for one in Aggregation], default=Aggregation.DENSITY.value)
    metric = serializers.ChoiceField([metric.value for metric in Metric], default=Metric.PSI.value)

    def comparison(self) -> Comparison:
        """The checked input. Raises `Invalid` for what does not go together."""
        given = self.validated_data
        return Comparison(
            model=given["model"],
            field=given["field_path"],
            baseline=BaselineAsked(**given["baseline"]),
            edges=tuple(given.get("edges", ())),
            bin_mode=BinMode(given["bin_mode"]),
            bins=given["bins"],
            bin_edges=tuple(given.get("bin_edges", ())),
            aggregation=Aggregation(given["aggregation"]),
            metric=Metric(given["metric"]),
        )


class AssayIn(ComparisonIn):
    name = serializers.CharField(max_length=128)
    alert = Number(required=False, help_text="a score above it is an alert; 0.25 for PSI, 0.2 for max_diff, 0.4 else")
    warning = Number(required=False, allow_null=True, help_text="a score above it is a warning")
    min_records = serializers.IntegerField(
        default=1, min_value=1, max_value=2**31 - 1, help_text="a window with fewer numbers is not scored"
    )
    by_edge = serializers.BooleanField(default=False, help_text="a result for each edge instead of one for all")
    width = serializers.IntegerField(
        min_value=60, max_value=LONGEST, default=86_400, help_text="of a window, in seconds"
    )
    interval = serializers.IntegerField(
        min_value=60, max_value=LONGEST, required=False, help_text="from window to window, in seconds; the width else"
    )
    first_start = Moment(required=False, help_text="of the first window; the baseline's end, or now, else")
    run_until = Moment(required=False, allow_null=True, help_text="no window ends later")
    wait = serializers.IntegerField(
        min_value=0, max_value=LONGEST, default=60, help_text="seconds after a window, for rows that come late"
    )

    def schedule(self) -> Schedule:
        """The checked input."""
        given = self.validated_data
        return Schedule(
            width=given["width"],
            interval=given.get("interval") or given["width"],
            first_start=given.get("first_start"),
            run_until=given.get("run_until"),
            wait=given["wait"],
        )


class AssayChangesIn(serializers.Serializer[Any]):
    """What is not given stays. What is compared, and the windows, are fixed: make another assay for others."""

    name = serializers.CharField(required=False, max_length=128)
    alert = Number(required=False, help_text="a score above it is an alert")
    warning = Number(required=False, allow_null=True, help_text="a score above it is a warning; null for none")
    min_records = serializers.IntegerField(required=False, min_value=1, max_value=2**31 - 1)
    wait = serializers.IntegerField(required=False, min_value=0, max_value=LONGEST)
    run_until = Moment(required=False, allow_null=True, help_text="no window ends later; null for no end")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Nothing is left out unsaid: a field that cannot be changed is refused."""
        if unknown := sorted(set(self.initial_data) - set(self.fields)):
            raise serializers.ValidationError(
                _("Of an assay only %(fields)s can be changed, not %(others)s: make another one.")
                % {"fields": ", ".join(self.fields), "others": ", ".join(unknown)}
            )
        return attrs


class StatsOut(serializers.Serializer[Any]):
    count = serializers.IntegerField(help_text="finite numbers")
    min = serializers.FloatField(allow_null=True)
    max = serializers.FloatField(allow_null=True)
    mean = serializers.FloatField(allow_null=True)
    median = serializers.FloatField(allow_null=True)
    deviation = serializers.FloatField(allow_null=True)


class PreparedOut(serializers.Serializer[Any]):
    """A baseline: `parts` has one more at either end than there are bins, for what is below and above."""

    stats = StatsOut()
    edges = serializers.ListField(child=serializers.FloatField(), help_text="of the bins")
    parts = serializers.ListField(child=serializers.FloatField())


class UploadIn(serializers.Serializer[Any]):
    field_path = serializers.CharField(max_length=512, help_text="what it is a baseline of, as out.variable[0]")
    column = serializers.CharField(max_length=512, required=False, help_text="in the file; found by the field else")
    name = serializers.CharField(max_length=255, required=False, help_text="of the file")


class UploadOut(serializers.ModelSerializer[Baseline]):
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = Baseline
        fields = ["id", "pipeline", "name", "count", "created_by", "created_at"]


class AssayPauseIn(serializers.Serializer[Any]):
    note = serializers.CharField(max_length=500, default="", allow_blank=True)


class AssayOut(serializers.ModelSerializer[Assay]):
    field_path = serializers.CharField(source="field")
    workspace = serializers.IntegerField(source="pipeline.workspace_id")
    edges = serializers.ListField(child=serializers.CharField())
    baseline_stats = StatsOut()
    bin_edges = serializers.ListField(child=serializers.FloatField())
    baseline_parts = serializers.ListField(child=serializers.FloatField(), help_text="below, the bins, above")
    next_run = serializers.SerializerMethodField(help_text="when the next window is scored")
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = Assay
        fields = [
            "id",
            "name",
            "pipeline",
            "workspace",
            "model",
            "field_path",
            "edges",
            "by_edge",
            "baseline_start",
            "baseline_end",
            "baseline_file",
            "baseline_stats",
            "bin_mode",
            "bin_edges",
            "aggregation",
            "baseline_parts",
            "metric",
            "warning",
            "alert",
            "min_records",
            "width",
            "interval",
            "wait",
            "next_start",
            "next_run",
            "run_until",
            "status",
            "note",
            "created_by",
            "created_at",
        ]

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_next_run(self, assay: Assay) -> datetime | None:
        if assay.status != Assay.Status.ACTIVE:
            return None
        begin = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=assay.next_start)
        return begin + timedelta(seconds=assay.width + assay.wait)


class ResultFilters(serializers.Serializer[Any]):
    edge = serializers.CharField(max_length=128, required=False, allow_blank=True)
    status = serializers.ChoiceField(Result.Status.choices, required=False)
    start = Moment(required=False, help_text="windows that begin then or later: ISO 8601 or epoch ms")
    end = Moment(required=False, help_text="windows that begin before: ISO 8601 or epoch ms")


class AssayResultOut(serializers.ModelSerializer[Result]):
    stats = serializers.SerializerMethodField()
    parts = serializers.ListField(child=serializers.FloatField(), help_text="below, the bins, above")

    class Meta:
        model = Result
        fields = ["id", "edge", "start", "end", "status", "score", "stats", "parts", "reason", "computed_at"]

    @extend_schema_field(StatsOut(allow_null=True))
    def get_stats(self, result: Result) -> Any:
        return result.stats or None
