"""Where the registry keeps its files. See docs/registry.md, "On disk"."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from registry.references import Digest, check_name


@dataclass(frozen=True, slots=True)
class Repository:
    """The folders of one repository under the registry's root."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root / "repositories" / self.name

    @property
    def tags(self) -> Path:
        return self.folder / "_tags"

    @property
    def scratch(self) -> Path:
        """Uploads and half-written files of all repositories: nothing in here is visible to clients."""
        return self.root / "uploads"

    def blob(self, digest: Digest) -> Path:
        return self.folder / "_blobs" / digest.algorithm / digest.encoded

    def shared_blob(self, digest: Digest) -> Path:
        """The name under which all repositories find the same bytes."""
        return self.root / "blobs" / digest.algorithm / digest.encoded[:2] / digest.encoded

    def manifest(self, digest: Digest) -> Path:
        return self.folder / "_manifests" / digest.algorithm / digest.encoded

    def referrers(self, subject: Digest) -> Path:
        return self.folder / "_referrers" / subject.algorithm / subject.encoded

    def upload(self, upload_id: str) -> Path:
        """The file of an upload. It carries the repository's mark, so another repository cannot go on with it."""
        mark = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        return self.scratch / f"{upload_id}.{mark}"

    def exists(self) -> bool:
        """Whether anything was ever pushed here."""
        return any((self.folder / part).is_dir() for part in ("_blobs", "_manifests"))


def repository_named(name: str) -> Repository:
    """The repository called `name`, which need not exist yet. Raises NameInvalid."""
    return Repository(root=settings.REGISTRY_ROOT, name=check_name(name))
