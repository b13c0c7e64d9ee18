"""`opsengine infer`: one request is answered out of a folder, and nothing else happens."""

import os
import subprocess
import sys

import orjson
import pyarrow as pa

from engine.tests.conftest import ROOT
from engine.tests.test_included_pipeline import folder  # noqa: F401 a fixture

RECORDS = b'[{"tensor": [1.0, 2.0]}]'
TABLE = pa.table({"tensor": [[1.0, 2.0]]})


def run(*arguments, stdin=b""):
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "engine/src")}
    command = [sys.executable, "-m", "opsengine", "infer", *map(str, arguments)]
    done = subprocess.run(command, env=env, input=stdin, capture_output=True, check=False, timeout=60)
    assert b"Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr.decode()


def test_it_answers_what_comes_from_stdin_or_a_file(folder, tmp_path):  # noqa: F811
    (tmp_path / "records.json").write_bytes(RECORDS)
    with pa.ipc.new_file(tmp_path / "records.arrow", TABLE.schema) as writer:
        writer.write_table(TABLE)
    files = [tmp_path / "records.json", tmp_path / "records.arrow"]
    for code, answer, _ in (run(folder, stdin=RECORDS), *(run(folder, file) for file in files)):
        assert code == 0
        assert [record["out"] for record in orjson.loads(answer)] == [{"y": [2.0, 4.0]}]


def test_a_request_that_is_refused_is_told_by_its_own_code(folder):  # noqa: F811
    code, answer, said = run(folder, stdin=b"[{")
    assert (code, answer) == (3, b"")
    assert said.startswith("opsengine: ") and "JSON" in said


def test_a_folder_without_a_pipeline_is_told(tmp_path):
    code, answer, said = run(tmp_path, stdin=RECORDS)
    assert (code, answer) == (1, b"")
    assert "manifest.json cannot be read" in said


def test_a_damaged_pipeline_is_told(folder):  # noqa: F811
    path = next((folder / "models").rglob("*.onnx"))
    path.write_bytes(path.read_bytes() + b"x")
    code, _, said = run(folder, stdin=RECORDS)
    assert code == 1
    assert "is not the file that was published" in said


def test_a_request_that_cannot_be_read_is_told(folder, tmp_path):  # noqa: F811
    code, _, said = run(folder, tmp_path / "nothing")
    assert code == 2
    assert "cannot be read" in said
