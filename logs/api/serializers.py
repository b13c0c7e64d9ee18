"""Input and output of the REST of logs."""

from datetime import datetime
from typing import Any

from rest_framework import serializers

from logs import conditions, queries
from logs.columns import DEFAULT_SEPARATOR, Selection
from logs.filters import MAX_NAME, Filters, moment
from logs.models import SOURCE_LENGTH, LogGap
from logs.query import MAX_LIMIT, Order, Query

SOURCE_HELP = "name of the source within the pipeline; its first page or gap makes it"
MOMENT = "ISO 8601 (UTC unless it has an offset) or epoch ms"


class Moment(serializers.DateTimeField):
    """ISO 8601 (UTC unless it has an offset), or epoch milliseconds as rows have them."""

    def to_internal_value(self, value: Any) -> datetime:
        try:
            return moment(str(value) if type(value) is int else value)
        except (ValueError, OverflowError, TypeError):
            return super().to_internal_value(value)


class FiltersIn(serializers.Serializer[Any]):
    """What `Filters.parse` reads, which checks it; declared here for the API's description."""

    start = serializers.CharField(required=False, help_text=f"only rows of this time or later: {MOMENT}")
    end = serializers.CharField(required=False, help_text=f"only rows of this time or earlier: {MOMENT}")
    edge = serializers.ListField(
        child=serializers.CharField(max_length=MAX_NAME),
        required=False,
        help_text="names of edges, or patterns: `*` is any characters, `?` one",
    )
    pipeline_version = serializers.ListField(child=serializers.UUIDField(), required=False)
    model = serializers.ListField(
        child=serializers.CharField(max_length=MAX_NAME),
        required=False,
        help_text="names (or patterns) of the model that answered, or its SHA-256",
    )
    anomaly = serializers.ListField(
        child=serializers.CharField(max_length=MAX_NAME),
        required=False,
        help_text="names of validations that failed; `count` for any",
    )
    filter = serializers.ListField(
        child=serializers.CharField(max_length=conditions.MAX_LENGTH),
        required=False,
        help_text="conditions on values, such as `out.variable > 500000`; all must hold",
    )


class ColumnsIn(serializers.Serializer[Any]):
    dataset = serializers.ListField(
        child=serializers.CharField(max_length=256),
        required=False,
        max_length=1000,
        help_text="groups (`in`, `out`, `anomaly`, `metadata`) or columns (`out.variable`); everything when none is "
        "given. `time` always comes.",
    )
    dataset_exclude = serializers.ListField(
        child=serializers.CharField(max_length=256),
        required=False,
        max_length=1000,
        help_text="as dataset, to leave out",
    )
    dataset_separator = serializers.CharField(
        max_length=16,
        required=False,
        trim_whitespace=False,
        help_text="when given, rows are flat: a column `in<separator>x` a field instead of an object `in`",
    )

    def selection(self) -> Selection:
        """The checked input as a choice of columns."""
        given = self.validated_data
        separator = given.get("dataset_separator")
        return Selection(
            dataset=tuple(given.get("dataset") or ("*",)),
            exclude=tuple(given.get("dataset_exclude", ())),
            separator=separator or DEFAULT_SEPARATOR,
            is_flat=bool(separator),
        )


class LogsIn(ColumnsIn):
    limit = serializers.IntegerField(min_value=1, max_value=MAX_LIMIT, default=100, help_text="rows")
    order = serializers.ChoiceField([order.value for order in Order], default=Order.NEWEST_FIRST.value)
    cursor = serializers.CharField(max_length=200, required=False, help_text="`next` of the answer before")

    def query(self, filters: Filters) -> Query:
        """The checked input as a query. Raises `Invalid` for a cursor that is none."""
        given = self.validated_data
        return queries.asked(
            filters,
            order=Order(given["order"]),
            limit=given["limit"],
            cursor=given.get("cursor"),
            selection=self.selection(),
        )


class RowOut(serializers.Serializer[Any]):
    """A row, unless `dataset_separator` made it flat."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """`in` is no name for an attribute."""
        values = {name: serializers.DictField() for name in ("in", "out", "anomaly", "metadata")}
        return {"time": serializers.IntegerField(help_text="epoch ms"), **values}


class GapOut(serializers.ModelSerializer[LogGap]):
    class Meta:
        model = LogGap
        fields = ["first", "last", "count", "time_min", "time_max", "reason", "arrived_at"]


class AccountOut(serializers.Serializer[Any]):
    epoch = serializers.UUIDField(help_text="a log store")
    received = serializers.IntegerField(help_text="rows that are durable here")
    shed = serializers.IntegerField(help_text="rows that were dropped before they were sent, as the gaps tell")
    acked = serializers.IntegerField(help_text="last sequence that is accounted for: received + shed")
    pending = serializers.IntegerField(
        allow_null=True, help_text="rows that waited on the edge at its last check-in; null for a store it has no more"
    )
    left_behind = serializers.IntegerField(
        help_text="rows that the edge had reported and has no more, because its volume was wiped, damaged or put back "
        "from an older copy: lost, unless they still come"
    )
    last_time = serializers.IntegerField(
        allow_null=True, help_text="edge time of the newest row received, epoch ms; null when it is not known"
    )
    last_arrival = serializers.DateTimeField(allow_null=True, help_text="of rows or a gap; null before the first")
    gaps = GapOut(many=True, help_text="with the sender's reason; rows left behind as `volume_lost`, until they come")


class AccountingOut(serializers.Serializer[Any]):
    edge = serializers.CharField(source="edge.name", help_text="name")
    reported_at = serializers.IntegerField(
        source="health.reported_at", allow_null=True, help_text="its last check-in, epoch ms by the center's clock"
    )
    clock_offset = serializers.IntegerField(
        source="health.clock_offset", allow_null=True, help_text="ms that the edge's clock was ahead then"
    )
    is_held = serializers.BooleanField(help_text="observability is off: pending rows wait on the edge until it is on")
    epochs = AccountOut(source="accounts", many=True, help_text="the last heard of first")


class PageIn(serializers.Serializer[Any]):
    """Where a page of a source belongs; `device.place_of` reads it."""

    epoch = serializers.UUIDField(help_text="the source's log store, such as one for each run of a job")
    first = serializers.IntegerField(min_value=1, help_text="sequence of the page's first row, from 1 on")
    pipeline_version = serializers.UUIDField()

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """`source` is a name that serializers use themselves."""
        source = serializers.CharField(max_length=SOURCE_LENGTH, help_text=SOURCE_HELP)
        return {"source": source, **super().get_fields()}


class AckedOut(serializers.Serializer[Any]):
    acked = serializers.IntegerField(
        help_text="sequence of the last row that is durable or told as lost; rows up to it are ignored when resent"
    )


class SourceOut(serializers.Serializer[Any]):
    name = serializers.CharField(source="source.name")
    partition = serializers.CharField(source="source", help_text="`center:<name>`, as rows and filters have it")
    created_by = serializers.CharField(source="source.created_by.email")
    created_at = serializers.DateTimeField(source="source.created_at")
    epochs = AccountOut(source="accounts", many=True, help_text="the last heard of first")
