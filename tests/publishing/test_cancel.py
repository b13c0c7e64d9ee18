"""`POST /publishes/<id>/cancel`: a publish that waits or runs stops, and can be tried again."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from catalog.models import ModelVersion, PipelineVersion, User
from common.errors import Forbidden
from publishing import jobs, operations
from publishing.errors import NotRunning
from publishing.models import Publish
from tests.fakes.oci import FakeRegistry

Status = Publish.Status


def test_one_that_waits_is_stopped_and_never_begins(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish], api: Callable[..., Any], member: User
):
    waiting = make_publish()
    answer = api(member).post(f"/api/v1/publishes/{waiting.pk}/cancel")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["error"]) == ("Error", f"Cancelled by {member.email}.")
    assert jobs.publish(waiting.pk) is False and to_fake.seen == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("shared_database")
def test_one_that_runs_stops_within_two_seconds_and_can_be_tried_again(
    to_fake: FakeRegistry,
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    member: User,
    sent: list[Any],
):
    running = make_publish(make_pipeline_version(make_model_version(content=b"m" * 5_000_000)))
    to_fake.gate = threading.Event()
    results: list[bool] = []

    def work() -> None:
        try:
            results.append(jobs.publish(running.pk))
        finally:
            connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    assert to_fake.storing.wait(10)
    stopped = operations.cancel(actor=member, publish=running)
    assert stopped.status == Status.ERROR and stopped.step == ""
    began = time.monotonic()
    time.sleep(1.5)
    to_fake.gate.set()  # the registry reads on: without the stop the push would now arrive
    worker.join(10)
    assert not worker.is_alive() and time.monotonic() - began < 10
    assert results == [False]
    running.refresh_from_db()
    assert (running.status, running.error) == (Status.ERROR, f"Cancelled by {member.email}.")
    assert not [key for key in to_fake.manifests if key[0].startswith("ml/pipelines")]
    operations.retry(actor=member, publish=running)
    assert jobs.publish(running.pk) is True


@pytest.mark.parametrize("status", [Status.PUBLISHED, Status.ERROR])
def test_one_that_is_finished_is_refused(make_publish: Callable[..., Publish], member: User, status: str):
    done = make_publish(status=status)
    with pytest.raises(NotRunning, match=f"is {status}, so there is nothing to cancel"):
        operations.cancel(actor=member, publish=done)


def test_a_viewer_may_not(make_publish: Callable[..., Publish], viewer: User):
    with pytest.raises(Forbidden):
        operations.cancel(actor=viewer, publish=make_publish())


def test_stranger_gets_404(make_publish: Callable[..., Publish], api: Callable[..., Any], stranger: User):
    assert api(stranger).post(f"/api/v1/publishes/{make_publish().pk}/cancel").status_code == 404
