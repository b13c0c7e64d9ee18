"""SIGKILL at any moment of an export, again and again: each row is in the files once."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench.logs.exporting import START

ROOT = Path(__file__).resolve().parents[2]
ROWS = 400_000
KILLS = 8
DJANGO = "import django; django.setup(); "
FILL = DJANGO + "from bench.logs import exporting; exporting.fill()"
MAKE = (
    DJANGO
    + """
from catalog.models import Pipeline, User
from logs import exports
from logs.asked import Asked
from logs.filters import Filters
from logs.query import Order
asked = Asked(Filters(), order=Order.OLDEST_FIRST)
print(exports.create_export(
    actor=User.objects.get(), pipeline_pk=Pipeline.objects.get().pk, format="arrow", asked=asked,
    data_size_limit=1024**2,
).pk)
"""
)
RUN = (
    DJANGO
    + """
import sys
from datetime import timedelta
from django.utils import timezone
from logs import export_jobs
from logs.models import LogExport
# The worker that was killed says nothing any more.
LogExport.objects.filter(status="Running").update(heartbeat_at=timezone.now() - timedelta(minutes=5))
export_jobs.BATCH_ROWS = 5000
print("begins", flush=True)
export_jobs.export(sys.argv[1])
"""
)
SHOW = (
    DJANGO
    + """
import json, sys
from logs.asked import folder_of
from logs.models import LogExport
export = LogExport.objects.get(pk=sys.argv[1])
files = [[file.number, file.rows, file.size] for file in export.files.all()]
print(json.dumps({"status": export.status, "rows": export.rows, "files": files, "folder": str(folder_of(export.pk))}))
"""
)


@pytest.mark.e2e
def test_each_row_is_exported_once_over_many_kills(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    environment |= {"OPSCENTER_DATA": str(tmp_path), "DJANGO_SETTINGS_MODULE": "opscenter.settings"}

    def python(code: str, *given: str) -> str:
        found = subprocess.run(
            [sys.executable, "-c", code, *given],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        return found.stdout.strip()

    def written() -> int:
        return len(list(tmp_path.rglob("*.arrow")))

    python(FILL, "--rows", str(ROWS))
    pk = python(MAKE)
    chance, stopped, found = random.Random(7), 0, list[int]()
    for _ in range(KILLS):
        command = [sys.executable, "-c", RUN, pk]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "begins\n"
        goal = written() + chance.choice([0, 1, 2])
        while process.poll() is None and written() < goal:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        stopped += process.wait() != 0
        process.stdout.close()
        found.append(written())
    assert stopped >= 3
    assert found[-1] > 0, found
    python(RUN, pk)
    told = json.loads(python(SHOW, pk))
    assert (told["status"], told["rows"]) == ("Done", ROWS)
    folder = Path(told["folder"])
    assert sorted(path.name for path in folder.iterdir()) == [f"{number:06}.arrow" for number, _, _ in told["files"]]
    tables = [pa.ipc.open_file(folder / f"{number:06}.arrow").read_all() for number, _, _ in told["files"]]
    assert [[len(table), size] for table, (_, _, size) in zip(tables, told["files"], strict=True)] == [
        [rows, size] for _, rows, size in told["files"]
    ]
    times = np.concatenate([table["time"].cast(pa.int64()).to_numpy() for table in tables])
    assert np.array_equal(times, np.arange(START, START + ROWS))
