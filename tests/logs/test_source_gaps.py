"""`POST /api/v1/pipelines/<id>/logs/gaps`: rows that a source in the center lost are counted and listed, as edges'."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import override_settings
from django.utils import timezone
from rest_framework.test import APIClient

from catalog.models import PipelineVersion, User
from logs.models import LogGap, LogMark, LogPage, LogSource
from tests.logs import rows
from tests.logs.conftest import Device
from tests.logs.test_sources import accounts, ship

pytestmark = pytest.mark.django_db

Api = Callable[..., APIClient]
GAP = {"time_min": 1763683000000, "time_max": 1763683100000, "reason": "worker_killed"}


def lose(client: APIClient, version: PipelineVersion, first: int, last: int, **changes: Any) -> Any:
    """`POST logs/gaps` of the source `nightly`."""
    source = changes.pop("source", "nightly")
    body = {"epoch": str(rows.EPOCH), "first": first, "last": last, "count": last - first + 1} | GAP | changes
    return client.post(f"/api/v1/pipelines/{version.pipeline_id}/logs/gaps?source={source}", body, format="json")


def test_gap_moves_the_mark_and_is_listed_with_its_reason(api: Api, member: User, make_pipeline_version: Any) -> None:
    version, client = make_pipeline_version(), api(member)
    ship(client, version)
    response = lose(client, version, 4, 9)
    assert (response.status_code, response.json()) == (200, {"acked": 9})
    assert ship(client, version, first=10).json() == {"acked": 12}
    (found,) = accounts(client, version.pipeline_id)
    (epoch,) = found["epochs"]
    assert (epoch["received"], epoch["shed"], epoch["acked"], epoch["left_behind"]) == (6, 6, 12, 0)
    (gap,) = epoch["gaps"]
    assert gap.pop("arrived_at") <= epoch["last_arrival"]
    assert gap == {"first": 4, "last": 9, "count": 6} | GAP


def test_gaps_are_listed_with_their_own_store(api: Api, member: User, make_pipeline_version: Any) -> None:
    """Of two sources and of two runs, and not those of another pipeline's source of the same name."""
    version, other, client = make_pipeline_version(), make_pipeline_version(name="churn"), api(member)
    again = str(uuid.uuid4())
    lose(client, version, 1, 5)
    lose(client, version, 6, 7, reason="out_of_memory")
    lose(client, version, 1, 2, epoch=again)
    lose(client, version, 1, 3, source="weekly")
    lose(client, other, 1, 4)

    def listed(found: dict[str, Any]) -> dict[str, list[tuple[int, int, str]]]:
        return {
            epoch["epoch"]: [(gap["first"], gap["last"], gap["reason"]) for gap in epoch["gaps"]]
            for epoch in found["epochs"]
        }

    nightly, weekly = accounts(client, version.pipeline_id)
    assert listed(nightly) == {
        str(rows.EPOCH): [(1, 5, "worker_killed"), (6, 7, "out_of_memory")],
        again: [(1, 2, "worker_killed")],
    }
    assert listed(weekly) == {str(rows.EPOCH): [(1, 3, "worker_killed")]}
    assert [listed(found) for found in accounts(client, other.pipeline_id)] == [
        {str(rows.EPOCH): [(1, 4, "worker_killed")]}
    ]


def test_listing_takes_as_many_queries_for_many_gaps(
    api: Api, member: User, make_pipeline_version: Any, django_assert_max_num_queries: Any
) -> None:
    version, client = make_pipeline_version(), api(member)
    lose(client, version, 1, 1)
    with django_assert_max_num_queries(6):
        accounts(client, version.pipeline_id)
    for number in range(2, 6):
        lose(client, version, number, number)
        lose(client, version, 1, number, source=f"job-{number}")
    with django_assert_max_num_queries(6):
        assert len(accounts(client, version.pipeline_id)) == 5


def test_repeated_gap_is_recorded_once(api: Api, member: User, make_pipeline_version: Any) -> None:
    version, client = make_pipeline_version(), api(member)
    assert [lose(client, version, 1, 5).json() for _ in range(3)] == [{"acked": 5}] * 3
    assert list(LogGap.objects.values_list("first", "last", "count")) == [(1, 5, 5)]
    assert LogMark.objects.get().shed == 5


def test_gap_over_rows_that_are_here_is_recorded_after_them(api: Api, member: User, make_pipeline_version: Any) -> None:
    version, client = make_pipeline_version(), api(member)
    ship(client, version)
    assert lose(client, version, 2, 8).json() == {"acked": 8}
    assert list(LogGap.objects.values_list("first", "last", "count")) == [(4, 8, 5)]
    mark = LogMark.objects.get()
    assert (mark.rows, mark.shed, mark.acked) == (3, 5, 8)


def test_rows_that_come_after_all_are_kept_from_the_end_of_the_gap_on(
    api: Api, member: User, make_pipeline_version: Any
) -> None:
    version, client = make_pipeline_version(), api(member)
    lose(client, version, 1, 2)
    assert ship(client, version).json() == {"acked": 3}
    assert list(LogPage.objects.values_list("first", "rows")) == [(3, 1)]


def test_gap_after_a_hole_is_409_with_the_row_to_begin_at(api: Api, member: User, make_pipeline_version: Any) -> None:
    version, client = make_pipeline_version(), api(member)
    ship(client, version)
    response = lose(client, version, 6, 8)
    assert (response.status_code, response.json()["code"], response.json()["expected"]) == (409, "log_hole", 4)
    assert not LogGap.objects.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"last": 0},
        {"count": 4},
        {"first": 0},
        {"last": 2**63},
        {"epoch": "x"},
        {"reason": ""},
        {"reason": "x" * 65},
        {"source": ""},
        {"source": "a:b"},
    ],
)
def test_wrong_gap_is_400_and_makes_no_source(
    api: Api, member: User, make_pipeline_version: Any, wrong: dict[str, Any]
) -> None:
    given = {"first": 1, "last": 5} | wrong
    response = lose(api(member), make_pipeline_version(), **given)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert not LogSource.objects.exists()


@override_settings(EDGE_CALLS_PER_MINUTE=2)
def test_pages_and_gaps_of_a_source_share_a_limit(api: Api, member: User, make_pipeline_version: Any) -> None:
    version, client = make_pipeline_version(), api(member)
    answers = [ship(client, version), lose(client, version, 4, 5), lose(client, version, 6, 7)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[-1]["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("who", "status"), [("owner", 200), ("member", 200), ("viewer", 403), ("stranger", 404), (None, 401)]
)
def test_who_may_tell_gaps(api: Api, request: Any, make_pipeline_version: Any, who: str | None, status: int) -> None:
    client = api(request.getfixturevalue(who)) if who else APIClient()
    assert lose(client, make_pipeline_version(), 1, 5).status_code == status
    assert LogGap.objects.exists() == (status == 200)


def test_a_gap_is_of_an_edge_or_of_a_source(device: Device, member: User) -> None:
    source = LogSource.objects.create(
        pipeline=device.version.pipeline, name="nightly", created_by=member, created_at=timezone.now()
    )
    given = {"epoch": rows.EPOCH, "first": 1, "last": 1, "count": 1, "reason": "x", "arrived_at": timezone.now()}
    for owner in ({}, {"edge": device.edge, "source": source}):
        with pytest.raises(IntegrityError, match="log_gap_of_one"), transaction.atomic():
            LogGap.objects.create(**given, **owner)
