"""Fuzzing led by coverage (`python -m bench.fuzz`) for a fixed number of inputs; and that it finds what is there."""

import importlib.util
import os
import subprocess
import sys

import pytest

from engine.tests.conftest import ROOT

RUNS = {"bodies": 1500, "lines": 2000}
WAIT_SECONDS = 600  # a stand-still of the machine is no harm; inputs are bounded by their own CPU time

guided = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not on this machine: it is for Linux on x86-64"
)


def fuzz(*words):
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "engine" / "src")))}
    command = [sys.executable, "-m", "bench.fuzz", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


@guided
@pytest.mark.parametrize("target", RUNS)
def test_no_input_does_harm(tmp_path, target):
    code, told = fuzz(target, "--runs", RUNS[target], "--seed", 7, "--crashes", tmp_path)
    assert (code, list(tmp_path.iterdir())) == (0, []), told[-4000:]
    assert f"Done {RUNS[target]} runs" in told


@guided
@pytest.mark.parametrize("target", RUNS)
def test_planted_fault_is_found_and_found_again_alone(tmp_path, target):
    code, told = fuzz(target, "--runs", RUNS[target], "--seed", 7, "--crashes", tmp_path, "--planted")
    (found,) = tmp_path.iterdir()
    assert (code, "the planted fault" in told) == (1, True), told[-4000:]
    code, told = fuzz(target, found, "--planted")
    assert (code, "the planted fault" in told) == (1, True), told[-4000:]
