"""The JSON of the catalog. Inputs hold field rules only; outputs read what the view fetched."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from catalog.models import (
    Membership,
    Model,
    ModelConfig,
    ModelVersion,
    Pipeline,
    PipelineVersion,
    Role,
    User,
    Workspace,
)

ROLES = Role.choices


class UserOut(serializers.ModelSerializer[User]):
    id = serializers.UUIDField(source="public_id")

    class Meta:
        model = User
        fields = ["id", "email", "is_superuser"]


class LoginIn(serializers.Serializer[Any]):
    email = serializers.EmailField()
    password = serializers.CharField(trim_whitespace=False)


class LoginOut(serializers.Serializer[Any]):
    token = serializers.CharField(help_text="Send it as `Authorization: Token <token>`. Shown once.")
    user = UserOut()


class WorkspaceOut(serializers.ModelSerializer[Workspace]):
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = Workspace
        fields = ["id", "name", "archived", "created_by", "created_at"]


class WorkspaceIn(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=128)


class MembershipOut(serializers.ModelSerializer[Membership]):
    user = UserOut()

    class Meta:
        model = Membership
        fields = ["user", "role"]


class MembershipIn(serializers.Serializer[Any]):
    email = serializers.EmailField()
    role = serializers.ChoiceField(choices=ROLES)


class ModelOut(serializers.ModelSerializer[Model]):
    workspace = serializers.IntegerField(source="workspace_id")
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = Model
        fields = ["id", "name", "workspace", "created_by", "created_at", "updated_at"]


class Batching(serializers.Serializer[Any]):
    max_rows = serializers.IntegerField(min_value=2)
    max_wait_us = serializers.IntegerField(min_value=0, help_text="microseconds that the first caller waits for others")


class ModelConfigOut(serializers.ModelSerializer[ModelConfig]):
    tensor_fields = serializers.ListField(child=serializers.CharField(), allow_null=True)
    batching = Batching(allow_null=True)

    class Meta:
        model = ModelConfig
        fields = ["id", "tensor_fields", "batching", "created_at"]


class TensorOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    type = serializers.CharField(help_text="float32, int64, string, …")
    shape = serializers.ListField(child=serializers.IntegerField(allow_null=True), help_text="null: any size")


class ModelVersionOut(serializers.ModelSerializer[ModelVersion]):
    model = ModelOut()
    version = serializers.UUIDField(source="uuid")
    inputs = TensorOut(many=True)
    outputs = TensorOut(many=True)
    config = serializers.SerializerMethodField()
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = ModelVersion
        fields = [
            "id",
            "version",
            "model",
            "sha256",
            "size",
            "file_name",
            "framework",
            "arch",
            "accel",
            "inputs",
            "outputs",
            "config",
            "status",
            "error",
            "created_by",
            "created_at",
        ]

    @extend_schema_field(ModelConfigOut(allow_null=True))
    def get_config(self, version: ModelVersion) -> Any:
        """The newest config, from what the view prefetched."""
        configs = list(version.configs.all())
        return ModelConfigOut(configs[0]).data if configs else None


class UploadIn(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=63)
    file = serializers.FileField()
    framework = serializers.CharField(default="onnx")
    arch = serializers.CharField(default="x86")
    accel = serializers.CharField(default="none")
    tensor_fields = serializers.ListField(child=serializers.CharField(), required=False, allow_null=True, default=None)


class ModelConfigIn(serializers.Serializer[Any]):
    tensor_fields = serializers.ListField(child=serializers.CharField(), allow_null=True)
    batching = Batching(required=False, allow_null=True, default=None)


class PipelineOut(serializers.ModelSerializer[Pipeline]):
    workspace = serializers.IntegerField(source="workspace_id")
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = Pipeline
        fields = ["id", "name", "workspace", "created_by", "created_at", "updated_at"]


class PipelineIn(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=63)


class PipelineVersionOut(serializers.ModelSerializer[PipelineVersion]):
    pipeline = PipelineOut()
    version = serializers.UUIDField(source="uuid")
    definition = serializers.JSONField()
    deployment_config = serializers.JSONField()
    created_by = serializers.UUIDField(source="created_by.public_id")

    class Meta:
        model = PipelineVersion
        fields = ["id", "version", "pipeline", "definition", "deployment_config", "created_by", "created_at"]


class PipelineVersionIn(serializers.Serializer[Any]):
    steps = serializers.JSONField(
        help_text='[{"ModelInference": {"models": [{"name", "version", "sha"?}]}}, …]; all kinds: docs/pipelines.md'
    )
    deployment_config = serializers.DictField(required=False, default=dict)
