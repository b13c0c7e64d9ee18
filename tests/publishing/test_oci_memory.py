"""A model larger than memory allows is sent all the same."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fakes.oci import FakeRegistry

SIZE = 300 * 1024 * 1024
PUSH = """
import re, sys
from publishing.oci import blobs
from publishing.oci.blobs import Blob
from publishing.oci.client import Client, Registry
def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s*(\\d+) kB", file.read())[1])
host, path, digest, size = sys.argv[1:]
blob = Blob(digest, int(size), "x/y", "model.onnx", lambda: open(path, "rb"))
with Client(Registry(host, plain_http=True)) as client:
    client.log_in("ml/a")
    before = peak()
    blobs.push_all(client, "ml/a", [blob], lambda more: None)
    after = peak()
assert "django" not in sys.modules, "the client must not need Django"
print(before, after)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's peak of memory")
def test_memory_does_not_grow_with_the_model(fake: FakeRegistry, tmp_path: Path):
    path = tmp_path / "model"
    with path.open("wb") as file:
        file.truncate(SIZE)
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    done = subprocess.run(
        [sys.executable, "-c", PUSH, fake.host, str(path), digest, str(SIZE)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    before, after = (int(number) for number in done.stdout.split())
    assert digest in fake.blobs["ml/a"] and fake.blob_bytes() == SIZE
    assert after - before < 20_000, f"{(after - before) / 1024:.0f} MiB more for a model of 300 MiB"
    assert after < 60_000, "KiB"
