"""An assay whose edges run something else since a replacement is paused, and says why."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from catalog.models import ModelVersion, PipelineVersion, User
from drift import jobs, operations
from drift.models import Assay
from drift.operations import Schedule
from edges import jobs as edge_jobs
from publishing.models import Publish
from tests.drift.conftest import BEGIN, USUAL, ship
from tests.logs.busy import Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db


@pytest.fixture
def assay(device: Device, make_assay: Callable[..., Assay]) -> Assay:
    """Its next window is still open."""
    ship(Shipper(device), BEGIN, USUAL)
    schedule = Schedule(3600, 3600, first_start=timezone.now(), wait=0)
    return make_assay(device, schedule=schedule, now=timezone.now() - timedelta(seconds=5))


@pytest.fixture
def replace(device: Device, make_publish: Callable[..., Publish]) -> Callable[..., Publish]:
    """`replace(version)` replaces what the edge runs by a publish of that version."""

    def make(version: PipelineVersion) -> Publish:
        made = make_publish(version)
        device.edge.refresh_from_db()
        made.replaces.add(device.edge.publish)
        assert edge_jobs.follow_publish(made.pk, timezone.now()) >= 1
        return made

    return make


def test_another_model_pauses(
    assay: Assay, replace: Any, make_pipeline_version: Any, make_model_version: Callable[..., ModelVersion]
) -> None:
    publish = replace(make_pipeline_version(make_model_version("gbr")))
    assert jobs.pause_replaced() == 1
    assay.refresh_from_db()
    assert assay.status == Assay.Status.PAUSED
    assert f"Publish {publish.pk} replaced" in assay.note
    assert "its models are gbr, without house-price" in assay.note
    assert jobs.pause_replaced() == 0


def test_another_pipeline_pauses(assay: Assay, replace: Any, make_pipeline_version: Any) -> None:
    replace(make_pipeline_version(name="other"))
    assert jobs.pause_replaced() == 1
    assay.refresh_from_db()
    assert "its pipeline is other, not houseprice" in assay.note


def test_another_version_of_the_same_names_goes_on(
    assay: Assay, replace: Any, make_pipeline_version: Any, make_model_version: Callable[..., ModelVersion]
) -> None:
    replace(make_pipeline_version(make_model_version(content=b"better")))
    assert jobs.pause_replaced() == 0


def test_an_edge_that_still_runs_it_keeps_it_going(
    assay: Assay, device: Device, make_device: Callable[..., Device], replace: Any, make_pipeline_version: Any
) -> None:
    make_device("second-edge", device.version)
    replace(make_pipeline_version(name="other"))
    assert jobs.pause_replaced() == 0


def test_edges_that_the_assay_does_not_watch_do_not_matter(
    device: Device, make_device: Callable[..., Device], make_assay: Any, replace: Any, make_pipeline_version: Any
) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    make_device("second-edge", device.version)
    make_assay(device, edges=(device.edge.name,), schedule=Schedule(3600, 3600, first_start=timezone.now(), wait=0))
    replace(make_pipeline_version(name="other"))
    assert jobs.pause_replaced() == 1


def test_windows_from_before_the_replacement_are_scored_first(
    device: Device, make_assay: Any, replace: Any, make_pipeline_version: Any
) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    first = timezone.now() - timedelta(hours=2.5)
    assay = make_assay(device, schedule=Schedule(3600, 3600, first_start=first, wait=0))
    replace(make_pipeline_version(name="other"))
    assert jobs.pause_replaced() == 0
    assert jobs.run_due(timezone.now) == 2
    assert jobs.pause_replaced() == 1
    assert assay.results.count() == 2


def test_a_resumed_assay_is_not_paused_for_the_same_replacement(
    assay: Assay, owner: User, replace: Any, make_pipeline_version: Any
) -> None:
    replace(make_pipeline_version(name="other"))
    jobs.pause_replaced()
    operations.resume(actor=owner, assay_pk=assay.pk)
    assert jobs.pause_replaced() == 0


def test_without_edges_nothing_was_replaced(assay: Assay, device: Device, owner: User) -> None:
    from_edges = device.edge
    from_edges.removed_at = timezone.now()
    from_edges.save()
    assert jobs.pause_replaced() == 0
