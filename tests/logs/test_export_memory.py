"""An export's memory does not grow with its rows: a million of them, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = 1_000_000


@pytest.mark.e2e
def test_memory_stays_flat_over_a_million_rows(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    found = subprocess.run(
        [sys.executable, "-m", "bench.logs.export", "--rows", str(ROWS), "--json"],
        cwd=ROOT,
        env=environment | {"OPSCENTER_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    figures = json.loads(found.stdout.splitlines()[-1])
    for kind in ("arrow", "parquet", "json"):
        # Decoded, the rows are 290 MB; ten times as many must not take what they weigh.
        assert figures[kind]["grown_mib"] < 120, figures
        assert figures[kind]["peak_mib"] < 700, figures
        assert figures[kind]["largest_file"] <= 100 * 1024**2
    assert figures["records"]["ratio"] > 3
