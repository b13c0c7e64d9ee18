"""All targets of the log store but those of ingest, met or missed: `python -m bench.logs.targets [--quick]`.

Works on a database of its own beside the configured one, SQLite or PostgreSQL. Rates of JSONB, which need PostgreSQL,
are left out on SQLite. `--quick` has a fifth of the rows; its times are held to a fifth of the targets where they grow
with the rows. A quiet machine is needed for figures worth quoting.
"""

import argparse
import subprocess
import sys

from bench.logs.ingest import ROOT, own_database

MEASURE = "import django; django.setup(); from bench.logs import measure_targets; measure_targets.main()"


def main() -> int:
    """0 when all was measured, also where targets were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.parse_args()
    with own_database() as environment:
        command = [sys.executable, "-c", MEASURE, *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
