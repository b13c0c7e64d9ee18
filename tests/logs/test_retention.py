"""How long logs are kept."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Sum
from django.utils import timezone

from catalog.models import User
from common.errors import Forbidden, Invalid, NotFound
from logs import compaction, queries, retention, rollups, tasks
from logs.filters import Filters
from logs.models import LogMark, LogPage, LogRollup, LogSegment, LogSeries
from logs.retention import Limits
from tests.logs.busy import Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db
DAY = 86_400_000
Api = Callable[[User], Any]


def days_ago(count: int) -> int:
    return int(timezone.now().timestamp() * 1000) - count * DAY


def ship(device: Device, *ages: int, shipper: Shipper | None = None) -> Shipper:
    """A page of ten rows, and with it a segment, for each age in days; the newest last."""
    shipper = shipper or Shipper(device)
    for age in ages:
        shipper.run(days_ago(age), 10)
        rollups.roll_up_waiting(timezone.now)
        compaction.compact(device.version.pipeline_id, timezone.now)
    return shipper


def rows_of(device: Device) -> int:
    found = queries.walk(device.version.pipeline, queries.asked(Filters(), limit=1000))
    return sum(len(table) for batch in found for table in batch.tables)


def test_without_limits_all_is_kept(device: Device, owner: User) -> None:
    ship(device, 400, 1)
    assert retention.limits_of(device.version.pipeline) == Limits()
    assert retention.expire(timezone.now()) == 0 and rows_of(device) == 20


def test_rows_go_by_their_age(device: Device, owner: User) -> None:
    ship(device, 40, 31, 29, 0)
    retention.set_limits(owner, device.version.pipeline, Limits(days=30))
    assert retention.expire(timezone.now()) == 20
    assert retention.expire(timezone.now()) == 0
    assert rows_of(device) == 20


def test_pages_go_by_their_age_too_once_they_are_rolled_up(device: Device, owner: User) -> None:
    Shipper(device).run(days_ago(40), 10)
    retention.set_limits(owner, device.version.pipeline, Limits(days=30))
    assert retention.expire(timezone.now()) == 0
    rollups.roll_up_waiting(timezone.now)
    assert retention.expire(timezone.now()) == 10 and not LogPage.objects.exists()


@pytest.mark.parametrize(("most", "left"), [(30, 30), (29, 20), (5, 0), (1000, 40)])
def test_the_oldest_go_beyond_a_number_of_rows(device: Device, owner: User, most: int, left: int) -> None:
    ship(device, 4, 3, 2, 1)
    retention.set_limits(owner, device.version.pipeline, Limits(rows=most))
    assert retention.expire(timezone.now()) == 40 - left
    assert rows_of(device) == left


def test_segments_go_before_pages(device: Device, owner: User) -> None:
    shipper = ship(device, 4, 3)
    shipper.run(days_ago(1), 10)
    shipper.run(days_ago(0), 10)
    rollups.roll_up_waiting(timezone.now)
    retention.set_limits(owner, device.version.pipeline, Limits(rows=10))
    assert retention.expire(timezone.now()) == 30
    assert not LogSegment.objects.filter(removed_at=None).exists() and LogPage.objects.count() == 1


def test_the_oldest_go_beyond_a_number_of_bytes(device: Device, owner: User) -> None:
    ship(device, 4, 3, 2, 1)
    sizes = list(LogSegment.objects.order_by("time_max").values_list("size", flat=True))
    retention.set_limits(owner, device.version.pipeline, Limits(size=sum(sizes[2:])))
    assert retention.expire(timezone.now()) == 20 and rows_of(device) == 20


def test_a_workspaces_limit_counts_its_pipelines_together(
    device: Device, make_pipeline_version: Callable[..., Any], make_device: Callable[..., Device], owner: User
) -> None:
    workspace = device.version.pipeline.workspace
    other = make_device("other", make_pipeline_version(name="other"))
    ship(device, 4, 1)
    ship(other, 3, 2)
    retention.set_limits(owner, workspace, Limits(rows=20))
    assert retention.expire(timezone.now()) == 20
    assert (rows_of(device), rows_of(other)) == (10, 10)


def test_what_went_is_not_stored_when_it_is_sent_again(device: Device, owner: User) -> None:
    body = device.page([days_ago(40), days_ago(40) + 1])
    assert device.ship(body).json()["acked"] == 2
    retention.set_limits(owner, device.version.pipeline, Limits(days=30))
    rollups.roll_up_waiting(timezone.now)
    assert tasks.expire_logs() == 2
    assert device.ship(body).json()["acked"] == 2
    assert rows_of(device) == 0 and LogMark.objects.get().rows == 2


def test_files_go_a_while_later(device: Device, owner: User) -> None:
    ship(device, 40)
    retention.set_limits(owner, device.version.pipeline, Limits(days=30))
    tasks.expire_logs()
    assert LogSegment.objects.count() == 1
    later = timezone.now() + compaction.GRACE + timedelta(minutes=1)
    compaction.sweep(lambda: later)
    assert not LogSegment.objects.exists()


def test_only_owners_set_limits_and_strangers_see_nothing(
    device: Device, viewer: User, member: User, stranger: User
) -> None:
    for actor, refusal in ((viewer, Forbidden), (member, Forbidden), (stranger, NotFound)):
        with pytest.raises(refusal):
            retention.set_limits(actor, device.version.pipeline, Limits(days=1))


def test_a_limit_of_nothing_is_refused(device: Device, owner: User) -> None:
    with pytest.raises(Invalid, match="days must be at least 1"):
        retention.set_limits(owner, device.version.pipeline, Limits(days=0))


def summed() -> int:
    """Rows that charts count by day."""
    days = LogRollup.objects.filter(grain=86_400, series__partition="")
    return int(days.aggregate(total=Sum("rows"))["total"] or 0)


def test_charts_count_no_rows_that_are_gone(device: Device, owner: User) -> None:
    ship(device, 40, 31, 29, 0)
    retention.set_limits(owner, device.version.pipeline, Limits(days=30))
    assert summed() == 40
    tasks.expire_logs()
    assert summed() == 20 == rows_of(device)
    assert retention.expire_sums(timezone.now()) == 0


def test_without_limits_sums_stay(device: Device) -> None:
    ship(device, 400, 1)
    LogSegment.objects.all().delete()
    assert retention.expire_sums(timezone.now()) == 0 and summed() == 20


def test_sums_without_any_row_left_go_with_their_series(device: Device, owner: User) -> None:
    shipper = ship(device, 40, 31)
    retention.set_limits(owner, device.version.pipeline, Limits(days=30))
    tasks.expire_logs()
    assert not LogRollup.objects.exists() and not LogSeries.objects.exists()
    ship(device, 0, shipper=shipper)
    assert summed() == 10


def test_sums_may_be_kept_longer_than_rows(device: Device, owner: User) -> None:
    ship(device, 400, 40, 0)
    retention.set_limits(owner, device.version.pipeline, Limits(days=30, sums_days=90))
    tasks.expire_logs()
    assert (rows_of(device), summed()) == (10, 20)


def test_a_pipelines_own_time_for_sums_is_before_its_workspaces(device: Device, owner: User) -> None:
    ship(device, 40, 0)
    pipeline = device.version.pipeline
    retention.set_limits(owner, pipeline, Limits(sums_days=90))
    retention.set_limits(owner, pipeline.workspace, Limits(days=30, sums_days=35))
    tasks.expire_logs()
    assert (rows_of(device), summed()) == (10, 20)
    retention.set_limits(owner, pipeline, Limits())
    retention.expire_sums(timezone.now())
    assert summed() == 10


def test_rows_that_are_not_summed_up_yet_lose_nothing(device: Device, owner: User) -> None:
    shipper = ship(device, 60)
    retention.set_limits(owner, device.version.pipeline, Limits(days=30))
    shipper.run(days_ago(50), 10)
    tasks.expire_logs()
    assert rows_of(device) == 10
    rollups.roll_up_waiting(timezone.now)
    assert summed() == 10


class TestRest:
    @pytest.mark.parametrize("of", ["pipelines", "workspaces"])
    def test_owners_set_and_viewers_read(
        self, device: Device, api: Api, owner: User, viewer: User, stranger: User, of: str
    ) -> None:
        pipeline = device.version.pipeline
        pk = pipeline.pk if of == "pipelines" else pipeline.workspace_id
        address = f"/api/v1/{of}/{pk}/logs/retention"
        assert api(viewer).get(address).json() == {"days": None, "rows": None, "size": None, "sums_days": None}
        answer = api(owner).put(address, {"days": 30, "rows": None, "size": 10**12, "sums_days": 90})
        assert answer.status_code == 200, answer.content
        assert api(viewer).get(address).json() == {"days": 30, "rows": None, "size": 10**12, "sums_days": 90}
        assert api(viewer).put(address, {"days": 1}).status_code == 403
        assert api(stranger).get(address).status_code == 404
        assert api(owner).put(address, {"days": 0}).status_code == 400
        assert api(owner).put(address, {}).json() == {"days": None, "rows": None, "size": None, "sums_days": None}
