"""How little memory the engine holds, and that it gives back what is free."""

import gc
import importlib.util
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from engine.tests.conftest import ROOT
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_main_job import V1
from opsengine.plane import DataPlane

PROMISED = 150 * 2**20  # before users' models
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
FREES = """
import resource
from opsengine import memory
memory.be_frugal()
held = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
pieces = [bytearray(100_000) for _ in range(1000)]
top = [bytearray(1000) for _ in range(1000)]
full = held()
pieces.clear()
memory.give_back()
print(full - held())
"""
PANDAS = """
from opsengine import memory
memory.be_frugal()
import pyarrow, sys
pyarrow.array([1.0])
try:
    import pandas
except ImportError as error:
    print(error)
assert "pandas" not in sys.modules
"""


def told_by(program):
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "engine" / "src")}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@LINUX
def test_engine_that_served_and_logged_holds_what_is_promised(start_engine, registry):
    url, _ = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    engine = start_engine(PIPELINE_URL=url).ready()
    for _ in range(20):
        assert engine.post("/infer", [{"tensor": [1.0, 2.0]}] * 100)[0] == 200
    assert len(engine.post("/logs", {"limit": 10})[1]) == 10  # written down, by way of Arrow
    folder = Path(f"/proc/{engine._process.pid}")
    (kilobytes,) = re.findall(r"^Pss:\s+(\d+) kB", (folder / "smaps_rollup").read_text(), re.M)
    assert int(kilobytes) * 1024 < PROMISED
    assert "/pandas/" not in (folder / "maps").read_text()


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="pandas is not installed")
def test_pandas_is_not_loaded_where_it_is_installed():
    assert "does without pandas" in told_by(PANDAS)


@LINUX
@pytest.mark.skipif(not sys.platform.startswith("linux") or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"),
                    reason="needs glibc")  # fmt: skip
def test_freed_memory_goes_back_to_the_system():
    assert int(told_by(FREES)) > 80_000_000


def test_pipeline_that_was_swapped_out_is_let_go(load_pipeline):
    plane = DataPlane(lambda _: None, 2**20)
    plane.swap(load_pipeline(("by-two", "m1", models.scale(2.0), ["tensor"])))
    plane.infer(b'[{"tensor": [1.0, 2.0]}]', "application/json", as_arrow=False)
    before = weakref.ref(plane._current._parts[0])
    plane.swap(load_pipeline(("by-nine", "m2", models.scale(9.0), ["tensor"])))
    gc.collect()
    assert before() is None
