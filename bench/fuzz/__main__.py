"""Fuzzing of the engine: `python -m bench.fuzz bodies --seconds 300`.

    bodies      requests into the engine's addresses, in one process, led by coverage (atheris)
    lines       bytes into its HTTP, cut into pieces, led by coverage
    requests    the numbered requests of engine/tests/fuzzing.py to an engine that runs, as a process

Exits 1 if one did harm: an exception, a 5xx, an answer that is not documented or cannot be read, one that another time
is another, more than 5 s of CPU or 192 MiB. The input is then a file in var/fuzz: `python -m bench.fuzz bodies FILE`
sends it alone, which needs no atheris. For `requests` a number is told: `fuzzing.request(number)`.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.fuzz import targets
from engine.tests import fuzzing
from engine.tests.conftest import ROOT, EngineProcess
from engine.tests.fakes import models
from engine.tests.fakes.registry import FakeRegistry, publish

NEEDS = "requirements-dev.txt has it for CPython 3.11 to 3.13 on Linux, x86-64"
CRASHES = ROOT / "var" / "fuzz"
TOLD_SECONDS = 30.0
HUNG_SECONDS = 300  # by the clock, for what waits; what computes is stopped by its CPU time
LARGEST = 8192  # bytes of an input


def main() -> int:
    """0 when nothing did harm."""
    options = _options()
    if options.target == "requests":
        return _requests(options)
    return _replay(options) if options.files else _guided(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=["bodies", "lines", "requests"])
    parser.add_argument("files", nargs="*", type=Path, help="inputs that did harm, to be sent again")
    parser.add_argument("--runs", type=int, help="inputs to try; without --runs and --seconds, 10,000")
    parser.add_argument("--seconds", type=int, help="end after so long")
    parser.add_argument("--seed", type=int, default=1, help="the same seed tries the same inputs")
    parser.add_argument("--start", type=int, default=0, help="requests: number of the first")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what was found interesting")
    parser.add_argument("--crashes", type=Path, default=CRASHES, help="where inputs that did harm go")
    parser.add_argument("--planted", action="store_true", help="with a fault in the engine, to see that it is found")
    options = parser.parse_args()
    if options.runs is None and options.seconds is None:
        options.runs = 10_000
    return options


def _guided(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("atheris") is None:
        sys.exit(
            "bench.fuzz: atheris is not installed (it is for CPython 3.11 to 3.13 on Linux, x86-64): `make setup`."
        )
    name = options.target + (targets.PLANTED if options.planted else "")
    options.crashes.mkdir(parents=True, exist_ok=True)
    known = set(options.crashes.iterdir())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        corpus = options.corpus or folder / "corpus"
        for path in (corpus, folder / "seeds"):
            path.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(targets.seeds(name)):
            (folder / "seeds" / f"{number:03}").write_bytes(seed)
        (folder / "words").write_text(targets.words(name))
        limits = [f"-runs={-1 if options.runs is None else options.runs}", f"-max_total_time={options.seconds or 0}"]
        flags = [f"-seed={options.seed}", f"-max_len={LARGEST}", f"-timeout={HUNG_SECONDS}", "-reload=0"]
        flags += [f"-report_slow_units={HUNG_SECONDS}", *limits]
        places = [f"-dict={folder / 'words'}", f"-artifact_prefix={options.crashes}/", corpus, folder / "seeds"]
        command = [sys.executable, "-m", "bench.fuzz.guided", name, *flags, *places]
        # The order of sets is a part of what a seed repeats.
        env = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'engine' / 'src'}"}
        code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    for path in sorted(set(options.crashes.iterdir()) - known):
        print(f"did harm: {path}")
    return _verdict(failed=code != 0)


def _replay(options: argparse.Namespace) -> int:
    target = targets.make(options.target + (targets.PLANTED if options.planted else ""))
    for path in options.files:
        target(path.read_bytes())
    return _verdict(failed=False)


def _requests(options: argparse.Namespace) -> int:
    registry = FakeRegistry()
    part = ("by-two", "m1", models.scale(2.0), ["tensor"])
    url, _ = publish(registry, "scale", "3b49fba8-94d8-4fca-aecc-c75257fd16c6", [part])
    number, harms, end = options.start, 0, time.monotonic() + (options.seconds or 1e9)
    with tempfile.TemporaryDirectory() as folder:
        engine = EngineProcess(Path(folder), PIPELINE_URL=url).start().ready(60)
        said = time.monotonic()
        try:
            while time.monotonic() < end and number - options.start != options.runs:
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
    return _verdict(failed=bool(failed))


def _verdict(*, failed: bool) -> int:
    print("FAILED" if failed else "PASSED")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
