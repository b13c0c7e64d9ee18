"""What set-up says when it cannot go on: one line, and what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the scripts of a fresh clone, not set up."""
    shutil.copytree(ROOT / "scripts", tmp_path / "clone/scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "clone"


def set_up(clone: Path, **environment: str) -> list[str]:
    """The refusal's lines, without those that tell of progress."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.setup"], cwd=clone, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return [line for line in done.stderr.splitlines() if not line.startswith("setup: ")]


def find_python(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "scripts/find-python"], env=environment, capture_output=True, text=True)


def test_python_of_this_test_is_found() -> None:
    done = find_python(PYTHON=sys.executable, PATH=os.environ["PATH"])
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, sys.executable, "")


def test_no_python_is_one_line(tmp_path: Path) -> None:
    done = find_python(PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "opscenter: no Python of version 3.11 or newer was found: install one, or name it with PYTHON=/path/to/python3."
    ]


def test_wrong_python_is_one_line() -> None:
    done = find_python(PYTHON="/bin/false", PATH=os.environ["PATH"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "opscenter: PYTHON=/bin/false is not a Python of version 3.11 or newer.\n"


def test_python_without_venv_is_one_line(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError('as on a Debian without python3-venv')")
    (line,) = set_up(clone, PATH=os.environ["PATH"], PYTHONPATH=str(tmp_path))
    assert line.startswith("opscenter: ")
    assert "cannot make virtual environments" in line
    assert "python3-venv" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written_is_one_line(clone: Path) -> None:
    clone.chmod(0o555)
    (line,) = set_up(clone, PATH=os.environ["PATH"])
    assert line == f"opscenter: {clone} cannot be written: be its owner, or clone the repository elsewhere."
