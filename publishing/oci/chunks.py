"""A blob in chunks, for registries that do not take it whole: resumed where the registry says it has got to.

That holds after a fault, and for another process too: where the session is, is told to the client's `sessions`. Some
registries (distribution, and Harbor, which is built on it) give a session up when it broke within a chunk: begun anew.
"""

import re

from publishing.oci import uploads
from publishing.oci.client import Answer
from publishing.oci.content import Blob, Body, Progress
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.uploads import Target

MINIMUM = "OCI-Chunk-Min-Length"
GONE = frozenset({400, 404, 405, 410, 416})  # what registries say of a session that they do not know, or cannot tell of
REFUSED = frozenset({401, 403})  # of the account, not of the session
MOST_RESTARTS = 3  # a registry that loses sessions again and again is not sent the same bytes for ever


def send(target: Target, blob: Blob, location: str, progress: Progress) -> None:
    """PATCHes all of the blob to this session and ends it. Each chunk is tried again by itself.

    Raises `RegistryFault`, `Unavailable` when the session is lost or a fault does not pass.
    """
    _Chunks(target, blob, location, progress).run()


def resume(target: Target, blob: Blob, location: str, progress: Progress) -> None:
    """As `send`, with a session that an earlier process left: the registry is asked how far it is.

    Where the session is gone, or what it holds turns out wrong, the blob begins anew.
    """
    _Chunks(target, blob, location, progress, is_left=True).run()


class Ended(Exception):
    """The session is gone at its end."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class _Chunks:
    def __init__(self, target: Target, blob: Blob, location: str, progress: Progress, *, is_left: bool = False) -> None:
        self._target = target
        self._blob = blob
        self._progress = progress
        self._is_left = is_left  # by another process, and this registry has not spoken of it yet
        self._is_begun_before = is_left
        self._have = 0
        self._least = 0
        self._restarts = 0
        self._is_lost = is_left  # whether what the registry has must be asked for before going on
        self._is_at(location)

    def run(self) -> None:
        client = self._target.client
        try:
            while self._have < self._blob.size:
                client.retry(self._step)
            client.retry(self._finish)
            self._forget()
        except Ended as fault:
            self._forget()
            self._counted(-self._have)
            raise Unavailable(fault.message) from fault
        except Unavailable as fault:
            if self._is_left:  # its address may be one that nobody serves any more
                self._forget()
            self._counted(-self._have)
            raise Unavailable(fault.message, is_final=True) from fault
        except RegistryFault as fault:
            if fault.status not in REFUSED:
                self._forget()
            self._counted(-self._have)
            raise

    def _step(self) -> None:
        asked = self._is_lost
        if asked:
            self._ask()
        if self._have == self._blob.size:
            return
        size = min(max(self._target.client.plan.chunk_bytes, self._least), self._blob.size - self._have)
        body = Body(self._blob, self._progress, self._have, size)
        try:
            answer = self._patch(body, size)
        except (RegistryFault, Unavailable) as fault:
            body.take_back()
            self._is_lost = True
            self._bear(fault, size, asked)
            return  # the next step asks how far the registry is
        finally:
            body.close()
        self._learn(answer, self._have + size)

    def _bear(self, fault: RegistryFault | Unavailable, size: int, asked: bool) -> None:
        """Makes the best of a chunk that did not arrive. Raises what is to be tried later, or what stays."""
        if isinstance(fault, Unavailable):
            raise fault
        if fault.status == 416 and asked:  # what it says and what it has are not the same
            self._restart()
        elif fault.status in {404, 416}:  # a lost session, or one that is elsewhere: it passes once that was asked
            raise Unavailable(fault.message) from fault
        elif fault.status != 413 or size <= self._least or not self._target.client.plan.shrink(size):
            raise fault

    def _patch(self, body: Body, size: int) -> Answer:
        last = self._have + size - 1
        call = self._target.call(
            "PATCH",
            self._location,
            {202},
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
                "Content-Range": f"{self._have}-{last}",
            },
            body=body.begin,
        )
        return self._target.client.exchange(call)

    def _learn(self, answer: Answer, sent: int) -> None:
        """What was counted is what was sent; a registry that kept less of it is sent the rest again."""
        self._is_at(uploads.location_of(self._target, answer))
        self._least = max(self._least, _minimum(answer))
        there = kept(answer)
        before = self._have
        # ECR's Range is not to be relied on: one that makes no sense is not believed.
        self._have = there if there is not None and before < there <= sent else sent
        self._counted(self._have - sent)

    def _ask(self) -> None:
        """GET of the session: 204 with the Range that is there. A registry that cannot say is begun with anew."""
        call = self._target.call("GET", self._location, {200, 202, 204})
        try:
            answer = self._target.client.exchange(call)
        except RegistryFault as fault:
            if fault.status in GONE:
                self._restart()
                return
            raise
        there = kept(answer)
        if there is None or there > self._blob.size:
            self._restart()
            return
        self._counted(there - self._have)
        self._have, self._is_lost, self._is_left = there, False, False
        self._is_at(answer.headers.get("Location") or self._location)

    def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > MOST_RESTARTS:
            host = self._target.client.registry.host
            raise RegistryFault(f"{host} loses the upload of {self._blob.title} again and again: see its log.")
        self._counted(-self._have)
        self._have, self._is_lost, self._is_left, self._is_begun_before = 0, False, False, False
        self._is_at(uploads.begin(self._target))

    def _finish(self) -> None:
        """An end whose answer was lost may have been one: the caller asks for the blob before it begins again."""
        try:
            uploads.finish(self._target, self._location, self._blob.digest, lambda: b"", 0, self._blob.size)
        except RegistryFault as fault:
            # 400: what another process left is not the beginning of this blob.
            if fault.status != 404 and not (fault.status == 400 and self._is_begun_before):
                raise
            raise Ended(fault.message) from fault

    def _is_at(self, location: str) -> None:
        self._location = location
        self._target.client.sessions.begun(self._target.repository, self._blob.digest, location)

    def _forget(self) -> None:
        self._target.client.sessions.ended(self._target.repository, self._blob.digest)

    def _counted(self, more: int) -> None:
        if more:
            self._progress(more)


def kept(answer: Answer) -> int | None:
    """Bytes that the registry has: `Range: 0-99` are a hundred; distribution says `0-0` for none."""
    found = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("Range", "").strip())
    if not found:
        return None
    return int(found[1]) + 1 if int(found[1]) else 0


def _minimum(answer: Answer) -> int:
    text = answer.headers.get(MINIMUM, "")
    return int(text) if text.isdigit() else 0
