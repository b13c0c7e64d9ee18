"""What a publish does at registries, step by step; of databases it knows nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext_noop

from publishing import artifact, self_contained
from publishing.engine_image import EngineCopy
from publishing.oci import faults, images, manifests, packages
from publishing.oci.client import Client
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.images import ImageTree
from publishing.oci.packages import Package
from publishing.oci.referrers import Subject
from publishing.self_contained import Layer, Naming

Step = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class Work:
    """What is to arrive. `sources` names by digest a repository to mount from.

    `image` asks for the self-contained image; `known_layer` is what an earlier publish recorded of its layer.
    """

    pipeline: Package
    chart: Package
    sources: Mapping[str, str]
    engine: EngineCopy | None = None
    platforms: tuple[str, ...] = ()
    image: Naming | None = None
    image_repository: str = ""
    known_layer: Mapping[str, Any] = field(default_factory=dict)


class Transfer:
    """Runs the steps of a work. Digests are there once their step is done."""

    def __init__(self, client: Client, source: Client, work: Work, progress: Callable[[int], None]) -> None:
        self._client = client
        self._source = source
        self._work = work
        self._progress = progress
        self._engine: ImageTree | None = None
        self._image: ImageTree | None = None
        self.engine_digest = ""
        self.image_digest = ""
        self.layer: dict[str, Any] = {}

    @property
    def total(self) -> int:
        """Bytes of all that is to arrive, as far as is known."""
        trees = (self._engine, self._image)
        return self._work.pipeline.size + self._work.chart.size + sum(tree.size for tree in trees if tree)

    @property
    def image(self) -> Subject | None:
        """The image that holds engine and pipeline, once it is composed."""
        if self._image is None:
            return None
        top = self._image.top
        return Subject(self._work.image_repository, top.digest, len(top.content), top.media_type)

    def steps(self) -> list[Step]:
        """Names for people, and what is done. They raise `RegistryFault`, `Unavailable` and what `progress` raises."""
        work, client = self._work, self._client
        pipeline, helm = work.pipeline, work.chart
        found: list[Step] = [("Logging in to the registry", lambda: client.log_in(pipeline.repository))]
        if work.engine:
            found.append(("Looking up the engine image", self._look_up))
        if work.image:
            found.append(("Composing the image", self._compose))
        found.append(
            (
                gettext_noop("Pushing the pipeline"),
                lambda: packages.push(client, pipeline, self._progress, work.sources),
            )
        )
        if work.engine:
            found.append((gettext_noop("Copying the engine image"), self._copy_engine))
        if work.image:
            found.append((gettext_noop("Pushing the image"), self._push_image))
        found.append((gettext_noop("Pushing the Helm chart"), lambda: packages.push(client, helm, self._progress)))
        return found

    def _look_up(self) -> None:
        work, engine = self._work, self._work.engine
        assert engine is not None
        wanted = engine.source.digest
        by_digest = wanted and not work.image and not work.platforms
        # Named by digest and there already: its source need not even be up.
        if by_digest and manifests.head(self._client, engine.repository, engine.tag) == wanted:
            self.engine_digest = wanted
            return
        with self._reading():
            self._engine = images.read(self._source, engine.source.repository, engine.source.wanted, work.platforms)
        self.engine_digest = self._engine.top.digest

    def _copy_engine(self) -> None:
        engine, tree = self._work.engine, self._engine
        if tree is None or engine is None:
            return
        is_same = self._source.registry.host == self._client.registry.host
        mount_from = engine.source.repository if is_same else None
        images.copy(self._client, engine.repository, engine.tag, tree, self._progress, mount_from)

    def _compose(self) -> None:
        """Reads the engine's configs and, unless an earlier publish did, hashes the layer."""
        work, tree, engine = self._work, self._engine, self._work.engine
        assert work.image is not None and tree is not None and engine is not None
        with self._reading():
            configs = {
                config.digest: images.content(self._source, engine.source.repository, config)
                for config in (self_contained.config_of(image) for image in tree.images if image.is_runnable)
            }
        layer = self_contained.layer_of(work.pipeline, artifact.FILE_PATH)
        blob = layer.blob(self._layer_digest(layer))
        self.layer = {"layout": self_contained.LAYOUT, "digest": blob.digest, "size": blob.size}
        self._image = self_contained.compose(tree, configs, blob, work.image)
        self.image_digest = self._image.top.digest

    def _layer_digest(self, layer: Layer) -> str:
        known = self._work.known_layer
        if known.get("layout") == self_contained.LAYOUT and known.get("size") == layer.size:
            return str(known["digest"])
        return layer.digest(self._progress)

    def _push_image(self) -> None:
        work, tree, engine = self._work, self._image, self._work.engine
        assert work.image is not None and tree is not None and engine is not None
        images.copy(self._client, work.image_repository, work.image.version, tree, self._progress, engine.repository)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Faults of the source name the image, and the settings that it is read with."""
        assert self._work.engine is not None
        try:
            yield
        except (RegistryFault, Unavailable) as fault:
            words = fault.message if self._source is self._client else source_words(fault)
            message = f"The engine image {self._work.engine.source} (ENGINE_IMAGE) cannot be read: {words}"
            raise RegistryFault(message, status=getattr(fault, "status", 0)) from fault


def source_words(fault: RegistryFault | Unavailable) -> str:
    """What a registry's fault says when the engine image is read there: its own settings are what may be wrong."""
    return fault.message.replace(
        faults.SETTINGS, "(ENGINE_IMAGE_USERNAME, ENGINE_IMAGE_PASSWORD, ENGINE_IMAGE_PLAIN_HTTP)"
    )
