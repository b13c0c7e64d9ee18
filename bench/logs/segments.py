"""How fast pages become segments, what a row takes there, and how fast the newest rows are read however many there are.

    python -m bench.logs.segments

Works on a database of its own beside the configured one. The manifest of 100,000 segments (of a million rows each) is
made up but for the newest: a read looks at the manifest of all, and opens the files of few.
"""

import subprocess
import sys

from bench.logs.ingest import ROOT, own_database

MEASURE = "import django; django.setup(); from bench.logs import measure_segments; measure_segments.main()"


def main() -> int:
    with own_database() as environment:
        return subprocess.run([sys.executable, "-c", MEASURE], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
