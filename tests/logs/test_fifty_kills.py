"""An edge that sends everything again from the first row each time, and a worker that compacts, killed fifty times."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from logs import compaction, queries, rollups
from logs.filters import Filters
from logs.models import LogCompaction, LogMark, LogPage, LogRollup, LogRollupState, LogSegment
from tests.conftest import ROOT
from tests.logs.conftest import Device
from tests.logs.test_concurrent_store import database_in_a_file  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)

KILLS, PAGES, ROWS = 50, 300, 20

# One process sets up Django, and each attempt is a fork of it: a start takes a hundred times as long as a page.
SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
import django
from django.conf import settings
name, settings.LOGS_URL, edge_pk, version_uuid, kills, pages, count = sys.argv[1:]
settings.DATABASES["default"]["NAME"] = name
settings.DATABASES["default"].get("OPTIONS", {}).pop("pool", None)  # its threads do not outlive a fork
django.setup()
from django.db import connections
from django.utils import timezone
from edges.models import Edge
from logs import compaction, operations, rollups
from logs.models import LogCompaction, LogMark, LogRollupState, LogSegment
from tests.logs import rows
edge, count = Edge.objects.get(pk=edge_pk), int(count)
bodies = [
    rows.page(
        range(rows.START + n * count, rows.START + (n + 1) * count),
        version=version_uuid, partition=edge.name, names=range(n * count, (n + 1) * count),
    )
    for n in range(int(pages))
]
compaction.MOST_ROWS = 40 * count

def send():
    for n, body in enumerate(bodies):
        operations.store_page(
            edge=edge, epoch=rows.EPOCH, first=1 + n * count, pipeline_version_uuid=version_uuid,
            page=operations.SentPage(body, timezone.now()),
        )

def compact():
    while True:
        rollups.roll_up_waiting(timezone.now)
        for pipeline in set(compaction.LogPage.objects.values_list("pipeline", flat=True)):
            compaction.compact(pipeline, timezone.now)
        time.sleep(0.02)

def fork(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)

chance = random.Random(7)
for attempt in range(int(kills)):
    LogCompaction.objects.update(leased_until=None)  # as time would
    LogRollupState.objects.update(leased_until=None)
    connections.close_all()
    children = [fork(send), fork(compact)]
    time.sleep(chance.uniform(0.02, 0.25))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
assert LogMark.objects.get().acked > 0 and LogSegment.objects.exists(), "both came to something in between"
print("killed", flush=True)
send()
"""


def test_no_row_is_lost_or_doubled(device: Device, settings: Any, tmp_path: Path) -> None:
    given = [connection.settings_dict["NAME"], settings.LOGS_URL, device.edge.pk, device.version.uuid]
    command = [sys.executable, "-c", SCRIPT, *map(str, [*given, KILLS, PAGES, ROWS])]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "opscenter.settings", "PYTHONPATH": str(ROOT)}
    environment["OPSCENTER_DATA"] = str(tmp_path)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "killed\n"), done.stderr[-2000:]

    LogCompaction.objects.update(leased_until=None)
    LogRollupState.objects.update(leased_until=None)
    rollups.roll_up_waiting(timezone.now)
    compaction.compact(device.version.pipeline_id, timezone.now)
    assert not LogPage.objects.exists()
    walked = queries.walk(device.version.pipeline, queries.asked(Filters(), limit=1000))
    found = [row["in"]["id"] for batch in walked for table in batch.tables for row in table.to_pylist()]
    assert found == list(range(PAGES * ROWS - 1, -1, -1))
    assert LogMark.objects.get().rows == PAGES * ROWS
    summed = LogRollup.objects.filter(grain=rollups.DAY, series__partition="").values_list("rows", flat=True)
    assert sum(summed) == PAGES * ROWS
    later = timezone.now() + compaction.GRACE + timedelta(minutes=1)
    compaction.sweep(lambda: later)
    folder = Path(settings.LOGS_URL)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")}
    assert there == set(LogSegment.objects.values_list("path", flat=True))
