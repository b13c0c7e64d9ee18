"""Manifests and tags of a repository.

A manifest's file is its media type, a line feed, and then the exact bytes that were pushed. A tag's file is a digest.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.durable import remove_file, write_file
from registry.errors import DigestInvalid, ManifestBlobUnknown, ManifestInvalid, ManifestUnknown, NameUnknown
from registry.manifest_format import SIZE_LIMIT, Manifest, parse
from registry.references import Digest, is_tag
from registry.storage import Repository

# Room in a page of referrers for the index around the descriptors.
_PAGE_FRAME = 1024


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed."""

    digest: Digest
    media_type: str
    content: bytes


def manifest_for(repository: Repository, reference: str) -> StoredManifest:
    """Read a manifest by tag or digest. Raises ManifestUnknown, and DigestInvalid for a malformed digest."""
    digest = _resolve(repository, reference)
    try:
        stored = repository.manifest(digest).read_bytes()
    except FileNotFoundError:
        raise _unknown(repository, reference) from None
    media_type, _, content = stored.partition(b"\n")
    return StoredManifest(digest, media_type.decode(), content)


def put(repository: Repository, reference: str, media_type: str, content: bytes) -> tuple[Digest, Manifest]:
    """Store a manifest under its digest and, when `reference` is a tag, point the tag at it.

    Raises ManifestInvalid (form, type or tag), DigestInvalid (pushed by another digest than its own), StorageFull, and
    ManifestBlobUnknown for content the repository does not hold (a missing `subject` is allowed).
    """
    digest = _digest_for(reference, content)
    manifest = parse(content, media_type)
    _check_complete(repository, manifest)
    # Before the manifest: who sees it must find it among the referrers. An entry without its manifest is not listed.
    if manifest.subject is not None:
        entry = json.dumps(_descriptor(digest, manifest, len(content)), separators=(",", ":")).encode()
        write_file(_referrer(repository, manifest.subject, digest), entry, repository.scratch)
    write_file(repository.manifest(digest), media_type.encode() + b"\n" + content, repository.scratch)
    if ":" not in reference:
        write_file(repository.tags / reference, str(digest).encode(), repository.scratch)
    return digest, manifest


def delete(repository: Repository, reference: str) -> None:
    """Remove a tag, or by digest the manifest with all its tags. Raises ManifestUnknown and DigestInvalid."""
    if ":" not in reference:
        if not is_tag(reference) or not remove_file(repository.tags / reference):
            raise _unknown(repository, reference)
        return
    stored = manifest_for(repository, reference)
    subject = parse(stored.content, stored.media_type).subject
    remove_file(repository.manifest(stored.digest))
    for tag in _tags(repository):
        with suppress(FileNotFoundError):
            if (repository.tags / tag).read_text() == str(stored.digest):
                remove_file(repository.tags / tag)
    if subject is not None:
        remove_file(_referrer(repository, subject, stored.digest))


def tags_for(repository: Repository, last: str, limit: int | None) -> tuple[list[str], bool]:
    """At most `limit` tags after `last`, in case-insensitive order, and whether more follow. Raises NameUnknown."""
    if not repository.exists():
        raise NameUnknown(f"Nothing was ever pushed to a repository {repository.name}.")
    later = sorted((tag for tag in _tags(repository) if _order(tag) > _order(last)), key=_order)
    if limit is None:
        return later, False
    return later[:limit], 0 < limit < len(later)


def referrers_for(
    repository: Repository, subject: Digest, artifact_type: str, last: str
) -> tuple[list[dict[str, Any]], bool]:
    """Descriptors of the manifests with this `subject`, by digest, after the digest `last`; and whether more follow.

    Only those of `artifact_type`, unless it is empty. A page ends where its JSON would outgrow a manifest's limit.
    """
    found: list[dict[str, Any]] = []
    size = 0
    for path in sorted(_files(repository.referrers(subject)), key=lambda path: path.name):
        digest = Digest.parse(path.name.replace("-", ":", 1))
        if str(digest) <= last or not repository.manifest(digest).is_file():
            continue
        try:
            entry = path.read_bytes()
        except FileNotFoundError:
            continue
        descriptor: dict[str, Any] = json.loads(entry)
        if artifact_type and descriptor.get("artifactType") != artifact_type:
            continue
        size += len(entry)
        if found and size > SIZE_LIMIT - _PAGE_FRAME:
            return found, True
        found.append(descriptor)
    return found, False


def _resolve(repository: Repository, reference: str) -> Digest:
    if ":" in reference:
        return Digest.parse(reference)
    if not is_tag(reference):
        raise _unknown(repository, reference)
    try:
        return Digest.parse((repository.tags / reference).read_text())
    except FileNotFoundError:
        raise _unknown(repository, reference) from None


def _unknown(repository: Repository, reference: str) -> ManifestUnknown:
    return ManifestUnknown(
        f"The repository {repository.name} holds no manifest {reference[:200]!r}.", {"reference": reference[:200]}
    )


def _digest_for(reference: str, content: bytes) -> Digest:
    if ":" not in reference:
        if not is_tag(reference):
            raise ManifestInvalid(
                f"{reference[:200]!r} is not a tag: use at most 128 letters, digits and '._-', not first '.' or '-'."
            )
        return Digest.of(content)
    digest = Digest.parse(reference)
    if not digest.matches(content):
        raise DigestInvalid(
            f"The manifest's bytes do not have the digest {digest} it was pushed by.", {"digest": str(digest)}
        )
    return digest


def _check_complete(repository: Repository, manifest: Manifest) -> None:
    missing = [str(digest) for digest in manifest.blobs if not repository.blob(digest).is_file()]
    missing += [str(digest) for digest in manifest.children if not repository.manifest(digest).is_file()]
    if missing:
        raise ManifestBlobUnknown(missing)


def _descriptor(digest: Digest, manifest: Manifest, size: int) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"mediaType": manifest.media_type, "digest": str(digest), "size": size}
    if manifest.artifact_type:
        descriptor["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        descriptor["annotations"] = manifest.annotations
    return descriptor


def _referrer(repository: Repository, subject: Digest, digest: Digest) -> Path:
    return repository.referrers(subject) / f"{digest.algorithm}-{digest.encoded}"


def _tags(repository: Repository) -> list[str]:
    return [path.name for path in _files(repository.tags)]


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _order(tag: str) -> tuple[str, str]:
    return tag.lower(), tag
