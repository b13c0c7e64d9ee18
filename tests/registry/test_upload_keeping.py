"""What uploads leave on the disk, and what happens when the disk, the process or another client gets in the way."""

import errno
import fcntl
import io
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from registry import jobs, tasks, uploads
from registry.running_hashes import RunningHashes

CONTENT = b"0123456789" * 1000


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def root(settings: Any) -> Path:
    return settings.REGISTRY_ROOT


def test_other_process_checks_the_digest_too(robot: Any, sha256: Any, codes: Any, monkeypatch: Any) -> None:
    # A process that did not receive the first bytes knows no running hash of them.
    for digest, status in ((sha256(CONTENT), 201), (sha256(b"other"), 400)):
        location = robot.patch(robot.begin(), CONTENT[:5000])["Location"]
        monkeypatch.setattr(uploads, "_hashes", RunningHashes())
        robot.patch(location, CONTENT[5000:])
        assert robot.call("PUT", f"{location}?digest={digest}").status_code == status


def test_running_hash_of_other_bytes_is_not_used(robot: Any, sha256: Any, root: Path) -> None:
    location = robot.patch(robot.begin(), CONTENT[:5000])["Location"]
    # Another process appended in the meantime.
    (upload,) = files(root / "uploads")
    with upload.open("ab") as file:
        file.write(CONTENT[5000:6000])
    robot.patch(location, CONTENT[6000:], f"6000-{len(CONTENT) - 1}")
    assert robot.call("PUT", f"{location}?digest={sha256(CONTENT)}").status_code == 201


def test_forgotten_running_hashes_do_no_harm() -> None:
    hashes = RunningHashes()
    for number in range(300):
        hashes.keep(str(number), 1, Any)
    assert hashes.take("0", 1) is None
    assert hashes.take("299", 2) is None
    assert hashes.take("298", 1) is Any


def test_upload_in_use_is_refused_to_others(robot: Any, codes: Any, root: Path, sha256: Any) -> None:
    location = robot.patch(robot.begin(), CONTENT)["Location"]
    (upload,) = files(root / "uploads")
    with upload.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for answer in (
            robot.patch(location, b"more"),
            robot.call("PUT", f"{location}?digest={sha256(CONTENT)}"),
            robot.call("DELETE", location),
        ):
            assert answer.status_code == 409
            assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
        assert jobs.sweep_uploads(timedelta(seconds=-60)) == 0
    assert robot.call("PUT", f"{location}?digest={sha256(CONTENT)}").status_code == 201


def test_upload_left_by_a_crash_never_writes_into_its_blob(robot: Any, root: Path, sha256: Any) -> None:
    location = robot.patch(robot.begin(), CONTENT)["Location"]
    (upload,) = files(root / "uploads")
    # Killed between showing the blob and removing the upload: one file, two names.
    blob = root / "repositories/site/app/_blobs/sha256" / sha256(CONTENT).removeprefix("sha256:")
    blob.parent.mkdir(parents=True)
    blob.hardlink_to(upload)
    assert robot.patch(location, b"more").status_code == 404
    assert robot.call("GET", f"site/app/blobs/{sha256(CONTENT)}").getvalue() == CONTENT
    assert not upload.exists()


def test_sweep_removes_only_what_is_old(robot: Any, root: Path) -> None:
    old = robot.begin()
    (old_file,) = files(root / "uploads")
    half_written = root / "uploads/write-1"
    half_written.touch()
    for path in (old_file, half_written):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    young = robot.begin()
    digest = robot.push_blob(CONTENT)
    assert jobs.sweep_uploads(timedelta(hours=1)) == 2
    assert robot.call("GET", old).status_code == 404
    assert robot.call("GET", young).status_code == 204
    assert robot.call("HEAD", f"site/app/blobs/{digest}").status_code == 200


def test_beat_task_sweeps_after_a_day(robot: Any, root: Path) -> None:
    location = robot.begin()
    (upload,) = files(root / "uploads")
    for hours, status in ((23, 204), (25, 404)):
        os.utime(upload, (time.time() - hours * 3600,) * 2)
        tasks.sweep_uploads()
        assert robot.call("GET", location).status_code == status


def test_sweep_before_the_first_push_is_no_error(root: Path) -> None:
    assert jobs.sweep_uploads(timedelta(hours=1)) == 0


def test_many_uploads_of_one_blob_at_once(robot: Any, sha256: Any, root: Path) -> None:
    digest = sha256(CONTENT)
    statuses: Counter[int] = Counter()
    start = threading.Barrier(8)

    def push(number: int) -> None:
        name = f"site/app{number % 2}"
        location = robot.begin(name)
        start.wait()
        robot.patch(location, CONTENT)
        statuses[robot.call("PUT", f"{location}?digest={digest}").status_code] += 1
        robot.call("DELETE", f"{name}/blobs/{digest}")
        statuses[robot.call("POST", f"{name}/blobs/uploads/?digest={digest}", CONTENT).status_code] += 1

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {201: 16}
    assert files(root / "uploads") == []
    for name in ("site/app0", "site/app1"):
        assert robot.call("GET", f"{name}/blobs/{digest}").getvalue() == CONTENT


def test_blob_with_too_many_names_gets_a_copy(robot: Any, monkeypatch: Any, root: Path) -> None:
    digest = robot.push_blob(CONTENT, "first")
    link = Path.hardlink_to

    def limited(self: Path, target: Path) -> None:
        if target.is_relative_to(root / "blobs"):
            raise OSError(errno.EMLINK, "Too many links")
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", limited)
    assert robot.call("POST", f"second/blobs/uploads/?mount={digest}").status_code == 202
    robot.push_blob(CONTENT, "second")
    assert robot.call("GET", f"second/blobs/{digest}").getvalue() == CONTENT


class Endless(io.RawIOBase):
    """A body without end: fills any disk."""

    def read(self, size: int = -1) -> bytes:
        return bytes(size)


@pytest.fixture
def small_disk(tmp_path: Path, settings: Any) -> Any:
    """The registry on a real filesystem of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    settings.REGISTRY_ROOT = folder / "registry"
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_507_and_leaves_nothing(small_disk: Path, robot: Any, codes: Any) -> None:
    location = robot.begin()
    answer = robot.call("PATCH", location, **{"wsgi.input": Endless(), "wsgi.input_terminated": True})
    assert answer.status_code == 507
    assert codes(answer) == ["INSUFFICIENT_STORAGE"]
    assert "disk is full" in answer.content.decode()
    assert files(small_disk) == []
    assert robot.call("GET", location).status_code == 404
    assert robot.push_blob(CONTENT)


def test_blob_that_cannot_fit_is_refused_at_once(small_disk: Path, robot: Any, sha256: Any) -> None:
    body = io.BytesIO(CONTENT)
    environ = {"CONTENT_LENGTH": str(1024**3), "wsgi.input": body}
    answer = robot.call("POST", f"site/app/blobs/uploads/?digest={sha256(CONTENT)}", **environ)
    assert answer.status_code == 507
    assert body.tell() == 0
    assert files(small_disk) == []


def test_manifest_on_a_full_disk_is_507_and_leaves_nothing(small_disk: Path, robot: Any, codes: Any) -> None:
    robot.push_artifact("v1")
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    before = set(files(small_disk))
    annotations = {"note": "x" * 100_000}
    answer = robot.push_manifest(
        robot.index_of(annotations=annotations), "v2", media_type=robot.index_of()["mediaType"]
    )
    assert answer.status_code == 507
    assert codes(answer) == ["INSUFFICIENT_STORAGE"]
    assert set(files(small_disk)) == before
    assert robot.call("GET", "site/app/manifests/v2").status_code == 404


def test_disk_that_fills_in_between_is_507(robot: Any, codes: Any, monkeypatch: Any, root: Path, sha256: Any) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    location = robot.begin()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = robot.call("PUT", f"{location}?digest={sha256(CONTENT)}", CONTENT)
        assert codes(answer) == ["INSUFFICIENT_STORAGE"]
        assert answer.status_code == 507
    assert files(root) == []
