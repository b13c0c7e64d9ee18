"""Rollouts: a publish that takes over the edges of others in groups, and where each edge is on that way."""

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from edges.models import Edge
from publishing.models import Publish


class State(models.TextChoices):
    PENDING = "pending", _("Pending")
    RUNNING = "running", _("Running")
    PAUSED = "paused", _("Paused")
    ABORTING = "aborting", _("Aborting")
    ROLLING_BACK = "rolling back", _("Rolling back")
    SUCCEEDED = "succeeded", _("Succeeded")
    ABORTED = "aborted", _("Aborted")
    ROLLED_BACK = "rolled back", _("Rolled back")
    FAILED = "failed", _("Failed")


FORWARD = (State.PENDING, State.RUNNING, State.PAUSED)
BACKWARD = (State.ABORTING, State.ROLLING_BACK)
ENDED = (State.SUCCEEDED, State.ABORTED, State.ROLLED_BACK, State.FAILED)


class Bucket(models.TextChoices):
    """Where an edge is. The first seven are of the way forward, the last three of the way back."""

    WAITING = "waiting"
    HELD = "held_by_window"
    IN_FLIGHT = "in_flight"
    DONE = "done"
    FAILED = "failed"
    OFFLINE = "offline"
    GONE = "gone"
    REVERTING = "reverting"
    REVERTED = "reverted"
    STUCK = "stuck"


class Rollout(models.Model):
    """One publish on its way to the edges of others. Its members are those edges as they were when it was made."""

    publish = models.ForeignKey(Publish, on_delete=models.PROTECT, related_name="rollouts", help_text=_("the target"))
    replaced = models.ManyToManyField(Publish, related_name="rollouts_away")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    state = models.CharField(max_length=16, choices=State.choices, default=State.PENDING)
    reason = models.CharField(max_length=500, blank=True, help_text=_("why it is in this state, for people"))
    ends_as = models.CharField(max_length=16, blank=True, help_text=_("what it becomes when every edge is back"))

    max_in_flight = models.PositiveIntegerField(help_text=_("edges that may be on their way at once"))
    success_percent = models.PositiveSmallIntegerField(help_text=_("of a group's edges that answered"))
    error_percent = models.PositiveSmallIntegerField(help_text=_("of a group's edges that answered; more stops it"))
    healthy_seconds = models.PositiveIntegerField(help_text=_("how long an edge must prove that it serves the target"))
    answer_seconds = models.PositiveIntegerField(help_text=_("how long an edge in contact may take to prove it"))
    auto_rollback = models.BooleanField(help_text=_("too many errors: move everything back, instead of pausing"))
    window = models.JSONField(null=True, help_text=_('{"days": ["mon"], "from": "22:00", "to": "04:00", "zone"}'))
    deadline = models.DateTimeField(help_text=_("when it ends whatever its edges do"))

    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    # Who advances it now. A worker that died is not waited for longer than the lease.
    lease = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("rollout")
        verbose_name_plural = _("rollouts")
        ordering = ["-id"]
        indexes = [models.Index(fields=["state"], condition=~models.Q(state__in=ENDED), name="rollout_live")]

    def __str__(self) -> str:
        return f"rollout {self.pk} of publish {self.publish_id}"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be done."""
        return self.state in ENDED


class RolloutGroup(models.Model):
    """Some of the edges. A group opens when the one before it has passed."""

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="groups")
    order = models.PositiveSmallIntegerField()
    selector = models.JSONField(help_text='{"edges": [names]} | {"tags": [tags]} | {"percent": of the rest}')
    forgiven = models.PositiveIntegerField(default=0, help_text="failures before somebody resumed the rollout")
    opened_at = models.DateTimeField(null=True)
    passed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["rollout", "order"]
        constraints = [models.UniqueConstraint(fields=["rollout", "order"], name="rollout_group_once")]

    def __str__(self) -> str:
        return f"group {self.order} of {self.rollout}"


class RolloutMember(models.Model):
    """An edge of a rollout, and where it is on its way."""

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="members")
    group = models.ForeignKey(RolloutGroup, on_delete=models.CASCADE, related_name="members")
    edge = models.ForeignKey(Edge, on_delete=models.PROTECT, related_name="rollout_members")
    previous = models.ForeignKey(
        Publish, on_delete=models.PROTECT, related_name="+", help_text="what it is to go back to"
    )
    bucket = models.CharField(max_length=16, choices=Bucket.choices, default=Bucket.WAITING)
    since = models.DateTimeField(help_text="in this bucket")
    reason = models.CharField(max_length=500, blank=True)
    bytes_to_fetch = models.BigIntegerField(help_text="what the target has that the edge did not have when it began")
    # Whether this rollout points the edge at the target now. What is true must be undone by an abort.
    on_target = models.BooleanField(default=False)
    moved_at = models.DateTimeField(null=True, help_text="when it was last pointed at the target, or back")
    told_at = models.DateTimeField(
        null=True, help_text="when its first check-in after that was seen: it knows what to serve"
    )
    healthy_since = models.DateTimeField(
        null=True, help_text="when the first of the check-ins that prove the target was seen"
    )
    active = models.BooleanField(default=True, help_text="false as soon as the rollout has ended")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["rollout", "edge"], name="rollout_member_once"),
            # The database refuses two rollouts that pull at the same edge, also when they are made at once.
            models.UniqueConstraint(fields=["edge"], condition=models.Q(active=True), name="rollout_edge_in_one"),
        ]
        indexes = [models.Index(fields=["rollout", "bucket", "group"], name="rollout_member_bucket")]

    def __str__(self) -> str:
        return f"{self.edge} in {self.rollout}"


class RolloutEvent(models.Model):
    """What happened to a rollout, by whom and why. Rows are only added. No actor: the center itself."""

    class Kind(models.TextChoices):
        CREATED = "created", _("Created")
        STARTED = "started", _("Started")
        GROUP_OPENED = "group_opened", _("Group opened")
        GROUP_PASSED = "group_passed", _("Group passed")
        TOO_MANY_ERRORS = "too_many_errors", _("Too many errors")
        PAUSED = "paused", _("Paused")
        RESUMED = "resumed", _("Resumed")
        ABORTED = "aborted", _("Aborted")
        ROLLBACK = "rollback", _("Rollback")
        DEADLINE = "deadline", _("Deadline")
        ENDED = "ended", _("Ended")

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=32, choices=Kind.choices)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        verbose_name = _("rollout event")
        verbose_name_plural = _("rollout events")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.kind} of {self.rollout}"
