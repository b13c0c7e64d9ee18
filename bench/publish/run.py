"""Pushes beside `skopeo copy`, `oras` (Python) and bare `curl -T`: same registry, same files, alternating, medians.

    python -m bench.publish.run [--rounds 3] [--gib 1] [--files 200]

Needs docker-registry, skopeo and curl. Every first push goes to a registry with empty storage. Walls include the start
of each process. Ends with 1 when a target is missed.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
PEAK_MIB = 100.0


@dataclass
class Case:
    """One set of files."""

    name: str
    folder: Path
    size: int
    walls: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def median(self, who: str) -> float:
        """Seconds."""
        return statistics.median(self.walls[who])


def main() -> int:
    """Runs all rounds and prints walls, ratios and targets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--files", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-publish-") as name:
        base = Path(name)
        one = make(base / "one", 1, int(options.gib * 1024 * MIB), f"1 x {options.gib:g} GiB")
        many = make(base / "many", options.files, 5 * MIB, f"{options.files} x 5 MiB")
        for number in range(options.rounds):
            for case in (one, many):
                round_of(case, base, number)
        return report(one, many)


def make(folder: Path, count: int, size: int, name: str) -> Case:
    """Random files, their digests, and an OCI layout of them for skopeo (links, no copies)."""
    folder.mkdir()
    layout = folder.with_name(f"{folder.name}-layout")
    (layout / "blobs/sha256").mkdir(parents=True)
    digests, layers = {}, []
    for number in range(count):
        path, found = folder / f"model-{number:03}.bin", hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, size, MIB):
                piece = os.urandom(min(MIB, size - start))
                found.update(piece)
                file.write(piece)
        digests[path.name] = f"sha256:{found.hexdigest()}"
        os.link(path, layout / "blobs/sha256" / found.hexdigest())
        media = "application/vnd.oci.image.layer.v1.tar"
        layers.append({"mediaType": media, "digest": digests[path.name], "size": size})
    (folder / "digests.json").write_text(json.dumps(digests))
    rootfs = {"type": "layers", "diff_ids": list(digests.values())}
    config = keep(layout, {"architecture": "amd64", "os": "linux", "rootfs": rootfs})
    config["mediaType"] = "application/vnd.oci.image.config.v1+json"
    media = "application/vnd.oci.image.manifest.v1+json"
    manifest = keep(layout, {"schemaVersion": 2, "mediaType": media, "config": config, "layers": layers})
    entry = manifest | {"mediaType": media, "annotations": {"org.opencontainers.image.ref.name": "bench"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return Case(name, folder, size * count)


def keep(layout: Path, value: Any) -> dict[str, Any]:
    """A small blob of the layout."""
    content = json.dumps(value).encode()
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def round_of(case: Case, base: Path, number: int) -> None:
    """Every client once, in an order that turns with the rounds."""
    clients: list[tuple[str, Callable[[str], list[str] | None]]] = [
        ("curl", lambda host: curl(case, host)),
        ("opscenter", lambda host: ours(case, host, "bench/a")),
        ("skopeo", lambda host: skopeo(case, host)),
        ("oras", lambda host: [sys.executable, "-m", "bench.publish.oras_push", host, "bench/a", str(case.folder)]),
    ]
    turn = number % len(clients)
    for who, command in clients[turn:] + clients[:turn]:
        with registry(base) as host:
            timed(case, who, command(host))
            if who == "opscenter":
                timed(case, "unchanged", ours(case, host, "bench/a"))
                timed(case, "second repository", ours(case, host, "bench/b", "bench/a"))
            elif who == "skopeo":
                timed(case, "skopeo unchanged", skopeo(case, host))


def ours(case: Case, host: str, repository: str, mount_from: str = "") -> list[str]:
    """Our push."""
    words = [sys.executable, "-m", "bench.publish.push", host, repository, str(case.folder)]
    return [*words, mount_from] if mount_from else words


def skopeo(case: Case, host: str) -> list[str]:
    """skopeo's push of the same bytes, uncompressed."""
    layout = f"oci:{case.folder}-layout:bench"
    return ["skopeo", "copy", "-q", "--dest-tls-verify=false", layout, f"docker://{host}/bench/a:bench"]


def curl(case: Case, host: str) -> list[str]:
    """POST and PUT of each file, with nothing else: the floor."""
    script = (
        'while read -r digest file; do place=$(curl -sS -X POST -o /dev/null -D - "$0/v2/bench/a/blobs/uploads/" | '
        "tr -d '\\r' | sed -n 's/^[Ll]ocation: //p'); curl -sS -f -o /dev/null -H 'Expect:' "
        '-H "Content-Type: application/octet-stream" -T "$file" "$place&digest=$digest" || exit 1; done'
    )
    listing = "\n".join(
        f"{digest} {case.folder}/{name}"
        for name, digest in json.loads((case.folder / "digests.json").read_text()).items()
    )
    (case.folder.with_name(f"{case.folder.name}.list")).write_text(listing + "\n")
    return ["sh", "-c", f"exec < {case.folder}.list; {script}", f"http://{host}"]


def timed(case: Case, who: str, command: list[str] | None) -> None:
    """Runs to the end and records the wall and, of the whole process tree, the peak of memory."""
    assert command is not None
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = process.communicate()
    wall = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{who} failed on {case.name}:\n{output}{errors}")
    case.walls.setdefault(who, []).append(wall)
    if output.startswith("{"):
        told = json.loads(output)
        case.peaks[who] = max(case.peaks.get(who, 0), told["peak_mib"])
        case.sent[who] = max(case.sent.get(who, 0), told["sent"])
    print(f"{case.name:14} {who:18} {wall:6.2f} s", flush=True)


@contextmanager
def registry(base: Path) -> Iterator[str]:
    """A docker-registry on empty storage."""
    storage = base / "storage"
    shutil.rmtree(storage, ignore_errors=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = base / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: {host}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{host}/v2/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait(30)


def report(one: Case, many: Case) -> int:
    """Medians, and each target with what was measured."""
    for case in (one, many):
        print(f"\n{case.name}: medians of {len(case.walls['curl'])}")
        for who in case.walls:
            print(f"  {who:18} {case.median(who):6.2f} s   peak {case.peaks.get(who, 0):5.0f} MiB")
    targets = [
        ("1 GiB / curl", one.median("opscenter") / one.median("curl"), 1.2),
        ("many / skopeo", many.median("opscenter") / many.median("skopeo"), 0.6),
        ("many / oras", many.median("opscenter") / many.median("oras"), 0.75),
        ("peak MiB", max([*one.peaks.values(), *many.peaks.values()]), PEAK_MIB),
        ("unchanged 1 GiB, s", one.median("unchanged"), 0.5),
        ("unchanged many, s", many.median("unchanged"), 1.0),
        ("mounted: bytes sent", max(one.sent["second repository"], many.sent["second repository"]), 0),
        ("wire / content, 1 GiB", one.sent["opscenter"] / one.size, 1.05),
        ("wire / content, many", many.sent["opscenter"] / many.size, 1.05),
    ]
    print("\ntarget                     measured   at most")
    missed = 0
    for name, measured, most in targets:
        missed += measured > most
        print(f"{name:24} {measured:10.2f} {most:9.2f}  {'MISSED' if measured > most else 'met'}")
    load = os.getloadavg()
    print(f"\nload at the end {load[0]:.1f} on {os.cpu_count()} CPUs; peak of children", end=" ")
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB (any client)")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
