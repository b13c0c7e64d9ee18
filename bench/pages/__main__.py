"""Whether a page takes as long with 10,000 edges, pipelines, versions or rows as with 10.

    python -m bench.pages

Works on a database of its own beside the configured one (`DATABASE_URL`, else SQLite). Each page is asked for with few
and with many things in turns, in one process and without a network; a line tells the medians, ratios and queries.
"""

import subprocess
import sys

from bench.logs.ingest import ROOT, own_database

MEASURE = "import django; django.setup(); from bench.pages import measure; raise SystemExit(measure.main())"


def main() -> int:
    """0 when no page takes more than one and a half times as long."""
    with own_database() as environment:
        return subprocess.run([sys.executable, "-c", MEASURE], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
