"""What a lost message, a killed worker or two workers at once do to a publish: nothing that people see."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from catalog.models import ModelVersion, PipelineVersion
from publishing import jobs, tasks
from publishing.models import Publish
from tests.conftest import ROOT
from tests.fakes.oci import FakeRegistry

Status = Publish.Status
MIB = 1024 * 1024


def ago(seconds: float) -> Any:
    return timezone.now() - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("fields", "is_sent"),
    [
        ({"status": Status.PENDING, "enqueued_at": 11}, True),
        ({"status": Status.PENDING, "enqueued_at": None}, True),
        ({"status": Status.PENDING, "enqueued_at": 5}, False),
        ({"status": Status.PUBLISHING, "enqueued_at": 60, "heartbeat_at": 21}, True),
        ({"status": Status.PUBLISHING, "enqueued_at": 5, "heartbeat_at": 21}, False),
        ({"status": Status.PUBLISHING, "enqueued_at": 60, "heartbeat_at": 15}, False),
        ({"status": Status.PUBLISHED, "enqueued_at": 60, "heartbeat_at": 60}, False),
        ({"status": Status.ERROR, "enqueued_at": 60, "heartbeat_at": 60}, False),
    ],
)
def test_what_no_worker_knows_of_is_sent_again(
    make_publish: Callable[..., Publish], sent: list[Any], fields: dict[str, Any], is_sent: bool
):
    values = {key: ago(value) if isinstance(value, int) else value for key, value in fields.items()}
    waiting = make_publish(**values)
    tasks.recover_publishes()
    assert sent == ([("publishing.tasks.publish_version", [waiting.pk])] if is_sent else [])


def test_it_is_sent_once_in_ten_seconds(make_publish: Callable[..., Publish], sent: list[Any]):
    make_publish()
    tasks.recover_publishes()
    tasks.recover_publishes()
    assert len(sent) == 1


def test_a_publish_is_given_to_one_of_two_workers(make_publish: Callable[..., Publish]):
    waiting = make_publish()
    first, second = jobs.claim(waiting.pk), jobs.claim(waiting.pk)
    assert first is not None and second is None


def test_a_publish_whose_worker_lives_is_not_taken(make_publish: Callable[..., Publish]):
    assert jobs.claim(make_publish(status=Status.PUBLISHING, heartbeat_at=ago(15)).pk) is None


def test_a_publish_whose_worker_is_gone_is_taken_and_the_old_one_may_not_write(make_publish: Callable[..., Publish]):
    waiting = make_publish()
    old = jobs.claim(waiting.pk)
    assert old is not None
    Publish.objects.update(heartbeat_at=ago(30))
    assert jobs.claim(waiting.pk) is not None
    with pytest.raises(jobs.Lost):
        old.write(status=Status.ERROR)
    assert Publish.objects.get().status == Status.PUBLISHING


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("shared_database")
def test_two_workers_at_once_push_once(to_fake: FakeRegistry, make_publish: Callable[..., Publish]):
    waiting = make_publish()
    to_fake.gate = threading.Event()
    results: list[bool] = []

    def work() -> None:
        try:
            results.append(jobs.publish(waiting.pk))
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert to_fake.storing.wait(20)
    to_fake.gate.set()
    for worker in workers:
        worker.join(30)
    assert sorted(results) == [False, True]
    assert len(to_fake.calls("PUT", "/manifests/(?!sha256)")) == 2, "one pipeline, one chart"


def test_a_run_after_a_lost_worker_ends_in_the_same_digests(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish]
):
    whole = make_publish()
    assert jobs.publish(whole.pk)
    whole.refresh_from_db()
    to_fake.manifests.clear()
    half = make_publish(whole.pipeline_version, status=Status.PUBLISHING, heartbeat_at=ago(25), attempt=whole.attempt)
    assert jobs.publish(half.pk)
    half.refresh_from_db()
    assert (half.pipeline_digest, half.chart_digest) == (whole.pipeline_digest, whole.chart_digest)
    assert len({tag for _, tag in to_fake.manifests if ":" not in tag and not tag.startswith("sha256-")}) == 2


@pytest.mark.e2e
def test_a_worker_killed_in_the_middle_is_replaced_and_the_publish_arrives(
    transactional_db: None,
    data_folder: Path,
    to_fake: FakeRegistry,
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    sent: list[Any],
    settings: Any,
):
    """A real process, a real SIGKILL while bytes of the model are on the wire."""
    if connection.vendor != "sqlite":
        pytest.skip("copies the database into a file for the other process")
    model = make_model_version(content=os.urandom(3_000_000))
    waiting = make_publish(make_pipeline_version(model))
    database = data_folder / "copy.sqlite3"
    _copy_to(database)
    to_fake.gate = threading.Event()
    worker = _worker(waiting.pk, database, data_folder, settings.ENCRYPTION_KEYS[0])
    try:
        assert to_fake.storing.wait(60), "nothing was sent"
        worker.send_signal(signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait(10)
    to_fake.gate.set()
    with sqlite3.connect(database) as left:
        status, pipeline_url = left.execute("SELECT status, pipeline_url FROM publishing_publish").fetchone()
    left.close()
    assert (status, pipeline_url) == (Status.PUBLISHING, "")
    assert not to_fake.manifests, "a tag never names what is not whole"
    again = _worker(waiting.pk, database, data_folder, settings.ENCRYPTION_KEYS[0], stale=0.1)
    assert again.wait(60) == 0
    with sqlite3.connect(database) as left:
        status, digest = left.execute("SELECT status, pipeline_digest FROM publishing_publish").fetchone()
    left.close()
    assert status == Status.PUBLISHED
    assert jobs.publish(waiting.pk), "the same publish, here and never killed"
    waiting.refresh_from_db()
    assert waiting.pipeline_digest == digest


@pytest.mark.e2e
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_worker_killed_within_a_chunked_upload_is_gone_on_with_where_the_registry_is(
    transactional_db: None,
    data_folder: Path,
    to_fake: FakeRegistry,
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    sent: list[Any],
    settings: Any,
    is_kept: bool,
):
    """A registry behind a proxy that lets 1 MiB through; SIGKILL in the middle. Without its session it begins anew."""
    if connection.vendor != "sqlite":
        pytest.skip("copies the database into a file for the other process")
    content = os.urandom(8 * MIB)
    waiting = make_publish(make_pipeline_version(make_model_version(content=content)))
    database = data_folder / "copy.sqlite3"
    _copy_to(database)
    to_fake.most_put = to_fake.most_patch = MIB
    to_fake.slow_after = 4 * MIB
    worker = _worker(waiting.pk, database, data_folder, settings.ENCRYPTION_KEYS[0])
    try:
        assert to_fake.slowed.wait(60), "nothing was sent"
        _until(lambda: _row(database, "uploads"))
        worker.send_signal(signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait(10)
    time.sleep(1.2)  # what was on the wire when the worker died may still arrive
    there = max(map(len, to_fake.parts.values()))
    assert 3 * MIB <= there < len(content)
    assert to_fake.host not in _row(database, "uploads"), "it is encrypted"
    to_fake.slow_after = None
    if not is_kept:
        to_fake.uploads.clear()
        to_fake.parts.clear()
    to_fake.seen.clear()
    again = _worker(waiting.pk, database, data_folder, settings.ENCRYPTION_KEYS[0], stale=0.1)
    assert again.wait(60) == 0
    assert (_row(database, "status"), _row(database, "uploads")) == (Status.PUBLISHED, "")
    digest = f"sha256:{ModelVersion.objects.get().sha256}"
    assert to_fake.blobs["ml/pipelines/houseprice"][digest] == content
    patched = sum(seen.body_bytes for seen in to_fake.calls("PATCH"))
    assert patched == len(content) - (there if is_kept else 0), "the plan with its small chunks was kept too"


def _row(database: Path, column: str) -> Any:
    with closing(sqlite3.connect(database)) as left:
        return left.execute(f"SELECT {column} FROM publishing_publish").fetchone()[0]


def _until(found: Callable[[], Any]) -> None:
    for _ in range(300):
        if found():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen")


WORK = """
import sys, time
import django
django.setup()
from publishing import jobs
jobs.STALE_SECONDS = float(sys.argv[2])
time.sleep(0.3)
sys.exit(0 if jobs.publish(int(sys.argv[1])) else 1)
"""


def _worker(publish_id: int, database: Path, data: Path, key: str, stale: float = 20.0) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "opscenter.settings",
        "DATABASE_URL": f"sqlite:///{database}",
        "OPSCENTER_DATA": str(data),
        "OPSCENTER_ENCRYPTION_KEYS": key,
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen([sys.executable, "-c", WORK, str(publish_id), str(stale)], env=environment, cwd=ROOT)


def _copy_to(path: Path) -> None:
    connection.ensure_connection()
    target = sqlite3.connect(path)
    connection.connection.backup(target)
    target.close()
