"""Assays: what a field of a pipeline's rows is compared with, when, and what came of it."""

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from catalog.models import Pipeline
from drift.measures import Aggregation, BinMode, Metric


class Baseline(models.Model):
    """Numbers from a file, to compare with. Those of a time range are not stored: their bins are."""

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="drift_baselines")
    name = models.CharField(max_length=255, blank=True, help_text="of the file")
    count = models.IntegerField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    numbers = models.BinaryField(help_text="float64, little endian, compressed with zlib")

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.count} numbers from {self.name or 'a file'}"


class Assay(models.Model):
    """Compares the numbers of one field, window after window, with a baseline."""

    class Status(models.TextChoices):
        ACTIVE = "active", _("Active")
        PAUSED = "paused", _("Paused")
        ENDED = "ended", _("Ended")

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="assays")
    name = models.CharField(max_length=128)
    model = models.CharField(max_length=128, help_text="a model's name: the last that had a part in the rows")
    field = models.CharField(max_length=512, help_text="for example out.variable[0]")
    edges = models.JSONField(default=list, blank=True, help_text="names or patterns; none means all")
    by_edge = models.BooleanField(default=False, help_text="a result for each edge instead of one for all")

    # What was asked for, and what it came to.
    baseline_start = models.BigIntegerField(null=True, help_text="epoch ms")
    baseline_end = models.BigIntegerField(null=True, help_text="epoch ms, not within")
    baseline_file = models.ForeignKey(Baseline, on_delete=models.RESTRICT, null=True, related_name="assays")
    baseline_stats = models.JSONField()
    bin_mode = models.CharField(max_length=16, choices=[(mode.value, mode.value) for mode in BinMode])
    bin_edges = models.JSONField()
    aggregation = models.CharField(max_length=16, choices=[(one.value, one.value) for one in Aggregation])
    baseline_parts = models.JSONField(help_text="below, the bins, above")

    metric = models.CharField(max_length=16, choices=[(metric.value, metric.value) for metric in Metric])
    warning = models.FloatField(null=True, help_text="a score above it is a warning")
    alert = models.FloatField(help_text="a score above it is an alert")
    min_records = models.IntegerField(help_text="a window with fewer numbers is not scored")

    width = models.IntegerField(help_text="of a window, seconds")
    interval = models.IntegerField(help_text="from window to window, seconds")
    wait = models.IntegerField(help_text="for rows that come late, after a window's end, seconds")
    next_start = models.BigIntegerField(help_text="of the next window, epoch ms of edge time")
    run_until = models.DateTimeField(null=True, blank=True, help_text="no window ends later")

    status = models.CharField(max_length=8, choices=Status.choices, default=Status.ACTIVE)
    note = models.TextField(blank=True, help_text="why it is paused")
    watched_since = models.DateTimeField(default=timezone.now, help_text="replacements since then pause it")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["pipeline", "name"], name="assay_name_once")]
        indexes = [models.Index(fields=["status", "next_start"], name="assay_due")]

    def __str__(self) -> str:
        return self.name


class Result(models.Model):
    """What one window came to. No edge's name: all edges of the assay together."""

    class Status(models.TextChoices):
        OK = "ok"
        WARNING = "warning"
        ALERT = "alert"
        TOO_FEW = "too_few"
        FAILED = "failed"

    assay = models.ForeignKey(Assay, on_delete=models.CASCADE, related_name="results")
    edge = models.CharField(max_length=128, blank=True)
    start = models.BigIntegerField(help_text="epoch ms of edge time")
    end = models.BigIntegerField(help_text="epoch ms, not within")
    status = models.CharField(max_length=8, choices=Status.choices)
    score = models.FloatField(null=True)
    stats = models.JSONField(default=dict)
    parts = models.JSONField(default=list, help_text="below, the bins, above")
    reason = models.TextField(blank=True, help_text="why it failed")
    computed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-start", "edge"]
        constraints = [models.UniqueConstraint(fields=["assay", "start", "edge"], name="assay_result_once")]

    def __str__(self) -> str:
        return f"{self.assay} from {self.start}: {self.status}"
