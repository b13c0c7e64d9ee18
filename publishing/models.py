"""Where publishes go, and what was published."""

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from catalog.models import PipelineVersion, User
from common.encryption import EncryptedTextField

host_validator = RegexValidator(
    r"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?\Z",
    _("Give host[:port], without https:// and without a path, for example ghcr.io or reg.big.corp:3579."),
)
# The distribution-spec's <name>; what is put behind it (/pipelines/<name>) must fit in 255 characters too.
repository_validator = RegexValidator(
    r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\Z",
    _("Give a path in lower case without a slash at either end, for example account123/ml."),
)
proxy_validator = RegexValidator(
    r"^https?://[^\s/@]+/?\Z", _("Give http://host:port, without a login: the proxy of HTTPS_PROXY may have one.")
)


class RegistrySettings(models.Model):
    """The OCI registry that publishes go to.

    One row (pk 1), edited in the admin console; the environment fills it at first.
    """

    class Source(models.TextChoices):
        """Whom the row follows: until an administrator edits it, what the environment or the built-in registry says."""

        ADMINISTRATOR = "administrator"
        ENVIRONMENT = "environment"
        BUILT_IN = "built-in"

    source = models.CharField(max_length=16, choices=Source.choices, default=Source.ADMINISTRATOR, editable=False)
    enabled = models.BooleanField(default=True, help_text=_("off: nothing can be published"))
    registry = models.CharField(
        max_length=255,
        validators=[host_validator],
        help_text=_("host[:port], for example ghcr.io or us-west1-docker.pkg.dev"),
    )
    repository = models.CharField(
        max_length=180,
        validators=[repository_validator],
        help_text=_("path under which everything is kept, for example account123/ml"),
    )
    email = models.EmailField(blank=True)
    username = models.CharField(max_length=255, blank=True)
    password = EncryptedTextField(blank=True, default="")
    plain_http = models.BooleanField(default=False, help_text=_("talk HTTP, not HTTPS, to this registry"))
    ca_certificate = models.TextField(blank=True, help_text=_("PEM certificate of a private CA"))
    proxy = models.CharField(
        max_length=512,
        blank=True,
        validators=[proxy_validator],
        help_text=_("http://proxy:3128, used for this registry instead of HTTPS_PROXY; without a login in it"),
    )
    password_saved_at = models.DateTimeField(null=True, editable=False)
    plan = models.JSONField(default=dict, editable=False, help_text=_("how to push there, as the last test found out"))
    checks = models.JSONField(default=list, editable=False, help_text=_("what the last test found"))
    checked_at = models.DateTimeField(null=True, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = verbose_name_plural = _("registry settings")

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"


class SigningKey(models.Model):
    """An ECDSA P-256 key that publishes are signed with while it is active; at most one is.

    A retired key stays, so that its public half can still be had for what it signed.
    """

    name = models.SlugField(max_length=64, unique=True)
    private_key = EncryptedTextField(editable=False)
    public_key = models.TextField(editable=False, help_text=_("PEM, for cosign verify --key"))
    fingerprint = models.CharField(max_length=64, unique=True, editable=False, help_text=_("SHA-256 of the public key"))
    active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("signing key")
        verbose_name_plural = _("signing keys")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["active"], condition=models.Q(active=True), name="one_active_signing_key")
        ]

    def __str__(self) -> str:
        return self.name


class EngineImagesChange(models.Model):
    """An administrator said which engine images publishes take. The newest row is in force, else the environment."""

    images = models.TextField(  # noqa: DJ001 - none given and empty are two things here
        null=True, blank=True, help_text=_("as ENGINE_IMAGE; empty: none, null: from now on as the environment says")
    )
    actor = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        verbose_name = _("engine images")
        verbose_name_plural = _("engine images")

    def __str__(self) -> str:
        if self.images is None:
            return "as the environment says"
        return self.images or "none"


class GoldenRequest(models.Model):
    """A request with its answer that is shipped with a version; apart, since it may be large and is rarely read."""

    pipeline_version = models.ForeignKey(PipelineVersion, on_delete=models.PROTECT, related_name="golden_requests")
    digest = models.CharField(max_length=71)
    records = models.PositiveIntegerField()
    content = models.TextField(help_text="golden.json as it is shipped")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pipeline_version", "digest"], name="one_golden_of_a_digest")]

    def __str__(self) -> str:
        return f"golden request {self.digest[:19]} of {self.pipeline_version}"


class Publish(models.Model):
    """One version on its way to, or in, the registry. A published one never changes."""

    class Status(models.TextChoices):
        PENDING = "PendingPublish"
        PUBLISHING = "Publishing"
        PUBLISHED = "Published"
        ERROR = "Error"

    class Packaging(models.TextChoices):
        """What an edge is started from: the engine's image that pulls the pipeline, or one image that holds both."""

        ARTIFACT = "artifact"
        IMAGE = "image"

    packaging = models.CharField(max_length=8, choices=Packaging.choices, default=Packaging.ARTIFACT)
    pipeline_version = models.ForeignKey(PipelineVersion, on_delete=models.PROTECT, related_name="publishes")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.PENDING)
    error = models.TextField(blank=True)
    engine_config = models.JSONField(default=dict, blank=True)
    golden = models.ForeignKey(GoldenRequest, null=True, blank=True, on_delete=models.PROTECT, related_name="publishes")
    replaces = models.ManyToManyField("self", symmetrical=False, related_name="replaced_by", blank=True)

    # What people and engines are told, without scheme: `<registry>/<repository>/pipelines/<name>:<uuid>`.
    pipeline_url = models.CharField(max_length=512, blank=True)
    pipeline_digest = models.CharField(max_length=71, blank=True)
    chart_url = models.CharField(max_length=512, blank=True)
    chart_version = models.CharField(max_length=64, blank=True)
    chart_digest = models.CharField(max_length=71, blank=True)
    engine_url = models.CharField(max_length=512, blank=True)
    engine_digest = models.CharField(max_length=71, blank=True)
    image_url = models.CharField(max_length=512, blank=True, help_text=_("engine and pipeline in one, where asked for"))
    image_digest = models.CharField(max_length=71, blank=True)
    image_layer = models.JSONField(
        default=dict, blank=True, help_text=_("layout, digest and size of the layer with the models, not hashed again")
    )
    signing_key = models.ForeignKey(
        SigningKey, null=True, blank=True, on_delete=models.PROTECT, related_name="publishes"
    )
    plain_http = models.BooleanField(default=False, help_text=_("engines pull from its registry without TLS"))
    notes = models.JSONField(
        default=list,
        blank=True,
        help_text=_("what a person should know, for example that no engine image is configured"),
    )

    # Progress, written while the job runs. A heartbeat that stopped means that its worker is gone.
    step = models.CharField(max_length=64, blank=True)
    bytes_done = models.BigIntegerField(default=0)
    bytes_total = models.BigIntegerField(default=0)
    attempt = models.UUIDField(
        null=True, help_text=_("the run that holds this publish; another run's writes are refused")
    )
    heartbeat_at = models.DateTimeField(null=True)
    enqueued_at = models.DateTimeField(null=True)
    uploads = models.TextField(
        blank=True,
        help_text=_("upload sessions that the registry keeps open, encrypted: a later run goes on with them"),
    )

    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    published_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("publish")
        verbose_name_plural = _("publishes")
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["status"],
                condition=models.Q(status__in=["PendingPublish", "Publishing"]),
                name="publish_unfinished",
            )
        ]

    def __str__(self) -> str:
        return f"publish {self.pk} of {self.pipeline_version}"

    @property
    def is_finished(self) -> bool:
        """Whether it arrived or failed."""
        return self.status in {self.Status.PUBLISHED, self.Status.ERROR}
