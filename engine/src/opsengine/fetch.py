"""Bring a published pipeline into the local store, telling what is fetched in the start-up account."""

import logging

from opsengine import pipeline, registry
from opsengine.definition import ModelEntry
from opsengine.errors import PipelineError
from opsengine.pipeline import Artifact
from opsengine.registry import Reference, RegistryClient
from opsengine.settings import RegistrySettings
from opsengine.store import ContentStore

logger = logging.getLogger(__name__)


def fetch(location: str, digest: str | None, settings: RegistrySettings, store: ContentStore) -> str:
    """Pull what is missing of the pipeline at `location` (exactly `digest`, when given); returns its manifest's digest.

    Raises RegistryError, RegistryUnavailable or PipelineError.
    """
    reference = _reference(location, digest, settings)
    if digest and is_complete(digest, store):
        logger.info("Pipeline %s is here already", location)
        return digest
    client = RegistryClient(reference.host, settings)
    client.login(reference)
    logger.info("Login Succeeded" if client.has_credentials else "No registry login is set: pulling without")
    logger.info("Fetching manifest and config for pipeline: %s", location)
    manifest = client.manifest(reference)
    found = store.write(manifest)
    artifact = pipeline.read_manifest(found, manifest)
    client.pull_blob(reference, artifact.config.digest, artifact.config.size, store)
    definition = pipeline.read_definition(store.read(artifact.config.digest))
    logger.info("Fetching model layers")
    for entry in definition.models:
        layer = artifact.layers.get(entry.digest)
        if layer is None:
            raise PipelineError(f"The artifact lacks the file of model {entry.name}: publish the pipeline again.")
        client.pull_blob(reference, layer.digest, layer.size, store)
        _tell(entry)
    logger.info("Fetched")
    return found


def is_complete(digest: str, store: ContentStore) -> bool:
    """Whether everything that the pipeline needs is in the store."""
    return store.has(digest) and all(store.has(needed) for needed in needed_blobs(digest, store))


def needed_blobs(digest: str, store: ContentStore) -> set[str]:
    """The digests of a pulled pipeline: manifest, pipeline.json and the models of its steps."""
    artifact: Artifact = pipeline.read_manifest(digest, store.read(digest))
    needed = {digest, artifact.config.digest}
    if store.has(artifact.config.digest):
        definition = pipeline.read_definition(store.read(artifact.config.digest))
        needed |= {entry.digest for entry in definition.models}
    return needed


def _reference(location: str, digest: str | None, settings: RegistrySettings) -> Reference:
    default = (settings.address or "").split("://")[-1].rstrip("/") or None
    found = registry.parse_reference(location, default)
    return Reference(found.host, found.repository, found.tag, digest or found.digest)


def _tell(entry: ModelEntry) -> None:
    logger.info("digest: %s", entry.digest)
    logger.info("  filename: %s", entry.sha)
    logger.info("  name: %s", entry.name)
    logger.info("  type: model")
    logger.info("  runtime: %s", entry.runtime)
    logger.info("  version: %s", entry.version)
