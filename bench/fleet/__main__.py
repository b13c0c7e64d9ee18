"""A fleet of simulated edges with real keys against a real center: joins, check-ins, one publish replaced by a rollout.

    python -m bench.fleet [--edges 10000] [--database sqlite|postgres] [--seconds 20] [--rate 700] [--workers 1]

Starts what it needs (granian; PostgreSQL and Redis of this machine) and removes it. 5 % of the edges are away while the
publish is rolled out (canaries, a quarter, the rest, so many at once), 2 % cannot take it; in the end each must be
where it belongs. Beside wall time it tells CPU milliseconds a call, of each process, which other work moves less.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from scripts import services

ROOT = Path(__file__).resolve().parents[2]
RUN = "import django; django.setup(); from bench.fleet import run; raise SystemExit(run.main())"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--edges", type=int, help="10000, on SQLite 2000")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="postgres")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each measurement of check-ins lasts")
    parser.add_argument("--rate", type=int, default=700, help="check-ins a second of the paced measurement")
    parser.add_argument("--workers", type=int, default=1, help="granian's")
    given = parser.parse_args()
    given.edges = given.edges or (10_000 if given.database == "postgres" else 2000)
    with ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="opscenter-fleet-", ignore_cleanup_errors=True))
        port = services.free_port()
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "opscenter.settings",
            "OPSCENTER_DATA": data,
            "OPSCENTER_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "OPSCENTER_EDGE_JOINS_PER_MINUTE": "10000000",  # all edges come from one address here
            "OPSCENTER_EDGE_ADDRESS_CALLS_PER_MINUTE": "10000000",
            "OPSCENTER_LOG_LEVEL": "WARNING",
            "PORT": str(port),
        }
        if given.database == "postgres":
            found = stack.enter_context(services.running())
            environment |= {"DATABASE_URL": found["TEST_POSTGRES_URL"], "REDIS_URL": found["TEST_REDIS_URL"]}
        words = [f"--{name}={value}" for name, value in vars(given).items()]
        command = [sys.executable, "-c", RUN, *words]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
