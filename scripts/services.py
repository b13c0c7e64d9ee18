"""PostgreSQL, Redis and docker-registry for the tests: from the machine, on free ports, in a folder that goes away.

In CI also Docker (scripts.containers), elsewhere with OPSCENTER_TEST_DOCKER=1: that takes a minute.

`python -m scripts.services` starts them, prints the variables that tests read, and stops them on Ctrl-C.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from opscenter import lifetime
from scripts import containers

DEBIAN_PACKAGES = {
    "postgres": "postgresql",
    "redis-server": "redis-server",
    "docker-registry": "docker-registry",
    "htpasswd": "apache2-utils",
    "chromium": "chromium",
    "skopeo": "skopeo",
    "ip": "iproute2",
    "tc": "iproute2",
}
DOCKER_PACKAGES = {"dockerd": "docker.io", "debootstrap": "debootstrap"}
START_SECONDS = 60
STOP_SECONDS = 10


def _packages() -> dict[str, str]:
    """Debian's packages by the program that they bring."""
    return DEBIAN_PACKAGES | (DOCKER_PACKAGES if wants_docker() else {})


def find(name: str) -> str | None:
    """A program's path; PostgreSQL's are kept out of PATH by Debian."""
    if name == "chromium":
        return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(versions, key=lambda path: int(path.parts[4]), default=None)
    return shutil.which(name) or (str(newest) if newest else None)


def install(programs: dict[str, str] | None = None) -> None:
    """Installs what is missing on Debian when we may; elsewhere it does nothing, and tests skip with the reason.

    `programs` are Debian's packages by the program that they bring; all of ours, unless told.
    """
    wanted = _packages() if programs is None else programs
    packages = sorted({package for program, package in wanted.items() if find(program) is None})
    if not packages or os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        return
    print(f"services: installing {', '.join(packages)}", file=sys.stderr, flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-y", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"services: apt-get {words[0]} failed:\n{done.stdout[-2000:]}", file=sys.stderr)
            return


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """Starts every service whose program is here; gives the variables by which tests find them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="opscenter-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)  # the postgres user must reach its part
        variables: dict[str, str] = {}
        for program, start in (("postgres", _postgres), ("redis-server", _redis), ("docker-registry", _registry)):
            if find(program):
                variables |= stack.enter_context(start(folder))
        chromium = find("chromium")
        if chromium:
            variables["CHROMIUM"] = chromium
        if wants_docker():
            variables |= stack.enter_context(containers.running(folder))
        yield variables


@contextmanager
def durable_postgres() -> Iterator[dict[str, str]]:
    """PostgreSQL that syncs what it commits, for measurements; nothing is given where it is not installed."""
    if not find("postgres"):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="opscenter-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # the postgres user must reach its part
        with _postgres(Path(name), settings={}) as found:
            yield found


# What tests write outlives nobody, so it need not reach the disk. And whoever analyses a table while a test fills it
# finds nothing in it that is committed: PostgreSQL then plans as if the table were empty, and a page does not end.
ONLY_FOR_TESTS = {"fsync": "off", "autovacuum": "off"}


@contextmanager
def _postgres(folder: Path, settings: Mapping[str, str] = ONLY_FOR_TESTS) -> Iterator[dict[str, str]]:
    """A cluster of its own. PostgreSQL refuses to run as root, so root becomes the user of Debian's package."""
    data, password, port = folder / "postgres", secrets.token_hex(16), free_port()
    password_file = data / "password"
    data.mkdir()
    password_file.write_text(password)
    user = None
    if os.geteuid() == 0:
        user = "postgres"
        for path in (data, password_file):
            shutil.chown(path, user, user)
    words = f"--username opscenter --pwfile {password_file} --auth scram-sha-256 --encoding UTF8 --no-sync".split()
    command = [_found("initdb"), "--pgdata", str(data / "data"), *words]
    subprocess.run(command, cwd=data, user=user, group=user, stdout=subprocess.DEVNULL, check=True)
    options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": data, **settings}
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [_found("postgres"), "-D", str(data / "data"), *words]
    # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
    with _process(command, port, folder / "postgres.log", stop_by=signal.SIGINT, cwd=data, user=user):
        yield {"TEST_POSTGRES_URL": f"postgres://opscenter:{password}@127.0.0.1:{port}/postgres"}


@contextmanager
def _redis(folder: Path) -> Iterator[dict[str, str]]:
    port = free_port()
    command = [_found("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with _process(command, port, folder / "redis.log"):
        yield {"TEST_REDIS_URL": f"redis://127.0.0.1:{port}/0"}


@contextmanager
def _registry(folder: Path) -> Iterator[dict[str, str]]:
    """The reference registry over plain HTTP, with Basic authentication where htpasswd is here to make its file."""
    port, password = free_port(), secrets.token_hex(16)
    configuration: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": secrets.token_hex(16)},
    }
    variables = {"TEST_REGISTRY": f"127.0.0.1:{port}"}
    htpasswd = find("htpasswd")
    if htpasswd:
        command = [htpasswd, "-niB", "opscenter"]
        line = subprocess.run(command, input=password, capture_output=True, text=True, check=True).stdout
        (folder / "htpasswd").write_text(line)
        configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        variables |= {"TEST_REGISTRY_USERNAME": "opscenter", "TEST_REGISTRY_PASSWORD": password}
    file = folder / "registry.yml"
    file.write_text(json.dumps(configuration))  # JSON is YAML
    with _process([_found("docker-registry"), "serve", str(file)], port, folder / "registry.log"):
        yield variables


@contextmanager
def _process(
    command: Sequence[str],
    port: int,
    log: Path,
    *,
    stop_by: signal.Signals = signal.SIGTERM,
    cwd: Path | None = None,
    user: str | None = None,
) -> Iterator[None]:
    """A process that answers on the port. It ends with us even when we are killed, and Ctrl-C does not reach it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            user=user,
            group=user,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: lifetime.end_with_parent(stop_by),
        )
    try:
        _wait_for(process, port, log)
        yield
    finally:
        process.send_signal(stop_by)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _found(name: str) -> str:
    path = find(name)
    if path is None:
        raise RuntimeError(f"{name} is not on this machine")
    return path


def is_ci() -> bool:
    """Whether this is CI, where no test may skip for want of a program."""
    return os.environ.get("CI", "").lower() in {"true", "1"}


def wants_docker() -> bool:
    """Whether tests with real containers are to run."""
    return is_ci() or os.environ.get("OPSCENTER_TEST_DOCKER") == "1"


def free_port() -> int:
    """A port of the loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Runs the services until Ctrl-C."""
    install()
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        with running() as variables:
            for name, value in variables.items():
                print(f"export {name}={value}", flush=True)
            print("# running until Ctrl-C", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
