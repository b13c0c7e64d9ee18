"""Exports of logs for an actor: who may see a pipeline may export its rows and fetch the files."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID

from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from catalog import queries as catalog
from catalog.models import Role, User
from common.errors import Conflict, Forbidden, NotFound
from logs import export_files, queries, tasks
from logs.asked import Asked, folder_of, kept_for
from logs.models import LogExport, LogExportFile
from logs.query import Order

SMALLEST_FILE = 1024**2
LARGEST_FILE = 10 * 1024**3
DEFAULT_FILE = 100 * 1024**2
UNFINISHED = (LogExport.Status.PENDING, LogExport.Status.RUNNING)
MOST_UNFINISHED = 10  # of one pipeline: they are made one after another


def create_export(*, actor: User, pipeline_pk: int, format: str, asked: Asked, data_size_limit: int) -> LogExport:
    """Has rows written to files by a worker. Raises `NotFound`, `Conflict` when many wait already."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    query = queries.asked(asked.filters)
    span = queries.span(pipeline, query.start, query.end)
    # Refuses what cannot be read (a version that is not there) while somebody is there to be told.
    queries.read(actor, pipeline_pk, replace(query, limit=1, max_scanned_rows=0))
    with transaction.atomic():
        waiting = pipeline.log_exports.filter(status__in=UNFINISHED).count()
        if waiting >= MOST_UNFINISHED:
            raise Conflict(
                ngettext(
                    "%(count)s exports of this pipeline are not finished: wait for them, or cancel some.",
                    "%(count)s exports of this pipeline are not finished: wait for them, or cancel some.",
                    waiting,
                )
                % {"count": waiting}
            )
        export = LogExport.objects.create(
            pipeline=pipeline,
            created_by=actor,
            format=format,
            data_size_limit=data_size_limit,
            asked=asked.as_json(),
            time_min=span[0] if span else None,
            time_max=span[1] if span else queries.last_at(timezone.now()),
            enqueued_at=timezone.now(),
        )
        transaction.on_commit(partial(tasks.run_export.delay, str(export.pk)), robust=True)
    return export


def exports_for(actor: catalog.Actor, pipeline_pk: int) -> QuerySet[LogExport]:
    """The exports of a pipeline, the newest first. Raises `NotFound`."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    return _whole(pipeline.log_exports.all())


def export_for(actor: catalog.Actor, pk: UUID, at_least: Role = Role.VIEWER) -> LogExport:
    """An export and its files. Raises `NotFound`, `Forbidden`."""
    export = _whole(LogExport.objects.filter(pk=pk)).first()
    absent = _("There is no export %(id)s for you.") % {"id": pk}
    if export is None:
        raise NotFound(absent)
    catalog.require_role(actor, export.pipeline.workspace, at_least, absent)
    return export


def file_for(actor: catalog.Actor, pk: UUID, number: int) -> tuple[LogExport, LogExportFile, Path]:
    """A finished file and where it is. Raises `NotFound`, also when it expired."""
    export = export_for(actor, pk)
    file = export.files.filter(number=number).first()
    if file is None:
        raise NotFound(_("Export %(pk)s has no file %(number)s.") % {"pk": pk, "number": number})
    path = export_files.path_of(folder_of(export.pk), number, export.format)
    if not path.exists():
        raise NotFound(
            _("File %(number)s of export %(pk)s is no longer kept: export again.") % {"number": number, "pk": pk}
        )
    return export, file, path


def progress_of(export: LogExport) -> float:
    """The part, 0 to 1, of the time between its first and last row that it has passed."""
    if export.status == LogExport.Status.DONE:
        return 1.0
    if export.time_at is None or export.time_min is None or export.time_max is None:
        return 0.0
    whole, order = max(1, export.time_max - export.time_min), Order(export.asked["order"])
    passed = export.time_max - export.time_at if order is Order.NEWEST_FIRST else export.time_at - export.time_min
    return round(min(1.0, max(0.0, passed / whole)), 4)


def cancel_export(*, actor: User, export: LogExport) -> LogExport:
    """Stops it; finished files stay until they expire. Only who made it or may change the pipeline may.

    Raises `Forbidden`, and `Conflict` when it is over.
    """
    _require_own(actor, export)
    if not LogExport.objects.filter(pk=export.pk, status__in=UNFINISHED).update(
        status=LogExport.Status.CANCELLED, finished_at=timezone.now(), expires_at=timezone.now() + kept_for()
    ):
        raise Conflict(_("The export is over already."))
    export.refresh_from_db()
    return export


def delete_export(*, actor: User, export: LogExport) -> None:
    """Removes it and its files. Only who made it or may change the pipeline may. Raises `Forbidden`."""
    _require_own(actor, export)
    LogExport.objects.filter(pk=export.pk).delete()
    shutil.rmtree(folder_of(export.pk), ignore_errors=True)


def _require_own(actor: User, export: LogExport) -> None:
    role = catalog.role_in(actor, export.pipeline.workspace)
    if export.created_by_id != actor.pk and role not in (Role.COLLABORATOR, Role.OWNER):
        raise Forbidden(_("Only who made an export, a collaborator or an owner may stop or remove it."))


def _whole(found: QuerySet[LogExport]) -> QuerySet[LogExport]:
    files = Prefetch("files", LogExportFile.objects.order_by("number"))
    return found.select_related("pipeline__workspace", "created_by").prefetch_related(files)
