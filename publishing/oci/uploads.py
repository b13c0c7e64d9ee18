"""Upload sessions: begun by POST, ended by the PUT that names the digest (distribution-spec, "Pushing blobs")."""

from collections.abc import Callable
from dataclasses import dataclass

from publishing.oci import auth
from publishing.oci.client import Answer, Call, Client
from publishing.oci.faults import RegistryFault
from publishing.oci.transport import ANSWER_SECONDS, Readable

# A registry may hash or move what it received before it answers; slow object stores do 10 MB/s.
ANSWER_BYTES_PER_SECOND = 10_000_000


@dataclass(frozen=True)
class Target:
    """Where a blob goes; `title` names it to people."""

    client: Client
    repository: str
    title: str

    def call(self, method: str, url: str, expected: set[int], **more: object) -> Call:
        """A call that writes there."""
        scopes = (auth.push_scope(self.repository),)
        step = f"the write of {self.title}"
        return Call(method, url, step, self.repository, scopes, expected=frozenset(expected), **more)  # type: ignore[arg-type]


def begin(target: Target) -> str:
    """A new session; answers its location. Raises `RegistryFault`, `Unavailable`."""
    return location_of(target, opened(target))


def opened(target: Target) -> Answer:
    """The answer that opened a new session, whose headers may tell limits."""
    return target.client.exchange(target.call("POST", f"/v2/{target.repository}/blobs/uploads/", {202}))


def location_of(target: Target, answer: Answer) -> str:
    """Where the session goes on: every answer may name another place."""
    location = answer.headers.get("Location")
    if not location:
        raise RegistryFault(f"{target.client.registry.host} began an upload of {target.title} without saying where.")
    return location


def finish(
    target: Target, location: str, digest: str, body: Callable[[], Readable | bytes], size: int, total: int = 0
) -> None:
    """The PUT that ends the session, with the last `size` bytes. The location's own query is kept.

    `total` is the size of the whole blob, where parts of it were sent before.
    """
    call = target.call(
        "PUT",
        f"{location}{'&' if '?' in location else '?'}digest={digest}",
        {201},
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
        body=body,
        answer_seconds=ANSWER_SECONDS + (total or size) / ANSWER_BYTES_PER_SECOND,
    )
    stored = target.client.exchange(call).headers.get("Docker-Content-Digest", digest)
    if stored != digest:
        host = target.client.registry.host
        raise RegistryFault(f"{host} stored other bytes than we sent for {target.title} ({stored}).")


def cancel(target: Target, location: str) -> None:
    """Gives a session up, where the registry allows; it ends by itself otherwise."""
    try:
        target.client.exchange(target.call("DELETE", location, {200, 202, 204}))
    except RegistryFault:
        return
