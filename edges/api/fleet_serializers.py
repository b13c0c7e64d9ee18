"""The JSON of what people do with many edges at once."""

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from edges.api.serializers import EdgeIn
from edges.models import Edge, FleetToken
from edges.operations import REASON
from edges.provisioning import BULK, FLEET_EDGES, FLEET_TOKEN_LIFE, MovedEdge
from publishing import commands, schema_changes
from publishing import queries as publishing
from publishing.api.serializers import CommandOut, ReplacedOut
from publishing.operations import Compared

HOURS = 36.0  # as `states.LAPSING`: a weekend's notice


class BulkIn(serializers.Serializer[Any]):
    edges = serializers.ListField(child=EdgeIn(), min_length=1, max_length=BULK)


class BundlesIn(serializers.Serializer[Any]):
    edges = serializers.ListField(
        child=serializers.UUIDField(), required=False, max_length=BULK, help_text="Left out: all edges of the publish."
    )
    reason = serializers.CharField(max_length=REASON, default="", allow_blank=True)


class EdgeBundleOut(serializers.Serializer[Any]):
    """An edge of a publish with the commands that start the publish's engine there."""

    id = serializers.UUIDField(source="edge.pk")
    name = serializers.CharField(source="edge.name")
    edge_bundle = serializers.SerializerMethodField(help_text="null: its engine knows who it is and needs none")
    docker_run_variables = serializers.SerializerMethodField()
    commands = serializers.SerializerMethodField()

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_edge_bundle(self, moved: MovedEdge) -> str | None:
        return moved.bundle or None

    @extend_schema_field(serializers.DictField(child=serializers.CharField()))
    def get_docker_run_variables(self, moved: MovedEdge) -> dict[str, str]:
        return commands.docker_run_variables(publishing.view_of(moved.edge.publish), moved.bundle or None)

    @extend_schema_field(CommandOut(many=True))
    def get_commands(self, moved: MovedEdge) -> list[dict[str, str]]:
        ready = commands.for_publish(publishing.view_of(moved.edge.publish, moved.edge.name), moved.bundle or None)
        return [asdict(command) for command in ready]


class FleetTokenIn(serializers.Serializer[Any]):
    pattern = serializers.CharField(max_length=128, help_text="of the names, for example shop-{n:04}")
    max_edges = serializers.IntegerField(min_value=1, max_value=FLEET_EDGES)
    hours = serializers.FloatField(
        default=24.0, min_value=0.1, max_value=FLEET_TOKEN_LIFE / timedelta(hours=1), help_text="how long it lives"
    )
    tags = serializers.ListField(child=serializers.CharField(max_length=64), default=list, max_length=32)
    cpus = serializers.FloatField(default=1.0)
    memory = serializers.CharField(default="1Gi", max_length=16)


class FleetTokenOut(serializers.ModelSerializer[FleetToken]):
    tags = serializers.ListField(child=serializers.CharField())
    created_by = serializers.UUIDField(source="created_by.public_id")
    revoked_by = serializers.UUIDField(source="revoked_by.public_id", allow_null=True, default=None)

    class Meta:
        model = FleetToken
        fields = [
            "id",
            "publish",
            "pattern",
            "tags",
            "cpus",
            "memory",
            "max_edges",
            "made",
            "expires_at",
            "created_by",
            "created_at",
            "revoked_at",
            "revoked_by",
            "revoke_reason",
        ]


class BundledFleetTokenOut(FleetTokenOut):
    edge_bundle = serializers.SerializerMethodField(help_text="the same for every device; shown only here")

    class Meta(FleetTokenOut.Meta):
        fields = [*FleetTokenOut.Meta.fields, "edge_bundle"]

    def get_edge_bundle(self, token: FleetToken) -> str:
        return str(self.context["bundle"])


class SummaryFilters(serializers.Serializer[Any]):
    workspace = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)
    pipeline = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)
    publish = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)
    hours = serializers.FloatField(default=HOURS, min_value=0, max_value=168)


class LapsingOut(serializers.ModelSerializer[Edge]):
    lapses_at = serializers.DateTimeField(source="session_lapses_at")

    class Meta:
        model = Edge
        fields = ["id", "name", "last_contact", "lapses_at"]


class SummaryOut(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    states = serializers.DictField(child=serializers.IntegerField(), help_text="edges in each state")
    as_they_should = serializers.IntegerField(help_text="edges that proved that they serve what they should")
    failed_updates = serializers.IntegerField(help_text="edges whose last update failed")
    hours = serializers.FloatField()
    lapsing = LapsingOut(many=True, help_text="whose session ends within that many hours, the first 1,000")
    lapsing_total = serializers.IntegerField()


class PreviewIn(serializers.Serializer[Any]):
    pipeline_version = serializers.IntegerField(required=False, allow_null=True)
    replaces = serializers.ListField(child=serializers.IntegerField(), allow_empty=False, max_length=BULK)


class DifferenceOut(serializers.Serializer[Any]):
    where = serializers.CharField(help_text="input or output")
    name = serializers.CharField()
    old = serializers.CharField(help_text="empty: it was not there")
    new = serializers.CharField(help_text="empty: it goes away")
    change = serializers.CharField(help_text="widening or breaking")
    text = serializers.CharField()


class PreviewOut(serializers.Serializer[Any]):
    """What a publish would change for one that it replaces."""

    publish = ReplacedOut()
    edges = serializers.SerializerMethodField(help_text="how many edges will move")
    change = serializers.CharField(source="comparison.change", help_text="same, widening or breaking")
    differences = DifferenceOut(source="comparison.differences", many=True)
    renamed = serializers.ListField(source="comparison.renamed", child=serializers.CharField())
    considerations = serializers.SerializerMethodField(help_text="logs, drift detection, requests")

    def get_edges(self, compared: Compared) -> int:
        return int(self.context["edges"].get(compared.publish.pk, 0))

    def get_considerations(self, compared: Compared) -> list[str]:
        return list(schema_changes.considerations(compared.comparison))
