"""Whether a page takes as long with 10,000 edges, pipelines, versions or rows as with 10.

    python -m bench.pages [--only sqlite|postgresql]

On SQLite, then on PostgreSQL: the configured one, or one of its own where it is installed. Works on databases of its
own and removes them. Each page is asked for with few and with many things in turns, in one process and without a
network; a line tells the medians, ratios and queries. "Counted anew" are the figures above a list, which are kept for
some seconds elsewhere.
"""

import argparse
import os
import subprocess
import sys

from bench.logs.ingest import ROOT, own_database, postgres

MEASURE = "import django; django.setup(); from bench.pages import measure; raise SystemExit(measure.main())"


def main() -> int:
    """0 when no page takes more than one and a half times as long."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    only = parser.parse_args().only
    configured = os.environ.pop("DATABASE_URL", "")
    code = 0
    if only != "postgresql":
        code = measured()
    if only != "sqlite":
        with postgres(configured) as environment:
            if environment:
                os.environ.update(environment)
                code = measured() or code
            else:
                print("PostgreSQL is not on this machine", flush=True)
    return code


def measured() -> int:
    """Measures on the configured database."""
    with own_database() as environment:
        static = {"OPSCENTER_STATIC": f"{environment['OPSCENTER_DATA']}/static"}
        return subprocess.run(
            [sys.executable, "-c", MEASURE], cwd=ROOT, env=environment | static, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
