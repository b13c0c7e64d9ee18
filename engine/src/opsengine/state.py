"""What is served, kept in PERSIST_DIR so that a start without a network serves it again."""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from opsengine.store import write_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Publish:
    """A published pipeline: where it came from and the digest of its manifest."""

    location: str
    digest: str


@dataclass(frozen=True, slots=True)
class Served:
    """`active` is (or was last) in memory, `previous` came before; `given` is the PIPELINE_URL that was last obeyed."""

    active: Publish | None = None
    previous: Publish | None = None
    given: str | None = None

    def activated(self, publish: Publish, given: str) -> "Served":
        """After a swap to `publish`."""
        if self.active == publish:
            return replace(self, given=given)
        return Served(publish, self.active, given)

    @property
    def digests(self) -> list[str]:
        """Manifests to keep in the store."""
        return [publish.digest for publish in (self.active, self.previous) if publish]


def load(path: Path, *, strict: bool = False) -> Served:
    """Read the file, or its copy where it is damaged or cannot be read; a missing one counts as nothing served yet.

    `strict`: raises PermissionError where this user may not read it.
    """
    for one, then in ((path, "its copy is used"), (_copy(path), "the pipeline is fetched again")):
        try:
            return _read(one)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if one == path and isinstance(error, FileNotFoundError):
                break
            if strict and isinstance(error, PermissionError):
                raise
            wrong = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else "is damaged"
            logger.error("%s %s: %s", one, wrong, then)
    return Served()


def save(path: Path, served: Served) -> None:
    """Write the file durably, twice: without it a start without a network would not know what to serve."""
    for one in (_copy(path), path):
        write_file(one, orjson.dumps(asdict(served)))


def _copy(path: Path) -> Path:
    return path.with_suffix(".copy.json")


def _read(path: Path) -> Served:
    told = orjson.loads(path.read_bytes())
    return Served(_publish(told["active"]), _publish(told["previous"]), told["given"])


def _publish(told: dict[str, str] | None) -> Publish | None:
    return Publish(told["location"], told["digest"]) if told else None
