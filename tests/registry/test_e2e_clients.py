"""The registry behind its real web server, used by the real clients."""

import base64
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from oras.client import OrasClient

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "robot-password-1"
ACCOUNT = f"opscenter:{PASSWORD}"
MIB = 1024 * 1024


class Server:
    """The center under granian, with its registry in `data`. It can be killed and started again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = os.environ | {
            "DJANGO_SETTINGS_MODULE": "opscenter.settings",
            "OPSCENTER_DATA": str(self.data),
            "OPSCENTER_REGISTRY": "1",
            "OPSCENTER_REGISTRY_PASSWORD": PASSWORD,
            "PORT": str(self.port),
        }
        arguments = [
            "--interface",
            "wsgi",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "opscenter.wsgi:application",
        ]
        with (self.data / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "granian", *arguments],
                cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if self.call("GET", "/v2/")[0] == 200:
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.data / "server.log").read_text())

    def kill(self) -> None:
        """End all its processes at once, as a power cut would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, timeout=60)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = self.connection()
        try:
            connection.request(method, path, body, headers | authorization())
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def peak_memory(self) -> int:
        """The most memory the working process ever held, in bytes (`VmHWM`)."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        peaks = []
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            peaks += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")]
        return max(peaks)


def authorization() -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(ACCOUNT.encode()).decode()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    data = tmp_path / "data"
    data.mkdir()
    server = Server(data)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Callable[..., str]]:
    """`program("skopeo")` is that program as a function of its arguments; skips the test where there is none."""

    def find(name: str, **environ: str) -> Callable[..., str]:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed")

        def run(*arguments: Any, cwd: Path = tmp_path) -> str:
            command = [path, *map(str, arguments)]
            home = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / "docker")}
            environment = os.environ | home | environ
            done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            return done.stdout + done.stderr

        return run

    return find


def write_layout(folder: Path, *contents: bytes) -> dict[str, Any]:
    """Write an OCI image layout with these layers, tagged v1; return its manifest and digest."""

    def put(content: bytes, media_type: str) -> dict[str, Any]:
        encoded = hashlib.sha256(content).hexdigest()
        (folder / "blobs/sha256" / encoded).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": len(content)}

    (folder / "blobs/sha256").mkdir(parents=True)
    layers = [put(content, "application/vnd.oci.image.layer.v1.tar") for content in contents]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    }
    entry = put(json.dumps(manifest).encode(), str(manifest["mediaType"]))
    entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return manifest | {"digest": entry["digest"]}


def test_skopeo_pushes_mounts_and_pulls(server: Server, program: Any, tmp_path: Path) -> None:
    skopeo = program("skopeo")
    image = write_layout(tmp_path / "image", os.urandom(3 * MIB), os.urandom(1000))
    to = ["--preserve-digests", "--dest-tls-verify=false", f"--dest-creds={ACCOUNT}"]
    of = ["--src-tls-verify=false", f"--src-creds={ACCOUNT}"]
    remote = f"docker://{server.host}/site/engine"
    skopeo("copy", *to, f"oci:{tmp_path}/image:v1", f"{remote}:v1")
    # Within one registry skopeo mounts instead of sending again.
    skopeo("copy", *of, *to, f"{remote}:v1", f"{remote}/copied:v2")
    skopeo("copy", "--preserve-digests", *of, f"{remote}/copied@{image['digest']}", f"oci:{tmp_path}/pulled:v1")
    pulled = tmp_path / "pulled/blobs/sha256"
    for blob in (tmp_path / "image/blobs/sha256").iterdir():
        assert (pulled / blob.name).read_bytes() == blob.read_bytes()
    assert json.loads(skopeo("list-tags", "--tls-verify=false", f"--creds={ACCOUNT}", remote))["Tags"] == ["v1"]
    skopeo("delete", "--tls-verify=false", f"--creds={ACCOUNT}", f"{remote}:v1")
    assert server.call("GET", "/v2/site/engine/manifests/v1")[0] == 404


def test_skopeo_copies_an_index_with_all_images(server: Server, program: Any, tmp_path: Path) -> None:
    skopeo = program("skopeo")
    images = [write_layout(tmp_path / name, name.encode()) for name in ("amd64", "arm64")]
    layout = tmp_path / "amd64"
    shutil.copytree(tmp_path / "arm64/blobs", layout / "blobs", dirs_exist_ok=True)
    entries = [
        {
            "mediaType": image["mediaType"],
            "digest": image["digest"],
            "size": 1,
            "platform": {"os": "linux", "architecture": name},
        }
        for image, name in zip(images, ("amd64", "arm64"), strict=True)
    ]
    for entry in entries:
        entry["size"] = (layout / "blobs/sha256" / entry["digest"].removeprefix("sha256:")).stat().st_size
    media_type = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()
    encoded = hashlib.sha256(index).hexdigest()
    (layout / "blobs/sha256" / encoded).write_bytes(index)
    top = {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": len(index)}
    top["annotations"] = {"org.opencontainers.image.ref.name": "all"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    to = ["--preserve-digests", "--dest-tls-verify=false", f"--dest-creds={ACCOUNT}"]
    skopeo("copy", "--all", *to, f"oci:{layout}:all", f"docker://{server.host}/site/engine:all")
    status, headers, content = server.call("GET", "/v2/site/engine/manifests/all")
    assert (status, headers["content-type"], content) == (200, media_type, index)
    for image in images:
        assert server.call("HEAD", f"/v2/site/engine/manifests/{image['digest']}")[0] == 200


def test_wrong_password_is_said(server: Server, program: Any, tmp_path: Path) -> None:
    skopeo = program("skopeo")
    write_layout(tmp_path / "image", b"layer")
    to = f"docker://{server.host}/site/engine:v1"
    with pytest.raises(AssertionError, match=r"(?i)unauthorized|authentication required|invalid username/password"):
        skopeo("copy", "--dest-tls-verify=false", "--dest-creds=opscenter:wrong", f"oci:{tmp_path}/image:v1", to)


def test_helm_pushes_and_pulls_a_chart(server: Server, program: Any, tmp_path: Path) -> None:
    helm = program("helm")
    version = f"0.0.1-{uuid.uuid4()}"
    chart = tmp_path / "houseprice"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: houseprice\nversion: {version}\n")
    (chart / "values.yaml").write_text("edgeBundle: ''\n")
    helm("package", chart)
    package = tmp_path / f"houseprice-{version}.tgz"
    original = package.read_bytes()
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"auths": {server.host: {"auth": base64.b64encode(ACCOUNT.encode()).decode()}}}))
    flags = ["--plain-http", "--registry-config", credentials]
    told = helm("push", *flags, package, f"oci://{server.host}/site/charts")
    digest = server.call("HEAD", f"/v2/site/charts/houseprice/manifests/{version}")[1]["docker-content-digest"]
    assert digest in told
    package.unlink()
    helm("pull", *flags, f"oci://{server.host}/site/charts/houseprice", "--version", version)
    assert package.read_bytes() == original


def test_oras_pushes_attaches_discovers_and_pulls(server: Server, program: Any, tmp_path: Path) -> None:
    oras = program("oras")
    (tmp_path / "model.onnx").write_bytes(os.urandom(2 * MIB))
    (tmp_path / "signature.txt").write_text("signed")
    flags = ["--plain-http", "-u", "opscenter", "-p", PASSWORD]
    model = f"{server.host}/site/models:v1"
    oras(
        "push", *flags, "--artifact-type", "application/vnd.example.model", model, "model.onnx:application/octet-stream"
    )
    oras("attach", *flags, "--artifact-type", "application/vnd.example.signature", model, "signature.txt:text/plain")
    assert "application/vnd.example.signature" in oras("discover", *flags, model)
    (tmp_path / "out").mkdir()
    oras("pull", *flags, model, "-o", tmp_path / "out")
    assert (tmp_path / "out/model.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()
    # No fallback tag was needed: the registry answers for referrers itself.
    assert json.loads(server.call("GET", "/v2/site/models/tags/list")[2])["tags"] == ["v1"]


def test_docker_pulls(server: Server, program: Any, tmp_path: Path) -> None:
    docker, skopeo = program("docker"), program("skopeo")
    try:
        docker("info")
    except AssertionError:
        pytest.skip("no docker daemon can be reached")
    # Docker unpacks what it pulls: an empty tar archive is two blocks of zeros, padded to a record.
    write_layout(tmp_path / "image", bytes(10240))
    to = ["--preserve-digests", "--dest-tls-verify=false", f"--dest-creds={ACCOUNT}"]
    skopeo("copy", *to, f"oci:{tmp_path}/image:v1", f"docker://{server.host}/site/engine:v1")
    docker("login", server.host, "-u", "opscenter", "-p", PASSWORD)
    docker("pull", f"{server.host}/site/engine:v1")
    docker("rmi", f"{server.host}/site/engine:v1")


def test_python_oras_pushes_and_pulls(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(os.urandom(2 * MIB))
    client = OrasClient(hostname=server.host, insecure=True, auth_backend="basic")
    client.auth.set_basic_auth("opscenter", PASSWORD)
    target = f"{server.host}/site/models:v1"
    pushed = client.push(target, files=[str(tmp_path / "model.onnx")], disable_path_validation=True)
    assert pushed.status_code == 201
    (pulled,) = client.pull(target, outdir=str(tmp_path / "out"))
    assert Path(pulled).read_bytes() == (tmp_path / "model.onnx").read_bytes()
    assert client.get_tags(f"{server.host}/site/models") == ["v1"]


def random_pieces(count: int) -> Iterator[bytes]:
    piece = os.urandom(MIB)
    for number in range(count):
        yield number.to_bytes(8) + piece[8:]


def test_memory_stays_flat_for_large_blobs(server: Server) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from Linux's /proc")
    server.call("POST", "/v2/site/warm/blobs/uploads/?digest=sha256:" + hashlib.sha256(b"warm").hexdigest(), b"warm")
    before = server.peak_memory()
    count = 256
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in random_pieces(count):
            digest.update(piece)
            yield piece

    location = server.call("POST", "/v2/site/app/blobs/uploads/")[1]["location"]
    # A body of unknown length goes out with chunked transfer coding, as docker and skopeo send it.
    status, headers, _ = server.call("PATCH", location, hashed())
    assert (status, headers["range"]) == (202, f"0-{count * MIB - 1}")
    status, headers, _ = server.call("PUT", f"{headers['location']}?digest=sha256:{digest.hexdigest()}")
    assert status == 201
    connection = server.connection()
    connection.request("GET", headers["location"], headers=authorization())
    answer = connection.getresponse()
    received = hashlib.sha256()
    while block := answer.read(MIB):
        received.update(block)
    connection.close()
    assert received.digest() == digest.digest()
    assert server.peak_memory() - before < 32 * MIB


def visible(server: Server) -> list[str]:
    folder = server.data / "registry"
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in found if path.parts[0] != "uploads"]


def test_killed_server_leaves_nothing_visible_and_the_upload_goes_on(server: Server) -> None:
    content = b"".join(random_pieces(24))
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    location = server.call("POST", "/v2/site/app/blobs/uploads/")[1]["location"]
    connection = server.connection()
    connection.putrequest("PATCH", location)
    for name, value in (authorization() | {"Content-Length": str(len(content))}).items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(content[: 10 * MIB])
    (upload,) = (server.data / "registry/uploads").iterdir()
    deadline = time.monotonic() + 30
    while upload.stat().st_size < 8 * MIB and time.monotonic() < deadline:
        time.sleep(0.05)
    server.kill()
    connection.close()
    assert 8 * MIB <= upload.stat().st_size <= 10 * MIB
    assert visible(server) == []

    server.start()
    assert server.call("HEAD", f"/v2/site/app/blobs/{digest}")[0] == 404
    # Another upload of the same blob is not disturbed by what the killed one left.
    assert server.call("POST", f"/v2/site/other/blobs/uploads/?digest={digest}", content)[0] == 201
    # And the killed one goes on where its file ends, in a process that knows no running hash of it.
    offset = int(server.call("GET", location)[1]["range"].partition("-")[2]) + 1
    assert offset == upload.stat().st_size
    chunk = {"Content-Range": f"{offset}-{len(content) - 1}", "Content-Type": "application/octet-stream"}
    assert server.call("PATCH", location, content[offset:], **chunk)[0] == 202
    assert server.call("PUT", f"{location}?digest={digest}")[0] == 201
    assert server.call("GET", f"/v2/site/app/blobs/{digest}")[2] == content
    assert not upload.exists()


def test_client_that_hangs_up_can_go_on(server: Server) -> None:
    content = b"".join(random_pieces(8))
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    location = server.call("POST", "/v2/site/app/blobs/uploads/")[1]["location"]
    connection = server.connection()
    connection.putrequest("PATCH", location)
    for name, value in (authorization() | {"Transfer-Encoding": "chunked"}).items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(b"%x\r\n" % (3 * MIB) + content[: 3 * MIB] + b"\r\n")
    connection.close()
    deadline = time.monotonic() + 30
    offset = 0
    while offset < 3 * MIB and time.monotonic() < deadline:
        offset = int(server.call("GET", location)[1]["range"].partition("-")[2]) + 1
    assert offset == 3 * MIB
    # Until the server has noticed, it answers 409 and closes before it has read all that this sends.
    status = 409
    while status == 409 and time.monotonic() < deadline:
        with suppress(BrokenPipeError, ConnectionResetError):
            status = server.call("PATCH", location, content[offset:])[0]
    assert status == 202
    assert server.call("PUT", f"{location}?digest={digest}")[0] == 201
