"""Inference logs: pages of rows as they arrived, and up to where each log store was acknowledged."""

import uuid

from django.db import models
from django.utils.translation import gettext_lazy as _

from catalog.models import PipelineVersion, User
from edges.models import Edge

# Edges' names have no colon, so that no edge can have a source's partition.
SOURCE_PREFIX = "center:"
SOURCE_LENGTH = 64


class LogSource(models.Model):
    """Where rows of a pipeline come from that no edge inferred: a batch job, an inference in the center."""

    pipeline = models.ForeignKey("catalog.Pipeline", on_delete=models.CASCADE, related_name="log_sources")
    name = models.CharField(max_length=SOURCE_LENGTH)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["pipeline", "name"], name="log_source_once")]

    def __str__(self) -> str:
        return f"{SOURCE_PREFIX}{self.name}"


class LogMark(models.Model):
    """Up to which row a log store is durable here. Outlives the pages, so a resend is never stored twice.

    A log store is an edge's or a source's.
    """

    edge = models.ForeignKey(Edge, on_delete=models.CASCADE, null=True, related_name="log_marks")
    source = models.ForeignKey(LogSource, on_delete=models.CASCADE, null=True, related_name="log_marks", db_index=False)
    epoch = models.UUIDField(help_text="the log store")
    acked = models.BigIntegerField(default=0, help_text="sequence of the last row that is durable here")
    rows = models.BigIntegerField(default=0, help_text="rows received")
    shed = models.BigIntegerField(default=0, help_text="rows that their sender had to drop")
    updated_at = models.DateTimeField(help_text="when rows or a gap last arrived")
    time_max = models.BigIntegerField(null=True, help_text="epoch ms, edge time: of the newest row received")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["edge", "epoch"], name="log_mark_once"),
            models.UniqueConstraint(
                fields=["source", "epoch"], condition=models.Q(source__isnull=False), name="log_mark_of_source_once"
            ),
            models.CheckConstraint(
                condition=models.Q(edge=None, source__isnull=False) | models.Q(edge__isnull=False, source=None),
                name="log_mark_of_one",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.edge or self.source} {self.epoch} up to {self.acked}"


class LogPage(models.Model):
    """Rows of one schema and one pipeline version, as one Arrow IPC stream."""

    pipeline_version = models.ForeignKey(PipelineVersion, on_delete=models.PROTECT, related_name="log_pages")
    # A copy of pipeline_version's, so that a pipeline's newest rows are one index range.
    pipeline = models.ForeignKey("catalog.Pipeline", on_delete=models.PROTECT, related_name="log_pages")
    edge = models.ForeignKey(Edge, on_delete=models.PROTECT, null=True, related_name="log_pages")
    source = models.ForeignKey(LogSource, on_delete=models.PROTECT, null=True, related_name="log_pages", db_index=False)
    partition = models.CharField(max_length=128, help_text="the edge's name when the page arrived, or the source's")
    epoch = models.UUIDField()
    first = models.BigIntegerField(help_text="sequence of the first row")
    rows = models.IntegerField()
    size = models.IntegerField(help_text="bytes of the body")
    time_min = models.BigIntegerField(help_text="epoch ms, edge time")
    time_max = models.BigIntegerField(help_text="epoch ms, edge time")
    schema_id = models.CharField(max_length=64, help_text="SHA-256 of the Arrow schema, hex")
    arrived_at = models.DateTimeField()
    # The last column, so that SQLite finds the others without walking through the body's pages.
    body = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["edge", "epoch", "first"], name="log_page_once"),
            # Only of sources, so that a page of an edge costs no more for it.
            models.UniqueConstraint(
                fields=["source", "epoch", "first"],
                condition=models.Q(source__isnull=False),
                name="log_page_of_source_once",
            ),
        ]
        indexes = [
            # With the other end of the range, so that pages outside a window are passed over in the index.
            models.Index(fields=["pipeline", "-time_max", "time_min"], name="log_page_newest"),
            models.Index(fields=["pipeline", "time_min", "time_max"], name="log_page_oldest"),
            models.Index(fields=["pipeline", "partition", "-time_max"], name="log_page_newest_of_edge"),
        ]

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.partition} from {self.first}"


class LogSegment(models.Model):
    """Rows of one schema of a pipeline in one file, sorted by time. What a file is worth, this row alone says.

    A segment that is let go stays until its file is removed, so that who reads it meanwhile can end.
    """

    pipeline = models.ForeignKey("catalog.Pipeline", on_delete=models.PROTECT, related_name="log_segments")
    path = models.CharField(max_length=255, unique=True, help_text="below LOGS_URL")
    form = models.CharField(max_length=8, help_text="parquet or arrow")
    schema_id = models.CharField(max_length=64, help_text="SHA-256 of the rows' Arrow schema, hex")
    rows = models.BigIntegerField()
    size = models.BigIntegerField(help_text="bytes of the file")
    weight = models.BigIntegerField(help_text="bytes of the decoded rows")
    time_min = models.BigIntegerField(help_text="epoch ms, edge time")
    time_max = models.BigIntegerField(help_text="epoch ms, edge time")
    partitions = models.JSONField(null=True, help_text="names of the edges; null when they are many")
    made_at = models.DateTimeField()
    removed_at = models.DateTimeField(null=True, help_text="its rows are elsewhere, or past their time")

    class Meta:
        indexes = [
            models.Index(fields=["pipeline", "-time_max", "time_min"], name="log_segment_newest"),
            models.Index(fields=["pipeline", "time_min", "time_max"], name="log_segment_oldest"),
            models.Index(fields=["removed_at"], name="log_segment_removed"),
        ]

    def __str__(self) -> str:
        return f"{self.rows} rows in {self.path}"


class LogCompaction(models.Model):
    """Which worker makes segments of a pipeline's pages."""

    pipeline = models.OneToOneField(
        "catalog.Pipeline", on_delete=models.CASCADE, primary_key=True, related_name="log_compaction"
    )
    # So that a reader who lists pages and segments some at a time notices that rows went from one to another.
    changes = models.BigIntegerField(default=0, help_text="counts the segments that were entered")
    lease = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"compaction of {self.pipeline_id}"


class LogRetention(models.Model):
    """How long logs are kept: of a pipeline, or of all pipelines of a workspace together. Null is no limit."""

    workspace = models.OneToOneField(
        "catalog.Workspace", on_delete=models.CASCADE, null=True, blank=True, related_name="log_retention"
    )
    pipeline = models.OneToOneField(
        "catalog.Pipeline", on_delete=models.CASCADE, null=True, blank=True, related_name="log_retention"
    )
    days = models.PositiveIntegerField(null=True, blank=True, help_text=_("rows that are older, by edge time, may go"))
    rows = models.PositiveBigIntegerField(null=True, blank=True, help_text=_("beyond so many rows the oldest go"))
    size = models.PositiveBigIntegerField(
        null=True, blank=True, help_text=_("beyond so many stored bytes the oldest go")
    )
    sums_days = models.PositiveIntegerField(
        _("days of sums"),
        null=True,
        blank=True,
        help_text=_(
            "charts keep counting rows that are gone for so long, by edge time; empty: sums go with their rows"
        ),
    )

    class Meta:
        verbose_name = _("retention of logs")
        verbose_name_plural = _("retention of logs")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(workspace=None, pipeline__isnull=False)
                | models.Q(workspace__isnull=False, pipeline=None),
                name="log_retention_of_one",
            )
        ]

    def __str__(self) -> str:
        return f"retention of {self.pipeline or self.workspace}"


class LogGap(models.Model):
    """Rows that an edge or a source had to drop before they were sent, told by itself."""

    edge = models.ForeignKey(Edge, on_delete=models.CASCADE, null=True, related_name="log_gaps")
    source = models.ForeignKey(LogSource, on_delete=models.CASCADE, null=True, related_name="log_gaps", db_index=False)
    epoch = models.UUIDField()
    first = models.BigIntegerField()
    last = models.BigIntegerField()
    count = models.BigIntegerField()
    time_min = models.BigIntegerField(null=True, help_text="epoch ms, edge time")
    time_max = models.BigIntegerField(null=True, help_text="epoch ms, edge time")
    reason = models.CharField(max_length=64)
    arrived_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["edge", "epoch", "first"], name="log_gap_once"),
            models.UniqueConstraint(
                fields=["source", "epoch", "first"],
                condition=models.Q(source__isnull=False),
                name="log_gap_of_source_once",
            ),
            models.CheckConstraint(
                condition=models.Q(edge=None, source__isnull=False) | models.Q(edge__isnull=False, source=None),
                name="log_gap_of_one",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.count} rows of {self.edge or self.source} dropped: {self.reason}"


class LogSeries(models.Model):
    """Whose rows a rollup counts: those of a pipeline version, an edge and a model. No edge's name: of all edges."""

    pipeline = models.ForeignKey("catalog.Pipeline", on_delete=models.CASCADE, related_name="log_series")
    pipeline_version = models.ForeignKey(PipelineVersion, on_delete=models.CASCADE, related_name="log_series")
    partition = models.CharField(max_length=128, blank=True, help_text="the edge's name in its rows")
    model = models.CharField(max_length=128, blank=True, help_text="name; empty when the pipeline version has no such")
    model_sha = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["pipeline_version", "partition", "model", "model_sha"], name="log_series_once"
            )
        ]
        indexes = [models.Index(fields=["pipeline", "partition"], name="log_series_of_pipeline")]

    def __str__(self) -> str:
        return f"{self.model} of {self.pipeline_version} at {self.partition or 'all edges'}"


class LogRollup(models.Model):
    """What the rows of a series within a minute, an hour or a day of edge time amount to (`logs.summaries`)."""

    series = models.ForeignKey(LogSeries, on_delete=models.CASCADE, related_name="rollups", db_index=False)
    grain = models.IntegerField(help_text="how long it is, in seconds: 60, 3600 or 86400")
    start = models.BigIntegerField(help_text="epoch ms, edge time")
    rows = models.BigIntegerField()
    anomalous = models.BigIntegerField(help_text="rows with a failed validation")
    anomalies = models.BigIntegerField(help_text="failed validations")
    failures = models.JSONField(default=dict, help_text="rows that failed it, by validation")
    latency = models.BinaryField(help_text="sketch of milliseconds")
    # The last column: most readers leave it out.
    fields = models.BinaryField(help_text="a sketch of each numeric field")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["series", "grain", "start"], name="log_rollup_once")]
        indexes = [
            models.Index(fields=["grain", "start"], name="log_rollup_old"),
            # Of thousands of edges those with failed validations are found without the others.
            models.Index(fields=["grain", "start"], condition=models.Q(anomalous__gt=0), name="log_rollup_failed"),
        ]

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.series_id} in {self.grain} s from {self.start}"


class LogRolled(models.Model):
    """That the rows of a page are in the rollups. A table of its own, so that storing a page writes no more for it."""

    page = models.BigIntegerField(primary_key=True, help_text="id of a page, which may have become a segment since")

    def __str__(self) -> str:
        return f"page {self.page} is rolled up"


class LogRollupState(models.Model):
    """Counts the changes of a pipeline's rollups, so that readers notice one and its writers take turns."""

    pipeline = models.OneToOneField(
        "catalog.Pipeline", on_delete=models.CASCADE, primary_key=True, related_name="log_rollup_state"
    )
    changes = models.BigIntegerField(default=0)
    lease = models.UUIDField(null=True, help_text="the worker that rolls up now")
    leased_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.changes} changes of the rollups of {self.pipeline_id}"


class LogExport(models.Model):
    """Rows of a pipeline on their way to files. Listed files are whole; `cursor` is where the next ones begin."""

    class Format(models.TextChoices):
        ARROW = "arrow"
        PARQUET = "parquet"
        JSON = "json"

    class Status(models.TextChoices):
        PENDING = "Pending", _("Pending")
        RUNNING = "Running", _("Running")
        DONE = "Done", _("Done")
        CANCELLED = "Cancelled", _("Cancelled")
        ERROR = "Error", _("Error")
        EXPIRED = "Expired", _("Expired")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pipeline = models.ForeignKey("catalog.Pipeline", on_delete=models.CASCADE, related_name="log_exports")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    format = models.CharField(max_length=8, choices=Format.choices)
    data_size_limit = models.BigIntegerField(help_text="bytes of one file")
    # What was asked, as the parameters of an address: filters, order, limit, dataset.
    asked = models.JSONField(default=dict)
    time_min = models.BigIntegerField(null=True, help_text="epoch ms of the first and last row that it may have")
    time_max = models.BigIntegerField(null=True)

    status = models.CharField(max_length=16, choices=Status.choices, default=Status.PENDING)
    error = models.TextField(blank=True)
    cursor = models.CharField(max_length=200, blank=True, help_text="after the last row of the listed files")
    rows = models.BigIntegerField(default=0, help_text="written so far")
    time_at = models.BigIntegerField(null=True, help_text="epoch ms: how far it is")
    attempt = models.UUIDField(null=True, help_text="which run holds it")
    enqueued_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True, help_text="when its files are removed")

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["status", "heartbeat_at"], name="log_export_status")]

    def __str__(self) -> str:
        return f"{self.status} export {self.pk}"


class LogExportFile(models.Model):
    """A finished file of an export: rows of one schema."""

    export = models.ForeignKey(LogExport, on_delete=models.CASCADE, related_name="files")
    number = models.PositiveIntegerField()
    rows = models.BigIntegerField()
    size = models.BigIntegerField(help_text="bytes")

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["export", "number"], name="log_export_file_once")]

    def __str__(self) -> str:
        return f"file {self.number} of {self.export_id}"


class ObservabilityChange(models.Model):
    """An administrator switched observability. The newest row is in force; without one the environment is."""

    enabled = models.BooleanField(null=True, blank=True, help_text=_("null: from now on as the environment says"))
    actor = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        verbose_name = _("switch of observability")
        verbose_name_plural = _("observability")

    def __str__(self) -> str:
        return {True: "on", False: "off", None: "as the environment says"}[self.enabled]
