"""Which ways of sending a blob the registry takes; what it does not is noted in the plan."""

from urllib.parse import quote

from publishing.doctor.place import Place
from publishing.doctor.report import FAIL, OK, WARN
from publishing.doctor.samples import BODY, EMPTY, LARGE, SMALL
from publishing.oci import chunks, uploads
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.plan import GHCR_PATCH, MIB

_RAISE = "Raise the limit of the registry or the proxy before it (nginx: client_max_body_size 0)."


def blob(at: Place) -> None:
    """A tiny one, which everything after it is made of. Raises `RegistryFault`, `Unavailable`."""
    for blob in (SMALL, EMPTY):
        target = at.target(blob)
        at.client.retry(
            lambda target=target, blob=blob: uploads.finish(  # type: ignore[misc]
                target, uploads.begin(target), blob.digest, blob.open, blob.size
            )
        )
    at.report.add("blob", OK, f"A tiny blob was written to {at.repository}.")


def whole(at: Place) -> None:
    """A large one in one request. Raises `RegistryFault` for another refusal than its size, `Unavailable`."""
    target = at.target(LARGE)
    try:
        at.client.retry(lambda: uploads.finish(target, uploads.begin(target), LARGE.digest, LARGE.open, LARGE.size))
    except RegistryFault as fault:
        if fault.status != 413:
            raise
        at.client.plan.most_body = 0
        said = "A request of 5 MiB is too large for it or for a proxy before it, so pushes go in chunks."
        remedy = "Raise the limit (nginx: client_max_body_size 0): pushes are faster then."
        at.report.add("large blob", WARN, said, remedy)
        return
    at.report.add("large blob", OK, "A blob of 5 MiB was written in one request.")


def chunked(at: Place) -> None:
    """Which size of PATCH it takes, and whether it tells how far an upload is."""
    plan = at.client.plan
    sizes = [size for size in (LARGE.size, GHCR_PATCH, MIB, MIB // 4) if size <= max(plan.chunk_bytes, LARGE.size)]
    for size in sizes:
        if _patched(at, size):
            if size < LARGE.size:
                plan.chunk_bytes = size
            at.report.add("chunked upload", OK, f"Chunks are taken, {plan.chunk_bytes // 1024} KiB at a time.")
            return
    plan.chunked = False
    if plan.most_body is None:
        at.report.add("chunked upload", OK, "It takes no chunks, so every blob goes in one request.")
    else:
        at.report.add("chunked upload", FAIL, "It takes neither large requests nor chunks.", _RAISE)


def _patched(at: Place, size: int) -> bool:
    """One chunk to a session that is given up then: nothing stays."""
    target = at.target(LARGE)
    location = at.client.retry(lambda: uploads.begin(target))
    call = target.call(
        "PATCH",
        location,
        {202},
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
            "Content-Range": f"0-{size - 1}",
        },
        body=lambda: BODY[:size],
    )
    try:
        answer = at.client.exchange(call)
    except (RegistryFault, Unavailable):
        return False
    kept = chunks.kept(answer)
    uploads.cancel(target, answer.headers.get("Location") or location)
    return kept is None or kept == size


def mount(at: Place) -> None:
    """From another repository; some registries never do. Raises `Unavailable`."""
    path = f"/v2/{at.repository}/blobs/uploads/?mount={SMALL.digest}&from={quote(at.repository, safe='/')}"
    target = at.target(SMALL)
    try:
        answer = at.client.exchange(target.call("POST", path, {201, 202}))
    except RegistryFault:
        at.client.plan.mounts = False
        at.report.add("mount", OK, "It does not mount blobs between repositories: they are sent again.")
        return
    if answer.status == 202:
        uploads.cancel(target, uploads.location_of(target, answer))
        at.report.add("mount", OK, "It did not mount a blob just now: where it will not, blobs are sent again.")
    else:
        at.report.add("mount", OK, "Blobs are mounted between repositories without sending them again.")
