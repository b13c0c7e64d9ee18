"""How fast log pages are stored and read, as ratios within one run.

    python -m bench.logs.ingest [--pages 200] [--no-http] [--no-jsonb]

Works on a database of its own beside the configured one (same server, or same disk), and removes it. Ratios of one run
can be compared; figures of different runs move by a factor of almost two.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

ROOT = Path(__file__).resolve().parents[2]
MEASURE = "import django; django.setup(); from bench.logs import measure; measure.main()"


@contextmanager
def own_database() -> Iterator[dict[str, str]]:
    """An environment that names an empty database where the configured one is."""
    data = Path(os.environ.get("OPSCENTER_DATA", ROOT / "var"))
    data.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="bench-", dir=data)
    environment = os.environ | {"OPSCENTER_DATA": folder, "DJANGO_SETTINGS_MODULE": "opscenter.settings"}
    configured, name = os.environ.get("DATABASE_URL", ""), f"opscenter_bench_{os.getpid()}"
    try:
        if not configured.startswith("postgres"):
            yield environment
            return
        with psycopg.connect(configured, autocommit=True) as administrator:
            administrator.execute(f"CREATE DATABASE {name}")
            try:
                yield environment | {"DATABASE_URL": urlsplit(configured)._replace(path=f"/{name}").geturl()}
            finally:
                administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        shutil.rmtree(folder)


def main() -> int:
    with own_database() as environment:
        command = [sys.executable, "-c", MEASURE, *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
