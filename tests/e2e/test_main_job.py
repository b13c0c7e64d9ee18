"""The whole main job, as `make demo` does it, on each shape of a center."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.centers import ROOT, RunningCenter

pytestmark = pytest.mark.e2e


def test_every_check_of_the_main_job_holds(center: RunningCenter, tmp_path: Path) -> None:
    environment = center.registry | {
        "OPSCENTER_URL": center.url,
        "OPSCENTER_ADMIN_EMAIL": center.admin_email,
        "OPSCENTER_ADMIN_PASSWORD": center.admin_password,
        "OPSCENTER_DATA": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}\n{center.log.read_text()[-3000:]}"
    assert "Every check held" in done.stdout
