"""The JSON of publishing. Inputs hold field rules only; outputs read what the view fetched."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from publishing import commands, queries
from publishing.models import GoldenRequest, Publish, RegistrySettings, SigningKey


class PublishIn(serializers.Serializer[Any]):
    pipeline_version = serializers.IntegerField(
        required=False, allow_null=True, help_text="id of the version; left out, the newest"
    )
    engine_config = serializers.DictField(
        required=False,
        allow_null=True,
        help_text='`{"engine": {"resources": {"limits": {"cpu": 1.0, "memory": "512Mi"}}}}`; what is left out is the '
        "version's deployment configuration or a default",
    )
    replaces = serializers.ListField(
        child=serializers.IntegerField(),
        required=False,
        max_length=1000,
        help_text="ids of published publishes whose edges move to this one when it has arrived",
    )
    packaging = serializers.ChoiceField(
        Publish.Packaging.choices,
        default=Publish.Packaging.ARTIFACT,
        help_text="image: also one image that holds engine and pipeline, which runs without any other variable",
    )

    allow_breaking = serializers.BooleanField(
        default=False, help_text="replace although callers or readers of today break"
    )
    golden = serializers.JSONField(
        required=False,
        allow_null=True,
        help_text='`{"input": [record, …], "output": {"column": [a value a record]}, "rtol", "atol"}`: engines try it '
        "before they serve the publish, and refuse the publish when the answer is another",
    )


class ReplacedOut(serializers.ModelSerializer[Publish]):
    pipeline_name = serializers.CharField(source="pipeline_version.pipeline.name")
    pipeline_version_name = serializers.UUIDField(source="pipeline_version.uuid")

    class Meta:
        model = Publish
        fields = ["id", "pipeline_name", "pipeline_version_name"]


class GoldenOut(serializers.ModelSerializer[GoldenRequest]):
    class Meta:
        model = GoldenRequest
        fields = ["digest", "records"]


class ProgressOut(serializers.Serializer[Publish]):
    step = serializers.CharField(help_text="what is being done, for people; empty when nothing is")
    bytes_done = serializers.IntegerField()
    bytes_total = serializers.IntegerField(help_text="0 until it is known")


class CommandOut(serializers.Serializer[Any]):
    title = serializers.CharField()
    text = serializers.CharField()
    language = serializers.CharField(help_text="`sh` for what is typed, `yaml` for a file that the title names")


class HelmOut(serializers.Serializer[Any]):
    reference = serializers.CharField(help_text="`<chart>@sha256:…`")
    chart = serializers.CharField(help_text="without `oci://`")
    version = serializers.CharField()
    values = serializers.DictField(child=serializers.CharField())


class PublishOut(serializers.ModelSerializer[Publish]):
    pipeline = serializers.IntegerField(source="pipeline_version.pipeline_id")
    pipeline_name = serializers.CharField(source="pipeline_version.pipeline.name")
    pipeline_version = serializers.IntegerField(source="pipeline_version_id")
    pipeline_version_name = serializers.UUIDField(source="pipeline_version.uuid")
    workspace = serializers.IntegerField(source="pipeline_version.pipeline.workspace_id")
    progress = ProgressOut(source="*")
    engine_config = serializers.JSONField()
    notes = serializers.ListField(child=serializers.CharField())
    golden = GoldenOut(allow_null=True, help_text="the golden request that it ships; its text is at `golden`")
    replaces = ReplacedOut(many=True)
    helm = serializers.SerializerMethodField()
    docker_run_variables = serializers.SerializerMethodField()
    commands = serializers.SerializerMethodField(help_text="ready to copy; empty until Published")
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = Publish
        fields = [
            "id",
            "pipeline",
            "pipeline_name",
            "pipeline_version",
            "pipeline_version_name",
            "workspace",
            "status",
            "progress",
            "error",
            "notes",
            "pipeline_url",
            "pipeline_digest",
            "chart_url",
            "chart_version",
            "chart_digest",
            "engine_url",
            "engine_digest",
            "packaging",
            "image_url",
            "image_digest",
            "signing_key",
            "engine_config",
            "golden",
            "helm",
            "docker_run_variables",
            "commands",
            "replaces",
            "created_by",
            "created_at",
            "updated_at",
            "published_at",
        ]

    @extend_schema_field(HelmOut(allow_null=True))
    def get_helm(self, publish: Publish) -> dict[str, Any] | None:
        helm = commands.helm_of(queries.view_of(publish))
        return asdict(helm) if helm else None

    @extend_schema_field(serializers.DictField(child=serializers.CharField()))
    def get_docker_run_variables(self, publish: Publish) -> dict[str, str]:
        return commands.docker_run_variables(queries.view_of(publish))

    @extend_schema_field(CommandOut(many=True))
    def get_commands(self, publish: Publish) -> list[dict[str, str]]:
        if publish.status != Publish.Status.PUBLISHED:
            return []
        return [asdict(command) for command in commands.for_publish(queries.view_of(publish))]


class CheckOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    state = serializers.CharField(help_text="ok, warn or fail")
    said = serializers.CharField()
    remedy = serializers.CharField(help_text="the one thing to do; empty where there is none")


class ReportOut(serializers.Serializer[Any]):
    state = serializers.CharField(help_text="the worst of all checks: ok, warn or fail")
    checks = CheckOut(many=True)


class RegistrySettingsOut(serializers.ModelSerializer[RegistrySettings]):
    has_password = serializers.BooleanField(help_text="the password itself is never shown")
    warning = serializers.SerializerMethodField(help_text="that a short-lived password is too old; empty else")
    checks = CheckOut(many=True, help_text="what the last test found")

    def get_warning(self, row: RegistrySettings) -> str:
        return queries.password_warning(row)

    class Meta:
        model = RegistrySettings
        fields = [
            "enabled",
            "registry",
            "repository",
            "email",
            "username",
            "has_password",
            "plain_http",
            "ca_certificate",
            "proxy",
            "password_saved_at",
            "warning",
            "checks",
            "checked_at",
            "source",
            "updated_at",
        ]


class RegistrySettingsIn(serializers.Serializer[Any]):
    enabled = serializers.BooleanField(default=True)
    registry = serializers.CharField(max_length=255, help_text="`host[:port]`")
    repository = serializers.CharField(max_length=180)
    email = serializers.EmailField(allow_blank=True, default="")
    username = serializers.CharField(max_length=255, allow_blank=True, default="")
    password = serializers.CharField(
        max_length=64 * 1024,  # a Google key file is 2 KiB; ECR's passwords are as long
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        write_only=True,
        help_text="left out: the stored one stays; empty: it is forgotten",
    )
    plain_http = serializers.BooleanField(default=False)
    ca_certificate = serializers.CharField(max_length=256 * 1024, allow_blank=True, default="", trim_whitespace=False)
    proxy = serializers.CharField(max_length=512, allow_blank=True, default="")


class SigningKeyOut(serializers.ModelSerializer[SigningKey]):
    class Meta:
        model = SigningKey
        fields = ["id", "name", "public_key", "fingerprint", "active", "created_at"]


class SigningKeyIn(serializers.Serializer[Any]):
    name = serializers.SlugField(max_length=64)
    private_key = serializers.CharField(
        max_length=16 * 1024,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        write_only=True,
        help_text="ECDSA P-256 in PEM; left out: one is generated",
    )
    password = serializers.CharField(
        max_length=1024, allow_blank=True, default="", trim_whitespace=False, write_only=True
    )


class SigningKeyUse(serializers.Serializer[Any]):
    active = serializers.BooleanField(help_text="true: publishes are signed with it from now on, and with no other")
