"""Edges, how they proved who they are, what they should run, and what happened to them."""

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from common.encryption import EncryptedTextField
from publishing.models import Publish


class Edge(models.Model):
    """A place where an engine runs.

    A removed edge stays as a row, because its logs and events refer to it; its name is free again.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=128)
    tags = models.JSONField(default=list, blank=True)
    cpus = models.FloatField(default=1.0)
    memory = models.CharField(max_length=16, default="1Gi", help_text=_("a Kubernetes quantity"))
    publish = models.ForeignKey(
        Publish, on_delete=models.PROTECT, related_name="edges", help_text=_("what it should run")
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    removed_at = models.DateTimeField(null=True, blank=True)
    banned_at = models.DateTimeField(null=True, blank=True)

    # Identity: the key that the edge joined with. The session lapses when there was no contact for 7 days.
    public_key = models.JSONField(null=True, blank=True)
    key_thumbprint = models.CharField(max_length=64, blank=True)
    joined_at = models.DateTimeField(null=True, blank=True)
    last_contact = models.DateTimeField(null=True, blank=True)
    session_lapses_at = models.DateTimeField(null=True, blank=True)

    # The token that made it, when people did not add it themselves.
    fleet_token = models.ForeignKey(
        "FleetToken", on_delete=models.PROTECT, null=True, blank=True, related_name="edges", db_index=False
    )
    joined_with = models.CharField(
        max_length=64, blank=True, editable=False, help_text=_("thumbprint of the key that used the fleet token")
    )

    # What it reported at its last check-in.
    serving_digest = models.CharField(max_length=71, blank=True)
    report = models.JSONField(default=dict, blank=True)

    class Meta:
        verbose_name = _("edge")
        verbose_name_plural = _("edges")
        ordering = ["name"]
        indexes = [
            # Lists are by name, a page at a time; removed edges are in the lists of those that wrote logs.
            models.Index(fields=["name"], name="edge_by_name"),
            # All that a list of a few publishes is counted and sorted by, so that no wide row is read for it.
            models.Index(
                fields=["publish", "name", "id"], condition=models.Q(removed_at=None), name="edge_of_publish_by_name"
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["name"], condition=models.Q(removed_at=None), name="edge_name_once"),
            # One key that joins many times, or at once, with a fleet token gets one edge.
            models.UniqueConstraint(
                fields=["fleet_token", "joined_with"],
                condition=models.Q(fleet_token__isnull=False),
                name="edge_of_fleet_key_once",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def spiffe_id(self) -> str:
        """`spiffe://<trust domain>/ns/deployments/edge/<id>`, the `sub` of the edge's tokens (JWT-SVID)."""
        return f"spiffe://{settings.TRUST_DOMAIN}/ns/deployments/edge/{self.pk}"


class Assignment(models.Model):
    """That an edge was told to run a publish. Rows are only added; they say whose logs it may write."""

    edge = models.ForeignKey(Edge, on_delete=models.CASCADE, related_name="assignments")
    publish = models.ForeignKey(Publish, on_delete=models.PROTECT, related_name="assignments")
    since = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.edge} runs {self.publish} since {self.since}"


class JoinToken(models.Model):
    """The right to join once. The token itself is shown once and never stored."""

    edge = models.ForeignKey(Edge, on_delete=models.CASCADE, related_name="join_tokens")
    digest = models.CharField(max_length=64, unique=True, help_text="HMAC-SHA256 of the token with a server key, hex")
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    key_thumbprint = models.CharField(
        max_length=64, blank=True, help_text="RFC 7638 thumbprint of the key that used it"
    )
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"join token {self.pk} of {self.edge}"


class FleetToken(models.Model):
    """The right to make edges by joining: one token for many devices alike. It is shown once and never stored."""

    publish = models.ForeignKey(Publish, on_delete=models.PROTECT, related_name="fleet_tokens")
    digest = models.CharField(
        max_length=64, unique=True, help_text=_("HMAC-SHA256 of the token with a server key, hex")
    )
    pattern = models.CharField(max_length=128, help_text=_("of the edges' names, for example shop-{n:04}"))
    tags = models.JSONField(default=list, blank=True)
    cpus = models.FloatField(default=1.0)
    memory = models.CharField(max_length=16, default="1Gi", help_text=_("a Kubernetes quantity"))
    max_edges = models.PositiveIntegerField(help_text=_("how many edges it may make"))
    made = models.PositiveIntegerField(default=0, help_text=_("how many edges it made"))
    next_number = models.PositiveIntegerField(default=1)
    expires_at = models.DateTimeField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")
    revoke_reason = models.CharField(max_length=1000, blank=True)

    class Meta:
        verbose_name = _("fleet token")
        verbose_name_plural = _("fleet tokens")
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=models.Q(made__lte=models.F("max_edges")), name="fleet_token_not_overused")
        ]

    def __str__(self) -> str:
        return f"fleet token {self.pk} for {self.pattern}"


class UsedAssertion(models.Model):
    """A `jti` that was presented. Kept until the assertion could no longer be valid."""

    digest = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of edge id and jti, hex")
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.digest


class SigningKey(models.Model):
    """A key that signs access tokens of edges. The highest generation signs; `signing` says how long others verify."""

    # Unique, so that of two processes that make a generation at once one loses and takes the other's key.
    generation = models.PositiveIntegerField(unique=True)
    kid = models.CharField(max_length=64, unique=True, help_text=_("RFC 7638 thumbprint of the public key"))
    private_key = EncryptedTextField(help_text=_("PEM, EC P-256"))
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = _("signing key")
        verbose_name_plural = _("signing keys")
        ordering = ["-generation"]

    def __str__(self) -> str:
        return self.kid


class EdgeEvent(models.Model):
    """What happened to an edge, by whom and why. Rows are only added. No actor: the edge or the center itself."""

    class Kind(models.TextChoices):
        ADDED = "added", _("Added")
        TOKEN_REISSUED = "token_reissued", _("Token Reissued")
        JOINED = "joined", _("Joined")
        JOIN_REFUSED = "join_refused", _("Join Refused")
        TOKEN_REFUSED = "token_refused", _("Token Refused")
        MOVED = "moved", _("Moved")
        SERVING = "serving", _("Serving")
        BANNED = "banned", _("Banned")
        UNBANNED = "unbanned", _("Unbanned")
        TAGGED = "tagged", _("Tagged")
        ROWS_LEFT_BEHIND = "rows_left_behind", _("Rows Left Behind")
        REMOVED = "removed", _("Removed")

    edge = models.ForeignKey(Edge, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=32, choices=Kind.choices)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        verbose_name = _("edge event")
        verbose_name_plural = _("edge events")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.kind} of {self.edge}"
