"""Runs all tests that can run on this machine; what follows on the command line goes to pytest.

First the center's tests on PostgreSQL and Redis, then everything on SQLite and the filesystem broker, with whole
processes, real outside programs and the engine. The last line is pytest's summary of the second run.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from cryptography.fernet import Fernet

from scripts import services

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "var/tools"
# Clients that tests trust more than our own. They are Go programs that Debian does not have; scripts/tools pins them.
# Compose and cosign pin for themselves: their dependencies are not those of Helm.
GO_PROGRAMS = {
    "helm": ("scripts/tools", "helm.sh/helm/v3/cmd/helm"),
    "oras": ("scripts/tools", "oras.land/oras/cmd/oras"),
    "docker-compose": ("scripts/tools/compose", "github.com/docker/compose/v2/cmd"),
    "cosign": ("scripts/tools/cosign", "github.com/sigstore/cosign/v2/cmd/cosign"),
}
NOTHING_SELECTED = 5  # pytest.ExitCode.NO_TESTS_COLLECTED


def main() -> int:
    """0 when both runs passed."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        services.install()
        install_tools()
        return run_tests(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


def run_tests(arguments: list[str]) -> int:
    """Both runs, with the services around them; 0 when both passed."""
    with services.running() as found, tempfile.TemporaryDirectory(prefix="opscenter-") as data:
        environment = clean_environment() | found | {"PATH": with_tools(), "OPSCENTER_DATA": data}
        first = 0
        if {"TEST_POSTGRES_URL", "TEST_REDIS_URL"} <= found.keys():
            first = pytest(environment | production_settings(found), ["-m", "not e2e", *(arguments or ["tests"])])
        elif services.is_ci():
            sys.exit("test: PostgreSQL and Redis must be on a CI machine")
        else:
            print("test: nothing runs on PostgreSQL and Redis, for they are not on this machine", flush=True)
        if first:
            print("test: the run on PostgreSQL and Redis FAILED, see above; now the other one", flush=True)
        second = pytest(environment, arguments)
    return first or second


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def clean_environment() -> dict[str, str]:
    """Ours, without what would configure a center: tests set that themselves."""
    ours = ("OPSCENTER_", "OCI_", "DATABASE_URL", "REDIS_URL", "ENGINE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {name: value for name, value in os.environ.items() if name.startswith("OPSCENTER_TEST_")}


def with_tools() -> str:
    """PATH with the programs that we build, first."""
    return f"{TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def production_settings(found: dict[str, str]) -> dict[str, str]:
    """The settings of a center that shares its database."""
    return {
        "DATABASE_URL": found["TEST_POSTGRES_URL"],
        "REDIS_URL": found["TEST_REDIS_URL"],
        "OPSCENTER_SECRET_KEY": "only-for-tests-" + Fernet.generate_key().decode(),
        "OPSCENTER_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "OPSCENTER_REGISTRY_PASSWORD": "only-for-tests",
    }


def pytest(environment: dict[str, str], arguments: list[str]) -> int:
    """pytest's exit code; that a filter leaves no test is no failure."""
    command = [sys.executable, "-m", "pytest", *arguments]
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    return 0 if code == NOTHING_SELECTED and arguments else code


def install_tools() -> None:
    """Builds the Go programs that are missing, once, where there is Go; else tests that want them skip."""
    missing = [name for name in GO_PROGRAMS if not shutil.which(name, path=with_tools())]
    if not missing or not shutil.which("go"):
        return
    TOOLS.mkdir(parents=True, exist_ok=True)
    print(f"test: building {', '.join(missing)} (once)", file=sys.stderr, flush=True)
    for name in missing:
        folder, package = GO_PROGRAMS[name]
        done = subprocess.run(
            ["go", "build", "-mod=readonly", "-o", str(TOOLS / name), package],
            cwd=ROOT / folder,
            env=os.environ | {"CGO_ENABLED": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"test: {name} could not be built:\n{done.stderr[-1000:]}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
