"""The JSON of the operator API. Inputs hold field rules only; outputs read what the view fetched."""

from dataclasses import asdict
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from edges import queries
from edges.models import Edge, EdgeEvent, JoinToken
from edges.states import State
from publishing import commands
from publishing import queries as publishing
from publishing.api.serializers import CommandOut


class EdgeIn(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=128, help_text="Unique over the whole center.")
    tags = serializers.ListField(child=serializers.CharField(max_length=64), default=list, max_length=32)
    cpus = serializers.FloatField(default=1.0)
    memory = serializers.CharField(default="1Gi", max_length=16, help_text="A Kubernetes quantity.")


class ReasonIn(serializers.Serializer[Any]):
    reason = serializers.CharField(
        max_length=1000, default="", allow_blank=True, help_text="Why; kept in the edge's history."
    )


class EdgeFilters(serializers.Serializer[Any]):
    workspace = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)
    pipeline = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)
    publish = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)
    name = serializers.CharField(required=False, max_length=128)
    state = serializers.ChoiceField(State.choices, required=False)


class DesiredOut(serializers.Serializer[Any]):
    publish_id = serializers.IntegerField()
    pipeline = serializers.CharField()
    pipeline_version = serializers.UUIDField()
    pipeline_url = serializers.CharField()
    digest = serializers.CharField()


class StatusOut(serializers.Serializer[Any]):
    state = serializers.ChoiceField(State.choices)
    since = serializers.DateTimeField(help_text="When the state began; for a live edge its last contact.")
    lapses_at = serializers.DateTimeField(allow_null=True, help_text="When only a new bundle will help.")
    should_run = DesiredOut()
    serving_digest = serializers.CharField(help_text="What the edge proved that it serves; empty: nothing yet.")
    is_serving = serializers.BooleanField(help_text="Whether it serves what it should.")
    explain = serializers.CharField()


class EdgeOut(serializers.ModelSerializer[Edge]):
    tags = serializers.ListField(child=serializers.CharField())
    spiffe_id = serializers.CharField()
    should_run_publish = serializers.IntegerField(source="publish_id")
    workspace = serializers.IntegerField(source="publish.pipeline_version.pipeline.workspace_id")
    pipeline = serializers.IntegerField(source="publish.pipeline_version.pipeline_id")
    status = serializers.SerializerMethodField()
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = Edge
        fields = [
            "id",
            "name",
            "tags",
            "cpus",
            "memory",
            "spiffe_id",
            "should_run_publish",
            "workspace",
            "pipeline",
            "status",
            "joined_at",
            "last_contact",
            "banned_at",
            "removed_at",
            "created_by",
            "created_at",
        ]

    @extend_schema_field(StatusOut)
    def get_status(self, edge: Edge) -> Any:
        return StatusOut(queries.edge_state(edge, timezone.now())).data


class BundledEdgeOut(EdgeOut):
    """An edge with its bundle, which is a secret and is answered only once."""

    edge_bundle = serializers.SerializerMethodField()
    docker_run_variables = serializers.SerializerMethodField()
    commands = serializers.SerializerMethodField(help_text="how to start this edge's engine, ready to copy")

    class Meta(EdgeOut.Meta):
        fields = [*EdgeOut.Meta.fields, "edge_bundle", "docker_run_variables", "commands"]

    def get_edge_bundle(self, edge: Edge) -> str:
        return str(self.context["bundle"])

    def get_docker_run_variables(self, edge: Edge) -> dict[str, str]:
        return commands.docker_run_variables(publishing.view_of(edge.publish), self.context["bundle"])

    @extend_schema_field(CommandOut(many=True))
    def get_commands(self, edge: Edge) -> list[dict[str, str]]:
        ready = commands.for_publish(publishing.view_of(edge.publish, edge.name), self.context["bundle"])
        return [asdict(command) for command in ready]


class EventOut(serializers.ModelSerializer[EdgeEvent]):
    actor = serializers.UUIDField(source="actor.public_id", allow_null=True, default=None)
    detail = serializers.DictField()

    class Meta:
        model = EdgeEvent
        fields = ["id", "at", "kind", "actor", "detail"]


class JoinTokenOut(serializers.ModelSerializer[JoinToken]):
    class Meta:
        model = JoinToken
        fields = ["created_at", "expires_at", "used_at"]


class HealthOut(serializers.Serializer[Any]):
    reported_at = serializers.IntegerField(allow_null=True, help_text="epoch ms, by the center's clock")
    engine_version = serializers.CharField(allow_null=True)
    arch = serializers.CharField(allow_null=True)
    uptime = serializers.IntegerField(allow_null=True, help_text="seconds")
    clock_offset = serializers.IntegerField(allow_null=True, help_text="ms that the edge's clock was ahead")
    cpus = serializers.IntegerField(allow_null=True, help_text="for models")
    memory = serializers.IntegerField(allow_null=True, help_text="bytes that the engine may use")
    memory_used = serializers.IntegerField(allow_null=True, help_text="bytes that it uses")
    disk_free = serializers.FloatField(allow_null=True, help_text="share of the disk")
    log_backlog = serializers.IntegerField(allow_null=True, help_text="rows that wait at the site")
    shed_rows = serializers.IntegerField(allow_null=True, help_text="rows that it had to drop, each in a gap record")


class ExplanationOut(serializers.Serializer[Any]):
    status = StatusOut(source="state")
    next_step = serializers.CharField()
    join_token = JoinTokenOut(allow_null=True)
    last_refusal = EventOut(allow_null=True)
    events = EventOut(many=True)
    lines = serializers.ListField(child=serializers.CharField(), help_text="All of it in sentences, as on the page.")
    health = HealthOut()
    clock_offset = serializers.IntegerField(
        allow_null=True, help_text="ms that the edge's clock was ahead at its last check-in"
    )
    disk_free = serializers.FloatField(allow_null=True, help_text="share of the edge's disk that was free")
    report = serializers.DictField(help_text="What the edge said at its last check-in.")
