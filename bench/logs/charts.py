"""How fast charts open over 100 M rows, and how fast rows are rolled up.

    python -m bench.logs.charts

Works on a database of its own beside the configured one. The rollups of 100 M rows are made up: as many, and as large,
as 20 edges leave behind that infer for 400 days. A chart reads what has become of rows, never the rows.
"""

import subprocess
import sys

from bench.logs.ingest import ROOT, own_database

MEASURE = "import django; django.setup(); from bench.logs import measure_charts; measure_charts.main()"


def main() -> int:
    with own_database() as environment:
        return subprocess.run([sys.executable, "-c", MEASURE], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
