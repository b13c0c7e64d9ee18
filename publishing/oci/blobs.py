"""Blobs: asked for first, mounted where the registry has them elsewhere, else sent at constant memory."""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from publishing.oci import auth, chunks, uploads
from publishing.oci.client import Answer, Call, Client
from publishing.oci.content import Blob as Blob
from publishing.oci.content import Body, Progress
from publishing.oci.content import of_bytes as of_bytes
from publishing.oci.faults import Cancelled, RegistryFault, Unavailable
from publishing.oci.transport import PIECE
from publishing.oci.uploads import Target

AT_ONCE = 4  # measured: two get most of it on a local registry, more help where there is latency


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

    def once() -> None:
        """Asked for at every try: an upload whose answer was lost may have arrived."""
        if exists(client, repository, blob):
            progress(blob.size)
        else:
            _upload(client, repository, blob, progress, source)

    client.retry(once)


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
    """One try: on with the session that an earlier run left, else a mount, else an upload session of its own."""
    target = uploads.Target(client, repository, blob.title)
    if left := client.sessions.location(repository, blob.digest):
        chunks.resume(target, blob, left, progress)
        return
    session = _mount(client, repository, blob, source) if source else None
    if session and session.status == 201:
        progress(blob.size)
        return
    location = uploads.location_of(target, session) if session else uploads.begin(target)
    if client.plan.is_chunked_for(blob.size):
        chunks.send(target, blob, location, progress)
        return
    try:
        _send(target, blob, location, progress)
    except RegistryFault as fault:
        if fault.status != 413 or not client.plan.shrink(blob.size):
            raise
        chunks.send(target, blob, uploads.begin(target), progress)


def _mount(client: Client, repository: str, blob: Blob, source: str) -> Answer | None:
    """201 when the blob was mounted, 202 when an upload began instead, None when the registry does not do it."""
    if not client.plan.mounts:
        return None
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


def _send(target: Target, blob: Blob, location: str, progress: Progress) -> None:
    """The monolithic PUT."""
    body = Body(blob, progress)
    try:
        uploads.finish(target, location, blob.digest, body.begin, blob.size)
    except (RegistryFault, Unavailable):
        body.take_back()
        raise
    finally:
        body.close()
