"""`POST /api/v1/pipeline-versions/<id>/infer`: the engine's answer, and what is refused."""

import contextlib
import fcntl
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rest_framework.test import APIClient

from catalog.models import ModelVersion, PipelineVersion, User
from logs.models import LogPage
from publishing.oci.packages import Package
from trials import operations, running

pytestmark = pytest.mark.django_db
Api = Callable[..., APIClient]

# The bounds are set from outside, a moment after the start: the last of them is awaited.
BOUND = """
import os, resource, time
while resource.getrlimit(resource.RLIMIT_CORE)[1]: time.sleep(0.01)
"""
STARTS_ANOTHER = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "600"])
open({path!r} + ".new", "w").write(str(child.pid))
os.rename({path!r} + ".new", {path!r})
time.sleep(600)
"""
RECORDS = b'[{"tensor": [1, 2, 3]}, {"tensor": [0.5, 0, 0]}]'


def send(client: APIClient, version: PipelineVersion, body: bytes = RECORDS, kind: str = "application/json") -> Any:
    return client.generic("POST", f"/api/v1/pipeline-versions/{version.pk}/infer", body, content_type=kind)


def stands_in(settings: Any, tmp_path: Path, script: str) -> None:
    """Another program than the engine, for what the engine must not be able to do."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    settings.ENGINE_COMMAND = [str(program)]


def left(folder: Path) -> list[Path]:
    return list(folder.glob("run-*"))


def test_a_version_that_was_never_published_answers(
    version: PipelineVersion, member: User, api: Api, folder: Path
) -> None:
    answer = send(api(member), version)
    assert answer.status_code == 200, answer.content
    assert [record["out"] for record in answer.json()] == [{"y": [12.0]}, {"y": [1.0]}]
    assert answer.json()[0]["metadata"]["pipeline_version"] == str(version.uuid)
    assert not left(folder)
    assert not LogPage.objects.exists()


def test_arrow_is_taken_too(version: PipelineVersion, member: User, api: Api) -> None:
    table = pa.table({"tensor": pa.array([[1, 2, 3]], pa.list_(pa.float32(), 3))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    answer = send(api(member), version, sink.getvalue().to_pybytes(), "application/vnd.apache.arrow.file")
    assert [record["out"] for record in answer.json()] == [{"y": [12.0]}]


@pytest.mark.parametrize(
    ("body", "status", "code", "told"),
    [
        (b'[{"tensor": [1, 2]}]', 400, "request_refused", "tensor"),
        (b"[{", 400, "request_refused", "JSON"),
        (b" ", 400, "invalid", "empty"),
        (b"[" + b" " * 2**20 + b"]", 413, "too_large", "1048576"),
    ],
)
def test_what_no_engine_would_take_is_refused_in_its_words(
    version: PipelineVersion, member: User, api: Api, folder: Path, body: bytes, status: int, code: str, told: str
) -> None:
    answer = send(api(member), version, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content
    assert told in answer.json()["message"]
    assert str(folder) not in answer.json()["message"]
    assert not left(folder)


def test_a_model_that_cannot_be_loaded_is_told(
    make_version: Callable[..., PipelineVersion], member: User, api: Api
) -> None:
    answer = send(api(member), make_version(b"this is no model"))
    assert (answer.status_code, answer.json()["code"]) == (409, "trial_failed")
    assert "house-price" in answer.json()["message"]


def test_uploaded_code_is_not_run_in_the_center(
    make_version: Callable[..., PipelineVersion], member: User, api: Api
) -> None:
    answer = send(api(member), make_version(framework="python"))
    assert (answer.status_code, answer.json()["code"]) == (409, "not_tried")
    assert "on edges only" in answer.json()["message"]


def test_models_that_are_not_ready_are_told(
    make_version: Callable[..., PipelineVersion], member: User, api: Api
) -> None:
    answer = send(api(member), make_version(status=ModelVersion.Status.ERROR, error="It is no ONNX file."))
    assert (answer.status_code, answer.json()["code"]) == (409, "not_tried")
    assert "It is no ONNX file." in answer.json()["message"]


def test_a_center_without_an_engine_says_so(version: PipelineVersion, member: User, api: Api, settings: Any) -> None:
    settings.ENGINE_COMMAND = []
    assert "pip install ./engine" in send(api(member), version).json()["message"]
    settings.TRIALS_AT_ONCE = 0
    assert "switched off" in send(api(member), version).json()["message"]


def test_collaborators_try_and_others_do_not(
    version: PipelineVersion, viewer: User, stranger: User, api: Api, settings: Any
) -> None:
    settings.ENGINE_COMMAND = ["/must-not-be-run"]
    assert send(api(viewer), version).status_code == 403
    assert send(api(stranger), version).status_code == 404
    assert send(api(), version).status_code == 401


def test_no_more_run_at_once_than_may(
    version: PipelineVersion, member: User, api: Api, settings: Any, folder: Path
) -> None:
    settings.TRIALS_AT_ONCE = 1
    folder.mkdir()
    with (folder / "turn-0").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = send(api(member), version)
        assert (answer.status_code, answer.json()["code"]) == (429, "trials_busy")
        assert answer["Retry-After"] == "5"
    assert send(api(member), version).status_code == 200


def test_one_that_does_not_end_is_killed_with_what_it_started(
    version: PipelineVersion, member: User, api: Api, settings: Any, tmp_path: Path, folder: Path
) -> None:
    child = tmp_path / "child"
    stands_in(settings, tmp_path, STARTS_ANOTHER.format(path=str(child)))
    settings.TRIAL_SECONDS = 8
    answer = send(api(member), version)
    assert (answer.status_code, answer.json()["code"]) == (409, "trial_failed")
    assert "within 8 seconds" in answer.json()["message"]
    assert not left(folder)
    assert is_gone(int(child.read_text()))


def is_gone(pid: int) -> bool:
    """Whether the process ends: it is dead at once, and taken away by whoever inherits it."""
    for _ in range(600):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_one_that_takes_too_much_memory_is_ended(
    version: PipelineVersion, member: User, api: Api, settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(running, "MEMORY", 256 * 2**20)
    stands_in(settings, tmp_path, BOUND + "bytearray(512 * 2**20)")
    answer = send(api(member), version)
    assert (answer.status_code, answer.json()["code"]) == (409, "trial_failed")
    assert "more memory or time" in answer.json()["message"]


def test_an_answer_beyond_all_bounds_is_cut_off(
    version: PipelineVersion, member: User, api: Api, settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(running, "LARGEST_ANSWER", 2**20)
    stands_in(settings, tmp_path, BOUND + "while True: os.write(1, b'x' * 65536)")
    answer = send(api(member), version)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_nothing_of_the_center_is_in_its_environment(
    version: PipelineVersion, member: User, api: Api, settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OPSCENTER_SECRET_KEY", "do not tell")
    stands_in(settings, tmp_path, "import json, os\nprint(json.dumps([dict(os.environ)]))")
    told = send(api(member), version).json()[0]
    assert not [name for name in told if name.startswith(("OPSCENTER", "DJANGO", "DATABASE", "OCI"))]
    assert told["HOME"] == told["TMPDIR"] != os.environ.get("HOME")


def test_what_a_killed_process_left_is_swept(version: PipelineVersion, member: User, api: Api, folder: Path) -> None:
    old, young = folder / "run-old", folder / "run-young"
    for one in (old, young):
        (one / "pipeline").mkdir(parents=True)
    os.utime(old, (1, 1))
    assert send(api(member), version).status_code == 200
    assert left(folder) == [young]


def test_the_model_file_stays_as_it_is(version: PipelineVersion, member: User, api: Api) -> None:
    package = operations.artifact.build(operations.queries.content_of(version), "trials")
    before = contents(package)
    assert send(api(member), version).status_code == 200
    assert contents(package) == before


def contents(package: Package) -> list[bytes]:
    found = []
    for blob in package.blobs:
        with contextlib.closing(blob.open()) as source:
            found.append(source.read())
    return found
