"""How long logs are kept: whole segments and pages go, oldest first.

Marks and gaps stay, so that what an edge sends again is not stored again. Rollups go with their rows, or later when
that is wanted.
"""

import dataclasses
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F, Q, QuerySet, Sum
from django.utils.translation import gettext as _

from catalog import queries as catalog
from catalog.models import Pipeline, Role, Workspace
from common.errors import Invalid
from logs import rollups
from logs.models import LogPage, LogRetention, LogSegment

logger = logging.getLogger(__name__)

AT_ONCE = 500


@dataclass(frozen=True)
class Limits:
    """None is no limit. `size` is in stored bytes.

    Charts count rows that are gone for `sums_days` of edge time; when that is None their sums go with them.
    """

    days: int | None = None
    rows: int | None = None
    size: int | None = None
    sums_days: int | None = None


def limits_of(owner: Pipeline | Workspace) -> Limits:
    """What is kept of a pipeline, or of all pipelines of a workspace together; for who may see the owner."""
    found = _found(owner).first()
    return Limits(found.days, found.rows, found.size, found.sums_days) if found else Limits()


def set_limits(actor: catalog.Actor, owner: Pipeline | Workspace, limits: Limits) -> Limits:
    """Sets them; without any, all is kept. Raises `Forbidden` for who does not own the workspace, `Invalid`."""
    workspace = owner if isinstance(owner, Workspace) else owner.workspace
    catalog.require_role(actor, workspace, Role.OWNER, _("There are no logs for you."))
    given: dict[str, int | None] = dataclasses.asdict(limits)
    for name, value in given.items():
        if value is not None and value < 1:
            raise Invalid(_("%(name)s must be at least 1, or null for no limit.") % {"name": name})
    if isinstance(owner, Pipeline):
        LogRetention.objects.update_or_create(pipeline=owner, defaults=given)
    else:
        LogRetention.objects.update_or_create(workspace=owner, defaults=given)
    return limits


def expire(now: datetime) -> int:
    """Lets go of what is beyond the limits; answers how many rows. A limit that fails holds up no other."""
    gone = 0
    for kept in LogRetention.objects.select_related("pipeline", "workspace").order_by("pk"):
        try:
            gone += _expire(kept, now)
        except Exception:
            logger.exception("the %s could not be applied; tried again in a while", kept)
    return gone


def expire_sums(now: datetime) -> int:
    """Drops the rollups of rows that went, where there is a limit; answers how many. A failure holds up no other.

    A pipeline's own setting of `sums_days` comes before its workspace's.
    """
    kept_days: dict[int, int | None] = {}
    for kept in LogRetention.objects.order_by(F("pipeline").asc(nulls_first=True)):
        for pk in Pipeline.objects.filter(_pipelines(kept)).values_list("pk", flat=True):
            kept_days[pk] = kept.sums_days or kept_days.get(pk)
    dropped = 0
    for pk, days in kept_days.items():
        try:
            dropped += rollups.drop_without_rows(pk, None if days is None else now - timedelta(days=days))
        except Exception:
            logger.exception("the sums of pipeline %d could not be dropped; tried again in a while", pk)
    return dropped


def _found(owner: Pipeline | Workspace) -> QuerySet[LogRetention]:
    key = "pipeline" if isinstance(owner, Pipeline) else "workspace"
    return LogRetention.objects.filter(**{key: owner})


def _pipelines(kept: LogRetention) -> Q:
    return Q(pk=kept.pipeline_id) if kept.pipeline_id else Q(workspace=kept.workspace_id)


def _expire(kept: LogRetention, now: datetime) -> int:
    owned = Q(pipeline=kept.pipeline_id) if kept.pipeline_id else Q(pipeline__workspace=kept.workspace_id)
    segments = LogSegment.objects.filter(owned, removed_at=None)
    pages = rollups.rolled_up(LogPage.objects.filter(owned))
    gone = 0
    if kept.days is not None:
        oldest = int((now - timedelta(days=kept.days)).timestamp() * 1000)
        gone += _drop_segments(segments.filter(time_max__lt=oldest), now)
        gone += _drop_pages(pages.filter(time_max__lt=oldest))
    for column, most in (("rows", kept.rows), ("size", kept.size)):
        if most is not None:
            gone += _drop_beyond(segments, pages, column, most, now)
    return gone


def _drop_beyond(
    segments: QuerySet[LogSegment], pages: QuerySet[LogPage], column: str, most: int, now: datetime
) -> int:
    """Drops the oldest until at most so much is left. Segments hold what is older than pages."""
    too_much = sum(found.aggregate(total=Sum(column))["total"] or 0 for found in (segments, pages)) - most
    gone = 0
    while too_much > 0:
        some, taken = _oldest(segments, column, too_much)
        if not some:
            break
        gone += _drop_segments(segments.filter(pk__in=some), now)
        too_much -= taken
    while too_much > 0:
        some, taken = _oldest(pages, column, too_much)
        if not some:
            break
        gone += _drop_pages(pages.filter(pk__in=some))
        too_much -= taken
    return gone


def _oldest(found: "QuerySet[LogSegment] | QuerySet[LogPage]", column: str, wanted: int) -> tuple[list[int], int]:
    """The oldest that together have as much as wanted, some at a time, and how much they have."""
    some: list[int] = []
    taken = 0
    for pk, amount in found.order_by("time_max", "pk").values_list("pk", column)[:AT_ONCE]:
        if taken >= wanted:
            break
        some.append(pk)
        taken += amount
    return some, taken


def _drop_segments(found: QuerySet[LogSegment], now: datetime) -> int:
    """Their files go when nobody can be reading them any more (`compaction.sweep`)."""
    gone = 0
    while some := list(found.values_list("pk", "rows")[:AT_ONCE]):
        LogSegment.objects.filter(pk__in=[pk for pk, _ in some], removed_at=None).update(removed_at=now)
        gone += sum(rows for _, rows in some)
    return gone


def _drop_pages(found: QuerySet[LogPage]) -> int:
    gone = 0
    while some := list(found.values_list("pk", "rows")[:AT_ONCE]):
        LogPage.objects.filter(pk__in=[pk for pk, _ in some]).delete()
        gone += sum(rows for _, rows in some)
    return gone
