"""The step of a publish that signs and describes what was pushed. Reads the database when made, not while it runs."""

from django.conf import settings

from publishing import attachments, descriptions, signing
from publishing.artifact import PipelineContent
from publishing.attachments import Told
from publishing.descriptions import Engine, Origin
from publishing.models import Publish, RegistrySettings, SigningKey
from publishing.oci import manifests, references
from publishing.oci.client import Client
from publishing.oci.content import Progress
from publishing.oci.packages import Package
from publishing.oci.referrers import Subject


class Describing:
    """What will be said of one publish's pipeline and chart, and of the images that went with them."""

    def __init__(
        self,
        publish: Publish,
        content: PipelineContent,
        registry: RegistrySettings,
        key: SigningKey | None,
        engine_url: str,
    ) -> None:
        """`engine_url` is where engines pull their image from; empty for none. Raises `UnusableSigningKey`."""
        self._content, self._registry = content, registry
        self.key = key
        self._key = signing.signer(key.private_key) if key else None
        self._origin = _origin(publish)
        self._engine_url = engine_url
        self.notes: list[str] = []  # what the registry would not take

    @property
    def step(self) -> str:
        """For people who watch."""
        return "Signing and describing" if self._key else "Describing"

    def run(
        self,
        client: Client,
        pipeline: Package,
        helm: Package,
        progress: Progress,
        *,
        engine_digest: str = "",
        image: Subject | None = None,
    ) -> None:
        """`engine_digest` is that of the copied engine image, `image` the one that holds engine and pipeline.

        Raises `RegistryFault`, `Unavailable` and what `progress` raises.
        """
        copied = self._engine(client, engine_digest)
        engine = Engine(self._engine_url, copied.digest if copied else "") if self._engine_url else None
        told = [self._told(_subject(pipeline), engine, kind="application")]
        if self._key:  # the chart only wraps the pipeline: described where somebody checks it
            told.append(self._told(_subject(helm), engine))
            told += [Told(copied, f"{self._registry.registry}/{copied.repository}")] if copied else []
        told += [self._told(image, engine, kind="container")] if image else []
        for each in told:
            found = attachments.attach_all(client, each, self._key, progress)
            self.notes += [note for note in found if note not in self.notes]

    def _told(self, subject: Subject, engine: Engine | None, *, kind: str = "") -> Told:
        """Provenance, and a bill of materials of what is of a `kind`."""
        reference = f"{self._registry.registry}/{subject.repository}"
        origin = descriptions.provenance(self._content, self._origin, engine)
        if not kind:
            return Told(subject, reference, provenance=origin)
        version = settings.CENTER_VERSION
        bom = descriptions.bill_of_materials(self._content, subject.digest, engine, version, kind)
        return Told(subject, reference, bom, origin)

    def _engine(self, client: Client, digest: str) -> Subject | None:
        """The engine image, when it was copied beside the pipelines: only there may we write."""
        prefix = f"{self._registry.registry}/{self._registry.repository}/engines/"
        if not self._engine_url.startswith(prefix):
            return None
        host = self._registry.registry
        named = references.within(host, self._engine_url.removeprefix(f"{host}/"))
        found = manifests.get(client, named.repository, digest or named.wanted)
        return Subject(named.repository, found.digest, len(found.content), found.media_type)


def _subject(package: Package) -> Subject:
    return Subject(
        package.repository, package.manifest.digest, len(package.manifest.content), package.manifest.media_type
    )


def _origin(publish: Publish) -> Origin:
    return Origin(
        center=settings.PUBLIC_URL,
        center_version=settings.CENTER_VERSION,
        publish=publish.pk,
        workspace=publish.pipeline_version.pipeline.workspace.name,
        requested_by=str(publish.created_by.public_id),  # not the address: registries may be public
        requested_at=publish.created_at,
        engine_config=publish.engine_config,
    )
