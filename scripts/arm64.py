"""Builds the engine's image for arm64 from its one Dockerfile and puts it to the test, on a machine of any processor.

For root on Debian, with a network. It makes what cannot be taken for granted: an emulator that is new enough, a base
image, a Docker daemon. Nothing of it stays but the images, where a daemon ran already.
"""

import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from scripts import containers, services, test

BASE, IMAGE = "opscenter-test-base:arm64", "opscenter-engine:test-arm64"
REQUIREMENTS = containers.ROOT / "engine/requirements.txt"
TESTS = "engine/tests/test_image_arm64.py"
# That of the base made here, and that of the image which the Dockerfile names.
PYTHONS = ("3.11", "3.13")
# What pip of these Pythons takes on a Debian 12 of arm64: glibc 2.36, and all older ones.
WHEEL_PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)] + ["manylinux2014_aarch64"]

# Debian 12's own QEMU, 7.2, crashes where onnxruntime is imported; 10, from its backports, does not.
BACKPORTS = f"deb {containers.MIRROR} {containers.SUITE}-backports main\n"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
HANDLER = "opscenter-arm64"
# An ELF file of 64 bits, little-endian, for AArch64 (e_machine 183), with any OS ABI, program or shared object.
MAGIC = rb"\x7fELF\x02\x01\x01" + rb"\x00" * 9 + rb"\x02\x00\xb7\x00"
MASK = rb"\xff" * 7 + rb"\x00" + rb"\xff" * 8 + rb"\xfe\xff\xff\xff"


def main() -> int:
    """0 when the image passed its tests."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        services.install(services.DOCKER_PACKAGES)
        test.install_tools()
        with tempfile.TemporaryDirectory(prefix="opscenter-", ignore_cleanup_errors=True) as name:
            return _build_and_test(Path(name))
    except containers.ContainersError as error:
        print(f"arm64: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _build_and_test(folder: Path) -> int:
    check_wheels(folder)
    with able_to_run_arm64(folder), containers.daemon(folder) as docker:
        if docker is None:
            return 1
        began = time.monotonic()
        if not containers.is_there(BASE):
            make_base(folder)
        _say(f"the base is there after {time.monotonic() - began:.0f} s")
        build_image()
        _say(f"the image is there after {time.monotonic() - began:.0f} s")
        found = docker | {"OPSCENTER_TEST_ENGINE_IMAGE_ARM64": IMAGE}
        environment = test.clean_environment() | found | {"OPSCENTER_DATA": str(folder / "data")}
        return test.pytest(environment, [TESTS, "-v", "-rP"])


def _say(text: str) -> None:
    print(f"arm64: {text}", file=sys.stderr, flush=True)


def check_wheels(folder: Path) -> None:
    """Sees that every pinned package of the engine has a wheel for arm64: nothing needs a compiler there.

    Raises ContainersError with pip's words.
    """
    platforms = [word for name in WHEEL_PLATFORMS for word in ("--platform", name)]
    for version in PYTHONS:
        report = folder / f"{version}.json"
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        words += ["--only-binary", ":all:", "--python-version", version, *platforms]
        words += ["--target", str(folder / "none"), "--report", str(report), "--requirement", str(REQUIREMENTS)]
        containers.run(words)
        wheels = [Path(one["download_info"]["url"]).name for one in json.loads(report.read_text())["install"]]
        own = sum("aarch64" in wheel for wheel in wheels)
        _say(f"Python {version}: {len(wheels)} packages have wheels, {own} of them made for aarch64")


@contextmanager
def able_to_run_arm64(folder: Path) -> Iterator[None]:
    """Lets the kernel run arm64 programs, in containers too. Raises ContainersError."""
    if platform.machine() in {"aarch64", "arm64"}:
        yield
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise containers.ContainersError("on another processor than arm64 this needs root, and Debian for its emulator")
    emulator = fetch_emulator(folder / "qemu")
    _say(containers.run([str(emulator), "--version"]).splitlines()[0])
    with _binfmt_mounted():
        _register(emulator)
        try:
            yield
        finally:
            (BINFMT / HANDLER).write_text("-1")


def fetch_emulator(folder: Path) -> Path:
    """QEMU out of Debian's backports, checked by apt; the machine's own packages and sources stay as they are."""
    for part in ("lists/partial", "package"):
        (folder / part).mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text(BACKPORTS)
    options = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": folder / "lists",
        "APT::Sandbox::User": "root",  # it may not enter this folder as another
    }
    words = ["-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    containers.run(["apt-get", "update", *words])
    containers.run(["env", f"--chdir={folder / 'package'}", "apt-get", "download", "qemu-user", *words])
    (package,) = (folder / "package").glob("*.deb")
    containers.run(["dpkg-deb", "--extract", str(package), str(folder / "files")])
    return folder / "files/usr/bin/qemu-aarch64"


@contextmanager
def _binfmt_mounted() -> Iterator[None]:
    if (BINFMT / "register").exists():
        yield
        return
    containers.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
    try:
        yield
    finally:
        containers.run(["umount", str(BINFMT)])


def _register(emulator: Path) -> None:
    """The newest handler goes before all others. F: the kernel opens it now, so no container needs to have it.

    Raises ContainersError.
    """
    if (BINFMT / HANDLER).exists():  # of a run that was killed
        (BINFMT / HANDLER).write_text("-1")
    line = b":".join([b"", HANDLER.encode(), b"M", b"", MAGIC, MASK, str(emulator).encode(), b"F"])
    try:
        (BINFMT / "register").write_bytes(line)
    except OSError as error:
        raise containers.ContainersError(f"this kernel does not take the emulator: {error.strerror}") from error


def make_base(folder: Path) -> None:
    """Debian of arm64 as an image that says so: `docker import` would not. Raises ContainersError."""
    root, context = folder / "root", folder / "base"
    containers.bootstrap(root, "arm64")
    context.mkdir()
    containers.run(["tar", "--directory", str(root), "--create", "--file", str(context / "root.tar"), "."])
    shutil.rmtree(root)
    (context / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
    _build(BASE, context=str(context))


def build_image() -> None:
    """The engine's image. Raises ContainersError with the builder's last words."""
    _say("building the engine's image")
    _build(IMAGE, context="engine", network="host", args={"BASE_IMAGE": BASE})


def _build(image: str, **build: object) -> None:
    """By BuildKit: Docker's old builder would call the image one of this machine's processor.

    Through Compose, for Debian 12 has no package of `docker buildx`.
    """
    compose = shutil.which("docker-compose", path=test.with_tools())
    if compose is None:
        raise containers.ContainersError("docker-compose is missing: install Go, by which it is built here, or itself")
    service = {"image": image, "build": {"platforms": ["linux/arm64"], **build}}
    project = {"name": "opscenter-arm64", "services": {"image": service}}
    words = [compose, "--project-directory", str(containers.ROOT), "--file", "-", "--progress", "plain", "build"]
    containers.run(words, json.dumps(project), DOCKER_BUILDKIT="1")


if __name__ == "__main__":
    sys.exit(main())
