"""One push by OpsCenter's client, as a process of its own: `push.py HOST REPOSITORY FOLDER [MOUNT_FROM]`.

Digests are read from `FOLDER/digests.json`, as a center knows them from the upload. Prints seconds of the push, peak
memory and bytes of bodies sent.
"""

import json
import resource
import sys
import time
from functools import partial
from pathlib import Path

from publishing.oci import blobs, manifests, packages
from publishing.oci.client import Client, Registry
from publishing.oci.content import Blob, Body
from publishing.oci.manifests import Manifest
from publishing.oci.packages import Package

TYPE = "application/vnd.cncf.model.weight.v1.raw"


def main(host: str, repository: str, folder: str, mount_from: str = "") -> None:
    """Pushes every file of the folder as one package."""
    sent = count_bytes()
    files = json.loads((Path(folder) / "digests.json").read_text())
    parts = [
        Blob(digest, (Path(folder) / name).stat().st_size, TYPE, name, partial(open, Path(folder) / name, "rb"))
        for name, digest in sorted(files.items())
    ]
    config = blobs.of_bytes(b"{}", "application/vnd.oci.empty.v1+json", "config")
    told = {"schemaVersion": 2, "mediaType": manifests.IMAGE, "config": config.descriptor()}
    content = json.dumps(told | {"layers": [part.descriptor() for part in parts]}).encode()
    package = Package(repository, "bench", Manifest(content, manifests.IMAGE), (config, *parts))
    began = time.perf_counter()
    with Client(Registry(host, plain_http=True)) as client:
        client.log_in(repository)
        sources = {part.digest: mount_from for part in (config, *parts)} if mount_from else {}
        packages.push(client, package, lambda more: None, sources)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_mib": peak, "sent": sent[0]}))


def count_bytes() -> list[int]:
    """Bytes of bodies that are read to be sent, also in vain."""
    sent, read = [0], Body.read

    def counted(self: Body, size: int = -1, /) -> bytes:
        piece = read(self, size)
        sent[0] += len(piece)
        return piece

    Body.read = counted  # type: ignore[method-assign]
    return sent


if __name__ == "__main__":
    main(*sys.argv[1:])
