"""`verify` and `status` run by a user who may not read what the engine keeps: it is not called damaged."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.tests.conftest import ROOT, free_port
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_main_job import V1, start_joined
from opsengine import privileges, state
from opsengine.store import ContentStore

ENGINE, NOBODY = 10001, 65534
KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
ROOTS = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
# Imports first: the other user may not reach this installation. Folders above the test's own neither, so PERSIST_DIR is
# told from there.
PROGRAM = """
import encodings.idna, os, sys
from opsengine import cli
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture
def run(tmp_path):
    """Run a command as a user; returns code, stdout, stderr."""
    tmp_path.chmod(0o755)

    def call(user, *arguments, **env):
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "engine/src"), "PERSIST_DIR": "persist", **env}
        command = [sys.executable, "-c", PROGRAM, str(user), *arguments]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def kept(start_engine, registry, center, tmp_path):
    """PERSIST_DIR of a user, as an engine left it that was joined, served and logged."""
    engine = start_joined(start_engine, registry, center)
    engine.post("/infer", [{"tensor": [1.0, 2.0]}] * 3)
    engine.stop()
    return given(tmp_path / "persist")


def given(folder):
    for path in (folder, *folder.rglob("*")):
        os.chown(path, ENGINE, ENGINE)
    return folder


@pytest.fixture
def pulled(run, registry, tmp_path):
    """PERSIST_DIR of a user, with a pulled pipeline and nothing else; its digest."""
    url, digest = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    assert run(0, "pull", PIPELINE_URL=url)[0] == 0
    given(tmp_path / "persist")
    return digest


def told(path, user=NOBODY):
    return f"{path} cannot be read by user {user} (Permission denied): run this as user {ENGINE}, who owns it"


@ROOTS
def test_verify_says_what_it_may_not_read_and_as_which_user_to_run_it(run, pulled):
    assert run(ENGINE, "verify")[0::2] == (0, "")
    code, out, err = run(NOBODY, "verify")
    assert (code, out, err) == (1, "", f"opsengine: {told('persist/served.json')}.\n")


@ROOTS
def test_verify_tells_of_each_file_that_it_may_not_read_and_checks_the_others(run, pulled, registry, tmp_path):
    (tmp_path / "persist/served.json").chmod(0o644)
    model = orjson.loads(registry.blobs[pulled])["layers"][1]["digest"]
    blobs = Path("persist/store/blobs/sha256")
    (tmp_path / blobs / model[7:]).chmod(0o600)
    code, out, err = run(NOBODY, "verify")
    assert (code, out.count(": right.")) == (1, 2)
    assert err.splitlines() == [
        f"{model}: {told(blobs / model[7:])}.",
        f"publish {pulled}: 1 of its files cannot be read by user {NOBODY}.",
    ]
    (tmp_path / blobs / pulled[7:]).chmod(0o600)
    assert f"publish {pulled}: {told(blobs / pulled[7:])}." in run(NOBODY, "verify")[2]
    assert "damaged" not in err
    assert run(ENGINE, "verify")[0] == 0


@ROOTS
@pytest.mark.parametrize("closed", ["persist", "persist/store", "persist/store/blobs/sha256"])
def test_verify_of_a_closed_folder_names_its_owner(run, pulled, tmp_path, closed):
    (tmp_path / "persist/served.json").chmod(0o644)
    (tmp_path / closed).chmod(0o700)
    code, out, err = run(NOBODY, "verify")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cannot be read by user" in err and f"run this as user {ENGINE}" in err and closed in err


@ROOTS
def test_verify_does_not_call_a_signature_missing_that_it_may_not_read(run, pulled, tmp_path):
    (tmp_path / "persist/served.json").chmod(0o644)
    proof = tmp_path / "persist/store/signatures" / f"{pulled[7:]}.json"
    proof.parent.mkdir()
    proof.write_text("{}")
    proof.chmod(0o600)
    given(proof.parent)
    code, _, err = run(NOBODY, "verify", COSIGN_PUBLIC_KEY=KEY)
    assert (code, err) == (1, f"publish {pulled}: {told(proof.relative_to(tmp_path))}.\n")
    assert "it has no signature that holds" in run(ENGINE, "verify", COSIGN_PUBLIC_KEY=KEY)[2]


@ROOTS
@pytest.mark.parametrize("opened", [(), ("identity", "session.json")])
def test_status_says_what_it_may_not_read_and_as_which_user_to_run_it(run, kept, opened):
    kept.chmod(0o755)
    for name in opened:
        (kept / "identity" / name if name != "identity" else kept / name).chmod(0o755)
    code, out, err = run(NOBODY, "status", ENGINE_PORT=str(free_port()))
    name = "served.json" if opened else "identity/session.json"
    assert (code, out, err) == (1, "", f"opsengine: {told(f'persist/{name}')}.\n")
    code, out, _ = run(ENGINE, "status", ENGINE_PORT=str(free_port()))
    assert code == 3 and "Edge edge-1, id" in out and "Served last: " in out


@ROOTS
def test_status_does_not_guess_at_a_log_that_it_may_not_open(run, kept):
    for name in ("identity", "identity/session.json", "served.json"):
        (kept / name).chmod(0o755)
    (kept / "logs/rows.sqlite").chmod(0o600)
    code, _, err = run(NOBODY, "status", ENGINE_PORT=str(free_port()))
    assert code == 1 and "persist/logs/rows.sqlite cannot be read by user 65534" in err
    assert f"run this as user {ENGINE}" in err


@ROOTS
@pytest.mark.parametrize("name", ["COSIGN_PUBLIC_KEY_FILE", "SSL_CERT_FILE"])
def test_file_of_a_setting_that_may_not_be_read_is_told_as_that(run, tmp_path, name):
    (tmp_path / "secret").write_text(KEY)
    (tmp_path / "secret").chmod(0o600)
    os.chown(tmp_path / "secret", ENGINE, ENGINE)
    code, _, err = run(NOBODY, "verify", **{name: "secret"})
    assert (code, err) == (2, f"opsengine: {name}: {told('secret')}.\n")


@ROOTS
@pytest.mark.parametrize("closed", ["manifest.json", "model.onnx"])
def test_pipeline_in_a_folder_that_may_not_be_read_is_told_as_that(run, tmp_path, closed):
    folder = tmp_path / "pipeline"
    folder.mkdir()
    digest = ContentStore(tmp_path / "other").write(b"model")
    layer = {"digest": digest, "annotations": {"org.cncf.model.filepath": "model.onnx"}}
    (folder / "manifest.json").write_bytes(orjson.dumps({"layers": [layer]}))
    (folder / "model.onnx").write_bytes(b"model")
    (folder / closed).chmod(0o600)
    (tmp_path / "persist/store").mkdir(parents=True)
    given(folder)
    (tmp_path / "persist/store").chmod(0o777)
    _, _, err = run(NOBODY, "verify", PIPELINE_DIR="pipeline")
    assert f"pipeline/{closed} cannot be read by user {NOBODY} (Permission denied): run this as user" in err


def test_owner_who_may_not_read_is_not_told_to_become_itself(tmp_path):
    refused = PermissionError(13, "Permission denied", str(tmp_path))
    assert privileges.refusal(refused).endswith("give that user the right to read it, or run this as root")


def test_engine_that_may_not_read_what_it_served_says_that_and_starts(tmp_path, monkeypatch, caplog):
    served = state.Served(state.Publish("r.io/p:1", f"sha256:{'0' * 64}"))
    path = tmp_path / "served.json"
    state.save(path, served)

    def read(one):
        raise PermissionError(13, "Permission denied", str(one))

    whole = state._read
    monkeypatch.setattr(state, "_read", lambda one: read(one) if one == path else whole(one))
    assert state.load(path) == served
    assert f"{path} cannot be read (Permission denied): its copy is used" in caplog.text
    with pytest.raises(PermissionError):
        state.load(path, strict=True)
