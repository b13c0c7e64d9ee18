"""Upload sessions that are open, so that a push whose process died goes on where the registry says it has got to."""

import json
import threading
from typing import Self

MOST_LOCATION = 4096  # characters; a longer address is not remembered, and its blob begins anew
MOST_OPEN = 100


class Sessions:
    """Where each blob's session is, by repository and digest. Safe to share between the threads of one push.

    An address may be all that its holder needs to write there: `stored` is to be kept like a password.
    """

    def __init__(self) -> None:
        self._open: dict[str, str] = {}
        self._lock = threading.Lock()
        self.changes = 0  # grows with every change, so that one who keeps them need not compare

    @classmethod
    def of(cls, host: str, stored: str) -> Self:
        """What `stored` of this registry's sessions said; of another registry's, or of nonsense, none."""
        found = cls()
        try:
            told = json.loads(stored)
            if told["host"] == host:
                found._open = {str(key): str(location) for key, location in told["open"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        return found

    def stored(self, host: str) -> str:
        """All of them as text; empty for none."""
        with self._lock:
            return json.dumps({"host": host, "open": self._open}, sort_keys=True) if self._open else ""

    def location(self, repository: str, digest: str) -> str:
        """Where to go on with a blob; empty when no session is known."""
        with self._lock:
            return self._open.get(_key(repository, digest), "")

    def begun(self, repository: str, digest: str, location: str) -> None:
        """The session of a blob is there now: every answer may name another place."""
        key = _key(repository, digest)
        with self._lock:
            self._open.pop(key, None)  # what was remembered is no more true
            if len(location) <= MOST_LOCATION and len(self._open) < MOST_OPEN:
                self._open[key] = location
            self.changes += 1

    def ended(self, repository: str, digest: str) -> None:
        """The blob is there, or its session is of no more use."""
        with self._lock:
            if self._open.pop(_key(repository, digest), None) is not None:
                self.changes += 1


def _key(repository: str, digest: str) -> str:
    return f"{repository}@{digest}"
