"""Fuzzing of a running engine: `python -m bench.fuzz --minutes 10 --start 0`.

Sends the numbered requests of engine/tests/fuzzing.py, tells each that did harm, and exits 1 if one did. A number that
is told goes into a test: `fuzzing.request(number)`.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from engine.tests import fuzzing
from engine.tests.conftest import EngineProcess
from engine.tests.fakes import models
from engine.tests.fakes.registry import FakeRegistry, publish

TOLD_SECONDS = 30.0


def main() -> int:
    """Fuzz until the time is over or the engine is gone."""
    parser = argparse.ArgumentParser(prog="bench.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--start", type=int, default=0, help="number of the first request")
    options = parser.parse_args()
    registry = FakeRegistry()
    part = ("by-two", "m1", models.scale(2.0), ["tensor"])
    url, _ = publish(registry, "scale", "3b49fba8-94d8-4fca-aecc-c75257fd16c6", [part])
    number, harms, end = options.start, 0, time.monotonic() + options.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        engine = EngineProcess(Path(folder), PIPELINE_URL=url).start().ready(60)
        said = time.monotonic()
        try:
            while time.monotonic() < end:
                told = fuzzing.harm(engine.port, number)
                number += 1
                if told:
                    harms += 1
                    print(told, flush=True)
                if time.monotonic() - said > TOLD_SECONDS:
                    said = time.monotonic()
                    print(f"{number - options.start} requests", flush=True)
            is_alive = engine.get("/healthz")[0] == 200
        finally:
            engine.stop()
            registry.stop()
        failed = harms or not is_alive or "Traceback" in engine.log
    print(f"{number - options.start} requests, {harms} did harm, the engine is {'alive' if is_alive else 'gone'}.")
    print("FAILED" if failed else "PASSED")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
