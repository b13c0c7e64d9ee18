"""Whether a page takes as long with 10,000 edges, pipelines, versions or rows as with 10.

    python -m bench.pages [--only sqlite|postgresql]

On SQLite, then on PostgreSQL: the configured one, or one of its own where it is installed. Works on databases of its
own and removes them. Each page is asked for with few and with many things in turns, in one process and without a
network; a line tells the medians, ratios and queries. "Counted anew" are the figures above a list, which are kept for
some seconds elsewhere.
"""

import argparse
import subprocess
import sys

from bench.logs.ingest import ROOT, on_databases, own_database

MEASURE = "import django; django.setup(); from bench.pages import measure; raise SystemExit(measure.main())"


def main() -> int:
    """0 when no page takes more than one and a half times as long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    return on_databases(parser.parse_args().only, measured)


def measured() -> int:
    """Measures on the configured database."""
    with own_database() as environment:
        static = {"OPSCENTER_STATIC": f"{environment['OPSCENTER_DATA']}/static"}
        return subprocess.run(
            [sys.executable, "-c", MEASURE], cwd=ROOT, env=environment | static, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
