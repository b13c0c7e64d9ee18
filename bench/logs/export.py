"""How fast rows are exported, and how much memory that takes, which must not grow with the rows.

    python -m bench.logs.export [--rows 10000000] [--formats arrow parquet json] [--json]

Four edges that infer at the same time, on a database of its own beside the configured one. The first tenth of the rows
is exported first; the peak of memory after it is what the peak after the whole is compared with. `--json` prints the
figures as one line of JSON at the end.
"""

import argparse
import subprocess
import sys

from bench.logs.ingest import ROOT, own_database

FILL = "import django; django.setup(); from bench.logs import exporting; exporting.fill()"
MEASURE = "import django; django.setup(); from bench.logs import exporting; exporting.main()"


def main() -> int:
    argparse.ArgumentParser(description=__doc__, add_help=True).parse_known_args()
    with own_database() as environment:
        for code in (FILL, MEASURE):  # apart, because making rows takes memory too
            command = [sys.executable, "-c", code, *sys.argv[1:]]
            if failed := subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
                return failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
