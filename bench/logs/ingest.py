"""How fast log pages are stored and read, as ratios within one run.

    python -m bench.logs.ingest [--pages 200] [--no-jsonb] [--no-reads] [--only sqlite|postgresql]

On SQLite, then on PostgreSQL: the configured one, or one of its own where it is installed. Works on databases of its
own beside the configured ones (same server, or same disk), and removes them. Cases take turns, so that ratios of one
run can be compared; figures of different runs move by a factor of almost two.
"""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from cryptography.fernet import Fernet

from scripts import services

ROOT = Path(__file__).resolve().parents[2]
MEASURE = "import django; django.setup(); from bench.logs import measure_ingest; measure_ingest.main()"


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
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    given, others = parser.parse_known_args()
    return on_databases(given.only, lambda: measured(others))


def on_databases(only: str | None, measure: Callable[[], int]) -> int:
    """Measures on SQLite, then on PostgreSQL where it is, or on the one that is named; the last code that is not 0."""
    configured = os.environ.pop("DATABASE_URL", "")
    code = 0
    if only != "postgresql":
        code = measure()
    if only != "sqlite":
        with postgres(configured) as environment:
            if environment:
                os.environ.update(environment)
                code = measure() or code
            else:
                print("PostgreSQL is not on this machine", flush=True)
    return code


@contextmanager
def postgres(configured: str) -> Iterator[dict[str, str]]:
    """What names a PostgreSQL that syncs its commits; nothing where there is none."""
    if configured.startswith("postgres"):
        yield {"DATABASE_URL": configured}
        return
    with services.durable_postgres() as found:
        secret = {"OPSCENTER_SECRET_KEY": secrets.token_hex(32), "OPSCENTER_REGISTRY_PASSWORD": secrets.token_hex(8)}
        key = {"OPSCENTER_ENCRYPTION_KEYS": Fernet.generate_key().decode()}
        if found:
            wait_for(found["TEST_POSTGRES_URL"])
        yield {"DATABASE_URL": found["TEST_POSTGRES_URL"], **secret, **key} if found else {}


def wait_for(address: str) -> None:
    """Until a server that listens also takes connections. Raises `SystemExit` after 20 seconds."""
    for _ in range(200):
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("PostgreSQL did not start")


def measured(arguments: list[str]) -> int:
    """Measures on the configured database, with limits that a benchmark does not meet."""
    limits = {"OPSCENTER_EDGE_CALLS_PER_MINUTE": "1000000", "OPSCENTER_EDGE_ADDRESS_CALLS_PER_MINUTE": "1000000"}
    with own_database() as environment:
        command = [sys.executable, "-c", MEASURE, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment | limits, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
