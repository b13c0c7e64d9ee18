"""Blobs: asked for first, mounted where the registry has them elsewhere, else sent in one PUT at constant memory."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

from publishing.oci import auth
from publishing.oci.client import Answer, Call, Client
from publishing.oci.faults import Cancelled, RegistryFault, Unavailable
from publishing.oci.transport import ANSWER_SECONDS, PIECE

AT_ONCE = 4  # measured: two get most of it on a local registry, more help where there is latency
# A registry may hash or move what it received before it answers; slow object stores do 10 MB/s.
ANSWER_BYTES_PER_SECOND = 10_000_000

Progress = Callable[[int], None]
"""Told how many bytes more are there: negative when a broken upload begins again. It may raise to stop the push."""


@dataclass(frozen=True)
class Blob:
    """Content that is known by its digest before it is read. `title` names it to people."""

    digest: str
    size: int
    media_type: str
    title: str
    open: Callable[[], BinaryIO]
    annotations: Mapping[str, str] = field(default_factory=dict)

    def descriptor(self) -> dict[str, object]:
        """The OCI content descriptor."""
        found: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return found | ({"annotations": dict(self.annotations)} if self.annotations else {})


def of_bytes(content: bytes, media_type: str, title: str, annotations: Mapping[str, str] | None = None) -> Blob:
    """A small blob that is held in memory."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Blob(digest, len(content), media_type, title, lambda: BytesIO(content), annotations or {})


def push_all(
    client: Client,
    repository: str,
    blobs: Sequence[Blob],
    progress: Progress,
    sources: Mapping[str, str] | None = None,
) -> None:
    """Makes sure that a repository has all blobs, a few at a time; the first failure stops the rest.

    `sources` names, by digest, another repository of the registry that may have the blob.
    Raises `RegistryFault`, `Unavailable` and what `progress` raises.
    """
    stopped = threading.Event()

    def checked(more: int) -> None:
        if stopped.is_set():
            raise Cancelled
        progress(more)

    def push_one(blob: Blob) -> None:
        try:
            checked(0)
            push(client, repository, blob, checked, (sources or {}).get(blob.digest))
        except BaseException:
            stopped.set()
            raise

    once = {blob.digest: blob for blob in blobs}
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="blob") as pool:
        futures = [pool.submit(push_one, blob) for blob in once.values()]
        _done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
    errors = [error for future in futures if not future.cancelled() and (error := future.exception())]
    first = next((error for error in errors if not isinstance(error, Cancelled)), errors[0] if errors else None)
    if first:
        raise first


def push(client: Client, repository: str, blob: Blob, progress: Progress, source: str | None = None) -> None:
    """Makes sure that a repository has the blob. Raises `RegistryFault`, `Unavailable`."""
    if client.retry(lambda: exists(client, repository, blob)):
        progress(blob.size)
        return
    client.retry(lambda: _upload(client, repository, blob, progress, source))


def exists(client: Client, repository: str, blob: Blob) -> bool:
    """Whether the repository has the blob: one HEAD."""
    answer = client.exchange(
        Call(
            "HEAD",
            f"/v2/{repository}/blobs/{blob.digest}",
            f"the look-up of {blob.title}",
            repository,
            (auth.push_scope(repository),),
            expected=frozenset({200, 404}),
        )
    )
    return answer.status == 200


def download(client: Client, repository: str, digest: str) -> Iterator[bytes]:
    """The blob in pieces. Raises `RegistryFault` at its end when the bytes are not those of the digest."""
    step = f"the read of {digest[:19]}"
    call = Call("GET", f"/v2/{repository}/blobs/{digest}", step, repository, (auth.pull_scope(repository),))
    found = hashlib.sha256()
    with client.stream(call) as response:
        while piece := response.read(PIECE, decode_content=False):
            found.update(piece)
            yield piece
    if f"sha256:{found.hexdigest()}" != digest:
        raise RegistryFault(f"{client.registry.host} sent other bytes than those of {digest}.")


def _upload(client: Client, repository: str, blob: Blob, progress: Progress, source: str | None) -> None:
    """One try: a mount, or an upload session of its own, since nothing is known of a broken one."""
    session = _mount(client, repository, blob, source) if source else None
    session = session or _begin(client, repository, blob)
    if session.status == 201:
        progress(blob.size)
        return
    location = session.headers.get("Location")
    if not location:
        raise RegistryFault(f"{client.registry.host} began an upload of {blob.title} without saying where.")
    _send(client, repository, blob, location, progress)


def _mount(client: Client, repository: str, blob: Blob, source: str) -> Answer | None:
    """201 when the blob was mounted, 202 when an upload began instead, None when the registry does not do it."""
    call = Call(
        "POST",
        f"/v2/{repository}/blobs/uploads/?mount={blob.digest}&from={source}",
        f"the mount of {blob.title}",
        repository,
        (auth.push_scope(repository), auth.pull_scope(source)),
        expected=frozenset({201, 202}),
    )
    try:
        return client.exchange(call)
    except RegistryFault:
        return None


def _begin(client: Client, repository: str, blob: Blob) -> Answer:
    return client.exchange(
        Call(
            "POST",
            f"/v2/{repository}/blobs/uploads/",
            f"the write of {blob.title}",
            repository,
            (auth.push_scope(repository),),
            expected=frozenset({202}),
        )
    )


def _send(client: Client, repository: str, blob: Blob, location: str, progress: Progress) -> None:
    """The monolithic PUT. The location may carry a query of its own, which is kept."""
    body = _Body(blob, progress)
    call = Call(
        "PUT",
        f"{location}{'&' if '?' in location else '?'}digest={blob.digest}",
        f"the write of {blob.title}",
        repository,
        (auth.push_scope(repository),),
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)},
        body=body.begin,
        expected=frozenset({201}),
        answer_seconds=ANSWER_SECONDS + blob.size / ANSWER_BYTES_PER_SECOND,
    )
    try:
        answer = client.exchange(call)
    except (RegistryFault, Unavailable):
        body.take_back()
        raise
    finally:
        body.close()
    stored = answer.headers.get("Docker-Content-Digest", blob.digest)
    if stored != blob.digest:
        raise RegistryFault(f"{client.registry.host} stored other bytes than we sent for {blob.title} ({stored}).")


class _Body:
    """A blob as a request body that counts what was read of it, and can begin again."""

    def __init__(self, blob: Blob, progress: Progress) -> None:
        self._blob = blob
        self._progress = progress
        self._file: BinaryIO | None = None
        self._sent = 0

    def begin(self) -> "_Body":
        self.close()
        self.take_back()
        try:
            self._file = self._blob.open()
        except OSError as exc:
            raise RegistryFault(f"The stored file of {self._blob.title} cannot be read ({exc.strerror}).") from exc
        return self

    def read(self, size: int = -1, /) -> bytes:
        assert self._file is not None
        piece = self._file.read(size)
        if not piece and self._sent != self._blob.size:
            raise RegistryFault(
                f"The stored file of {self._blob.title} has {self._sent} bytes, not {self._blob.size}: upload it again."
            )
        self._sent += len(piece)
        self._progress(len(piece))
        return piece

    def take_back(self) -> None:
        if self._sent:
            self._progress(-self._sent)
            self._sent = 0

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
