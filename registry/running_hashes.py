"""Hash states of uploads in progress, so that a chunked upload is hashed as it arrives and not once more at its end.

`hashlib` states cannot be written to disk. They are only a gain of time, kept by the process that received the bytes:
another process, or this one after a restart, reads the file again when the upload is closed.
"""

import threading
from collections import OrderedDict

from registry.references import Hash

# Uploads abandoned by their clients must not pile up; an upload pushed out is only read once more.
_LIMIT = 256


class RunningHashes:
    """At most `_LIMIT` hash states, each good for one length of one upload."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: OrderedDict[str, tuple[int, Hash]] = OrderedDict()

    def take(self, upload_id: str, offset: int) -> Hash | None:
        """Hand over the state of the upload's first `offset` bytes, or None when it is not known here."""
        with self._lock:
            known = self._states.pop(upload_id, None)
        return known[1] if known is not None and known[0] == offset else None

    def keep(self, upload_id: str, offset: int, state: Hash) -> None:
        """Remember the state of the upload's first `offset` bytes."""
        with self._lock:
            self._states[upload_id] = (offset, state)
            while len(self._states) > _LIMIT:
                self._states.popitem(last=False)
