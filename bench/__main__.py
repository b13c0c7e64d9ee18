"""Runs the benchmarks one after another: `make bench`, or `python -m bench logs engine`. Each prints ratios of one run.

What they print also goes to var/bench/<name>.txt. A quiet machine is needed for figures worth quoting.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "var/bench"
MODULES = {
    "logs": "bench.logs.ingest",
    "segments": "bench.logs.segments",
    "log-targets": "bench.logs.targets",
    "charts": "bench.logs.charts",
    "pages": "bench.pages",
    "export": "bench.logs.export",
    "publish": "bench.publish.run",
    "engine": "bench.engine",
    "fleet": "bench.fleet",
    "soak": "bench.soak",
}
DEFAULT = [name for name in MODULES if name != "soak"]  # which takes ten minutes and has no ratio


def main() -> int:
    """0 when every benchmark ran to its end."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(MODULES)}; without one: {', '.join(DEFAULT)}"
    )
    names = parser.parse_args().names or DEFAULT
    if unknown := set(names) - MODULES.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    return max([run(name) for name in names])


def run(name: str) -> int:
    """One benchmark, to the terminal and to its file; its exit code."""
    print(f"== {name}", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", MODULES[name]], cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdout
    with (RESULTS / f"{name}.txt").open("w", encoding="utf-8") as result:
        for line in process.stdout:
            print(line, end="", flush=True)
            result.write(line)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
