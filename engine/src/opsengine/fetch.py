"""Bring a published pipeline into the local store, telling what is fetched in the start-up account."""

import logging
from collections.abc import Callable

from opsengine import golden, locations, pipeline, registry
from opsengine.definition import ModelEntry
from opsengine.errors import EngineError, PipelineError
from opsengine.locations import Reference
from opsengine.pipeline import Artifact
from opsengine.registry import RegistryClient
from opsengine.settings import RegistrySettings
from opsengine.signatures import Proofs
from opsengine.store import ContentStore

logger = logging.getLogger(__name__)


def fetch(
    location: str,
    digest: str | None,
    settings: RegistrySettings,
    store: ContentStore,
    proofs: Proofs,
    found: Callable[[str], None] = lambda _: None,
) -> str:
    """Pull what is missing of the pipeline at `location` (exactly `digest`, when given); returns its manifest's digest.

    `found` is told that digest as soon as it is known what the pipeline holds. The signature, where one is required,
    and the room on the disk are checked before any model is pulled. Raises RegistryError, RegistryUnavailable,
    SignatureError or PipelineError.
    """
    if digest and is_complete(digest, store) and proofs.has(digest):  # so it is with a folder, which is no reference
        logger.info("Pipeline %s is here already", location)
        return digest
    reference = _reference(location, digest, settings)
    client = RegistryClient(reference.host, settings)
    client.login(reference)
    logger.info("%s", client.credentials)
    logger.info("Fetching manifest and config for pipeline: %s", location)
    manifest = client.manifest(reference)
    lies_there = registry.digest_of(manifest)
    proofs.require(client, reference, lies_there)
    artifact = pipeline.read_manifest(lies_there, manifest)
    store.write(manifest)
    small = [blob for blob in (artifact.config, golden.layer(manifest)) if blob]
    for blob in small:
        client.pull_blob(reference, blob.digest, blob.size, store)
    definition = pipeline.read_definition(store.read(artifact.config.digest))
    found(lies_there)
    logger.info("Fetching model layers")
    wanted = {
        entry.digest: artifact.layers[entry.digest] for entry in definition.models if entry.digest in artifact.layers
    }
    store.check_room(sum(store.missing(blob.digest, blob.size) for blob in wanted.values()))
    for entry in definition.models:
        layer = artifact.layers.get(entry.digest)
        if layer is None:
            raise PipelineError(f"The artifact lacks the file of model {entry.name}: publish the pipeline again.")
        client.pull_blob(reference, layer.digest, layer.size, store)
        _tell(entry)
    logger.info("Fetched")
    return lies_there


def models(digest: str, store: ContentStore) -> tuple[ModelEntry, ...]:
    """The models of a pipeline, if what tells them is in the store; none otherwise."""
    try:
        artifact = pipeline.read_manifest(digest, store.read(digest))
        return pipeline.read_definition(store.read(artifact.config.digest)).models
    except (EngineError, OSError):
        return ()


def is_complete(digest: str, store: ContentStore) -> bool:
    """Whether everything that the pipeline needs is in the store."""
    return store.has(digest) and all(store.has(needed) for needed in needed_blobs(digest, store))


def needed_blobs(digest: str, store: ContentStore) -> set[str]:
    """The digests of a pulled pipeline: manifest, pipeline.json, golden.json and the models of its steps."""
    manifest = store.read(digest)
    artifact: Artifact = pipeline.read_manifest(digest, manifest)
    needed = {digest, artifact.config.digest}
    shipped = golden.layer(manifest)
    if shipped:
        needed.add(shipped.digest)
    if store.has(artifact.config.digest):
        definition = pipeline.read_definition(store.read(artifact.config.digest))
        needed |= {entry.digest for entry in definition.models}
    return needed


def is_intact(digest: str, store: ContentStore) -> bool:
    """Whether all of a pulled pipeline is here and still what it was; what is damaged is deleted."""
    if not store.is_intact(digest):
        return False
    config = pipeline.read_manifest(digest, store.read(digest)).config.digest
    if not store.is_intact(config):
        return False
    # All of them are looked at, so that one pull mends everything.
    return not [needed for needed in needed_blobs(digest, store) - {digest, config} if not store.is_intact(needed)]


def _reference(location: str, digest: str | None, settings: RegistrySettings) -> Reference:
    default = (settings.address or "").split("://")[-1].rstrip("/") or None
    found = locations.parse_reference(location, default)
    return Reference(found.host, found.repository, found.tag, digest or found.digest)


def _tell(entry: ModelEntry) -> None:
    logger.info("digest: %s", entry.digest)
    logger.info("  filename: %s", entry.sha)
    logger.info("  name: %s", entry.name)
    logger.info("  type: model")
    logger.info("  runtime: %s", entry.runtime)
    logger.info("  version: %s", entry.version)
