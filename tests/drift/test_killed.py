"""A window is scored once, also when workers are killed in the middle and many run at once."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

from drift import jobs
from drift.models import Assay, Result
from drift.operations import Schedule
from tests.conftest import ROOT
from tests.drift.conftest import BEGIN, HOUR, USUAL, ms, ship
from tests.logs.busy import Shipper
from tests.logs.conftest import Device
from tests.logs.test_concurrent_store import at_once, database_in_a_file  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)
SCHEDULE = Schedule(width=60, interval=60, wait=0)

WORKER = """
import sys
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
django.setup()
from datetime import datetime
from drift import jobs
from drift.models import Assay
now = datetime.fromisoformat(sys.argv[2])
while jobs.run_window(Assay.objects.select_related("pipeline").get(), now):
    print("scored", flush=True)
    if Assay.objects.get().next_start >= now.timestamp() * 1000:
        break
"""


def scored(assay: Assay) -> Counter[int]:
    """How many results each minute has."""
    return Counter((start - ms(BEGIN + HOUR)) // 60_000 for start in assay.results.values_list("start", flat=True))


def test_killed_workers_score_every_window_once(
    device: Device, make_assay: Callable[..., Assay], tmp_path: Path
) -> None:
    shipper = Shipper(device)
    ship(shipper, BEGIN, USUAL)
    ship(shipper, BEGIN + HOUR, USUAL, apart=1000)
    assay = make_assay(device, schedule=SCHEDULE)
    until = BEGIN + HOUR + HOUR / 3
    command = [sys.executable, "-c", WORKER, str(connection.settings_dict["NAME"]), until.isoformat()]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "opscenter.settings", "PYTHONPATH": str(ROOT)}
    environment["OPSCENTER_DATA"] = str(tmp_path)
    for delay in (0.0, 0.02, 0.05, None):
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout
            for _ in worker.stdout:
                if delay is not None:
                    time.sleep(delay)  # into the next window
                    worker.send_signal(signal.SIGKILL)
                    break
            worker.stdout.read()
        assert worker.returncode == (0 if delay is None else -signal.SIGKILL)
    assert scored(assay) == Counter(range(20))
    assert sum(result.stats["count"] for result in Result.objects.all()) == len(USUAL)


def test_workers_at_once_score_every_window_once(device: Device, make_assay: Callable[..., Assay]) -> None:
    ship(Shipper(device), BEGIN, USUAL)
    assay = make_assay(device, schedule=SCHEDULE)
    at_once([lambda: jobs.run_due(lambda: BEGIN + HOUR + HOUR / 4)] * 3)
    assert scored(assay) == Counter(range(15))
