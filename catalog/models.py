"""Who works with what: users, workspaces and their members, models and pipelines with their immutable versions."""

import uuid
from typing import Any, ClassVar

from django.contrib.auth.base_user import BaseUserManager
from django.contrib.auth.models import AbstractUser
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

name_validator = RegexValidator(
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z",
    _("Use lower-case letters, digits and hyphens, beginning and ending with a letter or digit."),
)


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """A user who logs in with this e-mail address."""
        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """A user who may do everything, in the admin console too."""
        return self.create_user(email, password, **{"is_staff": True, "is_superuser": True, **fields})


class User(AbstractUser):
    """A person or a robot. `public_id` is how interfaces name it."""

    username = None  # type: ignore[assignment]
    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    email = models.EmailField(unique=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = UserManager()  # type: ignore[misc,assignment]

    class Meta(AbstractUser.Meta):
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_any_case")]

    def __str__(self) -> str:
        return self.email


class Role(models.TextChoices):
    VIEWER = "viewer", _("Viewer")
    COLLABORATOR = "collaborator", _("Collaborator")
    OWNER = "owner", _("Owner")

    def covers(self, needed: "Role") -> bool:
        """Whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Workspace(models.Model):
    name = models.CharField(max_length=128, unique=True)
    archived = models.BooleanField(default=False)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("workspace")
        verbose_name_plural = _("workspaces")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workspace", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.workspace}"


class Model(models.Model):
    """A named family of model versions."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="models")
    name = models.CharField(max_length=63, validators=[name_validator])
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["workspace", "name"], name="model_name_once")]

    def __str__(self) -> str:
        return self.name


class ModelVersion(models.Model):
    """One upload. Its file never changes: it is found by its digest."""

    class Status(models.TextChoices):
        READY = "ready"
        ERROR = "error"

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField(help_text="bytes")
    file_name = models.CharField(max_length=255)
    framework = models.CharField(max_length=32, default="onnx")
    arch = models.CharField(max_length=16, default="x86")
    accel = models.CharField(max_length=16, default="none")
    inputs = models.JSONField(default=list, help_text='[{"name", "type", "shape": [null | int, …]}]')
    outputs = models.JSONField(default=list, help_text="as inputs")
    status = models.CharField(max_length=16, choices=Status.choices)
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["model", "-id"], name="model_version_newest")]

    def __str__(self) -> str:
        return f"{self.model} {self.uuid}"


class ModelConfig(models.Model):
    """How a version is fed. Rows are only added; the newest counts."""

    model_version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="configs")
    tensor_fields = models.JSONField(null=True, help_text="dataset columns in the order of the model's inputs")
    batching = models.JSONField(null=True, blank=True, help_text='{"max_rows", "max_wait_us"}: callers run together')
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"config {self.pk} of {self.model_version}"


class Pipeline(models.Model):
    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="pipelines")
    name = models.CharField(max_length=63, validators=[name_validator])
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["workspace", "name"], name="pipeline_name_once")]

    def __str__(self) -> str:
        return self.name


class PipelineVersion(models.Model):
    """What a pipeline was at one moment. Never changed after it is made."""

    pipeline = models.ForeignKey(Pipeline, on_delete=models.PROTECT, related_name="versions")
    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    definition = models.JSONField(help_text='{"id", "steps": […]}')
    # The configs in force when the version was made: a later config must not change what a version means.
    model_configs = models.ManyToManyField(ModelConfig, related_name="+")
    deployment_config = models.JSONField(default=dict, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        # Without it PostgreSQL looks for a pipeline's newest among all versions of the center, from the newest on.
        indexes = [models.Index(fields=["pipeline", "-id"], name="pipeline_version_newest")]

    def __str__(self) -> str:
        return f"{self.pipeline} {self.uuid}"
