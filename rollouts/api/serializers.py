"""The JSON of rollouts. Inputs hold field rules only; outputs read what the view fetched."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from rollouts import plans, queries, windows
from rollouts.models import Bucket, Rollout, RolloutEvent, RolloutMember
from rollouts.plans import Strategy

LARGEST_ID = 2**63 - 1
DEFAULTS = Strategy()


class WindowShape(serializers.Serializer[Any]):
    """When edges may move. Without days every day; a window may end on the day after it begins."""

    days = serializers.ListField(child=serializers.ChoiceField(windows.DAYS), required=False)
    zone = serializers.CharField(default="UTC", max_length=64, help_text="of the IANA database, as Europe/Berlin")

    def get_fields(self) -> dict[str, Any]:
        """`from` is a word of Python, so it cannot be an attribute."""
        begins, ends = (serializers.CharField(max_length=5, help_text="time of day, as 22:00") for _ in range(2))
        return {**super().get_fields(), "from": begins, "to": ends}


class GroupShape(serializers.Serializer[Any]):
    """One of the three. Edges that no group names form a last one."""

    edges = serializers.ListField(child=serializers.CharField(max_length=128), required=False, max_length=1000)
    tags = serializers.ListField(child=serializers.CharField(max_length=64), required=False, max_length=32)
    percent = serializers.IntegerField(required=False, min_value=1, max_value=100, help_text="of the rest")


class RolloutIn(serializers.Serializer[Any]):
    publish = serializers.IntegerField(min_value=1, max_value=LARGEST_ID, help_text="The target; it is Published.")
    replaces = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=LARGEST_ID), min_length=1, max_length=100
    )
    groups = GroupShape(many=True, required=False)
    max_in_flight = serializers.CharField(
        default=DEFAULTS.max_in_flight, max_length=10, help_text='Edges on their way at once: "25" or "10%".'
    )
    success_percent = serializers.IntegerField(default=DEFAULTS.success_percent, min_value=1, max_value=100)
    error_percent = serializers.IntegerField(default=DEFAULTS.error_percent, min_value=0, max_value=100)
    healthy_seconds = serializers.IntegerField(default=DEFAULTS.healthy_seconds, min_value=0)
    answer_seconds = serializers.IntegerField(default=DEFAULTS.answer_seconds, min_value=60)
    auto_rollback = serializers.BooleanField(default=DEFAULTS.auto_rollback)
    window = WindowShape(required=False, allow_null=True)
    hours = serializers.IntegerField(
        default=DEFAULTS.hours, min_value=1, help_text="After so many it ends, whatever its edges do."
    )


class RolloutPreviewIn(RolloutIn):
    link_mbps = serializers.FloatField(default=10.0, min_value=0.001, help_text="Of each edge, for the estimated time.")


class RolloutReasonIn(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)


class AbortIn(RolloutReasonIn):
    rollback = serializers.BooleanField(default=False, help_text="Also move back the edges that succeeded.")


class MemberFilters(serializers.Serializer[Any]):
    bucket = serializers.ChoiceField(Bucket.choices, required=False)
    group = serializers.IntegerField(required=False, min_value=1, max_value=plans.GROUPS + 1)


class PlannedEdgeOut(serializers.Serializer[Any]):
    id = serializers.UUIDField(source="edge")
    name = serializers.CharField()
    bytes_to_fetch = serializers.IntegerField()
    seconds = serializers.SerializerMethodField(help_text="To fetch them over the given link.")
    is_online = serializers.BooleanField()

    def get_seconds(self, edge: plans.PlannedEdge) -> int:
        return round(plans.seconds_to_fetch(edge.bytes_to_fetch, self.context["link_mbps"]))


class PlannedGroupOut(serializers.Serializer[Any]):
    order = serializers.IntegerField()
    selector = serializers.DictField()
    edges = serializers.SerializerMethodField()
    online = serializers.SerializerMethodField()
    bytes_to_fetch = serializers.IntegerField()

    def get_edges(self, group: plans.PlannedGroup) -> int:
        return len(group.edges)

    def get_online(self, group: plans.PlannedGroup) -> int:
        return sum(edge.is_online for edge in group.edges)


class PlanOut(serializers.Serializer[Any]):
    edges = serializers.SerializerMethodField(help_text="How many.")
    max_in_flight = serializers.IntegerField()
    bytes_to_fetch = serializers.IntegerField(help_text="Of all edges together.")
    seconds = serializers.SerializerMethodField(help_text="A rough time for all, over the given link.")
    groups = PlannedGroupOut(many=True)
    budget = serializers.SerializerMethodField(help_text="A line an edge, in the order of the rollout; the first 1000.")

    def get_edges(self, plan: plans.Plan) -> int:
        return len(plan.edges)

    def get_seconds(self, plan: plans.Plan) -> int:
        return plan.seconds(self.context["link_mbps"], self.context["healthy_seconds"])

    @extend_schema_field(PlannedEdgeOut(many=True))
    def get_budget(self, plan: plans.Plan) -> Any:
        return PlannedEdgeOut(plan.edges[:1000], many=True, context=self.context).data


class BucketsOut(serializers.Serializer[Any]):
    def get_fields(self) -> dict[str, Any]:
        """A number a bucket."""
        return {bucket.value: serializers.IntegerField() for bucket in Bucket}


class RolloutGroupOut(serializers.Serializer[Any]):
    order = serializers.IntegerField(source="group.order")
    selector = serializers.DictField(source="group.selector")
    state = serializers.CharField(help_text="waiting, open or passed")
    opened_at = serializers.DateTimeField(source="group.opened_at", allow_null=True)
    passed_at = serializers.DateTimeField(source="group.passed_at", allow_null=True)
    edges = serializers.IntegerField(source="total")
    counts = BucketsOut()


class RolloutProgressOut(serializers.Serializer[Any]):
    edges = serializers.IntegerField(source="total")
    counts = BucketsOut()
    groups = RolloutGroupOut(many=True)


class RolloutOut(serializers.ModelSerializer[Rollout]):
    replaces = serializers.SerializerMethodField()
    pipeline = serializers.IntegerField(source="publish.pipeline_version.pipeline_id")
    workspace = serializers.IntegerField(source="publish.pipeline_version.pipeline.workspace_id")
    window = WindowShape(allow_null=True)
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = Rollout
        fields = [
            "id",
            "publish",
            "replaces",
            "pipeline",
            "workspace",
            "state",
            "reason",
            "max_in_flight",
            "success_percent",
            "error_percent",
            "healthy_seconds",
            "answer_seconds",
            "auto_rollback",
            "window",
            "deadline",
            "created_by",
            "created_at",
            "started_at",
            "ended_at",
        ]

    def get_replaces(self, rollout: Rollout) -> list[int]:
        return sorted(publish.pk for publish in rollout.replaced.all())


class RolloutDetailOut(RolloutOut):
    progress = serializers.SerializerMethodField()

    class Meta(RolloutOut.Meta):
        fields = [*RolloutOut.Meta.fields, "progress"]

    @extend_schema_field(RolloutProgressOut)
    def get_progress(self, rollout: Rollout) -> Any:
        return RolloutProgressOut(queries.progress_of(rollout)).data


class MemberOut(serializers.ModelSerializer[RolloutMember]):
    edge = serializers.UUIDField(source="edge_id")
    name = serializers.CharField(source="edge.name")
    group = serializers.IntegerField(source="group.order")
    previous = serializers.IntegerField(source="previous_id", help_text="The publish that it goes back to.")
    serving_digest = serializers.CharField(source="edge.serving_digest")

    class Meta:
        model = RolloutMember
        fields = ["edge", "name", "group", "bucket", "since", "reason", "previous", "bytes_to_fetch", "serving_digest"]


class RolloutEventOut(serializers.ModelSerializer[RolloutEvent]):
    actor = serializers.UUIDField(source="actor.public_id", allow_null=True, default=None)
    detail = serializers.DictField()

    class Meta:
        model = RolloutEvent
        fields = ["id", "at", "kind", "actor", "detail"]
