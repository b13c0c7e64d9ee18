"""Whether a publish holds: starts that it did not survive, and publishes that were taken back.

A start is noted on the disk before a pipeline is loaded and crossed out once it held, so the next process knows which
publish the one before died of.
"""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import orjson

from opsengine.pipeline import LoadedPipeline
from opsengine.store import write_file

logger = logging.getLogger(__name__)

CRASHES = 2  # starts in a row that a publish may not survive; one may have been a power cut
FAILURES = 20  # first inferences of a new publish that may all fail on the engine's side
BY_HAND = "It was taken back by hand."
HELD_SECONDS = 30.0  # alive for so long: whatever ends the process then, it is not the start


def taken_back(reason: str) -> str:
    """What is told of a publish that is not served any more."""
    return f"{reason} The publish before it is served again."


@dataclass(slots=True)
class Trial:
    """A publish in its first inferences. `before` stays in memory until one of them succeeded."""

    digest: str
    before: LoadedPipeline | None
    failures: int = 0


class Ledger:
    """The file behind it. A disk that is full must not keep a pipeline from being served: then memory has to do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._starts: dict[str, int] = {}
        self._rejected: dict[str, str] = {}
        try:
            told = orjson.loads(path.read_bytes())
            self._starts = {str(key): int(count) for key, count in told["starts"].items()}
            self._rejected = {str(key): str(why) for key, why in told["rejected"].items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            logger.warning("%s is damaged: what it knew of failed starts is forgotten", path)

    def begin(self, digest: str) -> None:
        """A pipeline is about to be loaded."""
        with self._lock:
            self._starts[digest] = self._starts.get(digest, 0) + 1
            self._save()

    def held(self, digest: str | None = None) -> None:
        """It works, or the engine ends in order; None means all that were begun."""
        with self._lock:
            known = dict(self._starts)
            self._starts = {key: count for key, count in known.items() if digest not in (None, key)}
            if self._starts != known:
                self._save()

    def has_crashed(self, digest: str) -> bool:
        """Whether the last starts with this pipeline ended the process."""
        return self._starts.get(digest, 0) >= CRASHES

    def reject(self, digest: str, reason: str) -> None:
        """Not to be tried again while it is what is wanted."""
        with self._lock:
            self._starts.pop(digest, None)
            self._rejected[digest] = reason
            self._save()

    def rejection(self, digest: str | None) -> str | None:
        """Why this publish was taken back, None when it was not."""
        return self._rejected.get(digest) if digest else None

    def forgive_all_but(self, digest: str | None) -> None:
        """Something else is wanted now: what was taken back before may be tried when it is wanted again."""
        with self._lock:
            known = dict(self._rejected)
            self._rejected = {key: why for key, why in known.items() if key == digest}
            if self._rejected != known:
                self._save()

    def _save(self) -> None:
        try:
            write_file(self._path, orjson.dumps({"starts": self._starts, "rejected": self._rejected}))
        except OSError as error:
            logger.warning("%s cannot be written (%s)", self._path, error.strerror)
