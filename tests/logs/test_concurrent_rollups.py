"""Every row is rolled up once, also when many workers do it at a time and when they are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from logs import rollups
from logs.models import LogRolled, LogRollup
from tests.conftest import ROOT
from tests.logs.busy import MINUTE, Shipper
from tests.logs.conftest import Device
from tests.logs.test_concurrent_store import at_once, database_in_a_file  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)


def ship(device: Device, pages: int) -> int:
    """100 rows a page, all from the same minute on, a second apart; answers that minute."""
    shipper, begin = Shipper(device), (int(time.time() * 1000) // MINUTE - 5) * MINUTE
    for _ in range(pages):
        shipper.run(begin, 100)
    return begin


def rolled(grain: int) -> list[int]:
    found = LogRollup.objects.filter(grain=grain, series__partition="").order_by("start")
    return list(found.values("start").annotate(Sum("rows")).values_list("rows__sum", flat=True))


def test_workers_at_once_count_every_row_once(device: Device, monkeypatch: Any) -> None:
    monkeypatch.setattr(rollups, "BATCH_PAGES", 3)
    ship(device, 12)

    def work() -> None:
        while rollups.roll_up(device.version.pipeline_id, timezone.now()):
            pass

    at_once([work] * 4)
    assert rolled(60) == [720, 480]
    assert sum(rolled(86400)) == 1200
    assert LogRolled.objects.count() == 12


WORKER = """
import sys
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
django.setup()
from django.utils import timezone
from logs import rollups
rollups.BATCH_PAGES = 2
while rollups.roll_up(int(sys.argv[2]), timezone.now()):
    print("rolled up", flush=True)
"""


def test_killed_workers_lose_and_double_nothing(device: Device, tmp_path: Path) -> None:
    ship(device, 60)
    name, pipeline = connection.settings_dict["NAME"], device.version.pipeline_id
    command = [sys.executable, "-c", WORKER, str(name), str(pipeline)]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "opscenter.settings", "PYTHONPATH": str(ROOT)}
    environment["OPSCENTER_DATA"] = str(tmp_path)
    for delay in (0.0, 0.002, 0.005, 0.009, 0.013, None):
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout
            for _ in worker.stdout:
                if delay is not None:
                    time.sleep(delay)  # into the next batch
                    worker.send_signal(signal.SIGKILL)
                    break
            worker.stdout.read()
        assert worker.returncode == (0 if delay is None else -signal.SIGKILL)
    assert rolled(60) == [3600, 2400]
    assert sum(rolled(3600)) == sum(rolled(86400)) == 6000
    assert LogRolled.objects.count() == 60
