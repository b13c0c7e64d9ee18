"""Docker for the tests: the engine's image built from this tree, on a base made here, for not every site can pull one.

A daemon that already runs is used; else root starts one in a folder that goes away.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opscenter import lifetime

ROOT = Path(__file__).resolve().parent.parent
BASE, IMAGE = "opscenter-test-base", "opscenter-engine:test"
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
PACKAGES = "python3,python3-venv,ca-certificates"
# A site may look into its own TLS: then the base needs the machine's certificates as well.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
START_SECONDS = 60
STOP_SECONDS = 30


class ContainersError(Exception):
    """Docker, or what it should build, cannot be had here; the text says why."""


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Variables by which tests find Docker and the engine's image; empty, and the reason printed, where it is not."""
    with daemon(folder) as found:
        yield {} if found is None else found | _images(folder)


@contextmanager
def daemon(folder: Path) -> Iterator[dict[str, str] | None]:
    """Variables by which a Docker daemon is found; None, and the reason printed, where there is none."""
    if answers():
        yield {}
    elif os.geteuid() == 0 and shutil.which("dockerd"):
        with _daemon(folder) as host:
            yield {"DOCKER_HOST": host} if host else None
    else:
        print("containers: no Docker daemon runs here, and none can be started", file=sys.stderr)
        yield None


def answers() -> bool:
    """Whether a Docker daemon is there for us."""
    program = shutil.which("docker")
    if program is None:
        return False
    return subprocess.run([program, "info"], capture_output=True, check=False).returncode == 0


@contextmanager
def _daemon(folder: Path) -> Iterator[str | None]:
    """A daemon of its own, away from the machine's; its address, or None when it does not start."""
    place = folder / "docker"
    place.mkdir()
    host = f"unix://{place}/docker.sock"
    words = ["dockerd", "-H", host, "--data-root", str(place / "data"), "--exec-root", str(place / "run")]
    log = folder / "docker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*words, "--pidfile", str(place / "pid")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lifetime.end_with_parent,
        )
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        if answers():
            yield host
        else:
            print(f"containers: dockerd does not run here:\n{log.read_text(errors='replace')[-1000:]}", file=sys.stderr)
            yield None
    finally:
        _restore(before)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _unmount(place)


def _unmount(place: Path) -> None:
    """What Docker leaves mounted would keep the folder from going away."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{place}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)


def _restore(host: str | None) -> None:
    del os.environ["DOCKER_HOST"]
    if host is not None:
        os.environ["DOCKER_HOST"] = host


def _images(folder: Path) -> dict[str, str]:
    try:
        if not is_there(BASE):
            _make_base(folder / "base")
        print("containers: building the engine's image", file=sys.stderr, flush=True)
        build = ["docker", "build", "--quiet", "--network", "host", "--build-arg", f"BASE_IMAGE={BASE}"]
        # The classic builder: the other one is a program of its own, which Debian does not bring along.
        run([*build, "--tag", IMAGE, "engine"], DOCKER_BUILDKIT="0")
    except ContainersError as error:
        print(f"containers: {error}", file=sys.stderr)
        return {}
    return {"OPSCENTER_TEST_ENGINE_IMAGE": IMAGE}


def bootstrap(folder: Path, architecture: str | None = None) -> None:
    """A Debian with Python; of another architecture than the machine's where its kernel can run that.

    Raises ContainersError.
    """
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise ContainersError("no base image: it is made with debootstrap, as root")
    print("containers: making a base image with debootstrap", file=sys.stderr, flush=True)
    kind = [f"--arch={architecture}"] if architecture else []
    run(["debootstrap", *kind, "--variant=minbase", f"--include={PACKAGES}", SUITE, str(folder), MIRROR])
    if CERTIFICATES.is_file():
        shutil.copyfile(CERTIFICATES, folder / CERTIFICATES.relative_to("/"))


def _make_base(folder: Path) -> None:
    bootstrap(folder)
    command = ["docker", "import", "-", BASE]
    with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
        done = subprocess.run(command, stdin=tar.stdout, capture_output=True, text=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    if done.returncode or tar.returncode:
        raise ContainersError(f"the base image cannot be imported: {done.stderr[-500:]}")


def is_there(image: str) -> bool:
    """Whether Docker has an image of this name."""
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0


def run(words: list[str], told: str | None = None, **variables: str) -> str:
    """What a program prints that is told something, if only that there is nothing. Raises ContainersError."""
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | variables,
        input=told or "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ContainersError(f"{' '.join(words[:3])} failed:\n{done.stdout[-1500:]}")
    return done.stdout
