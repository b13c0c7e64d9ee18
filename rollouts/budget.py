"""How many bytes an edge must fetch: the blobs of the target's artifact that the publish it serves does not have."""

from collections.abc import Iterable

from publishing import artifact
from publishing import queries as publishing
from publishing.models import Publish


class Budget:
    """Bytes from what edges serve to a target. Each publish is looked at once, however many edges serve it."""

    def __init__(self, target: Publish, digests: Iterable[str]) -> None:
        """`digests` are what the edges reported that they serve."""
        self._target, self._manifest = _blobs(target)
        wanted = {digest for digest in digests if digest}
        served = Publish.objects.filter(pipeline_digest__in=wanted).select_related("pipeline_version__pipeline")
        self._missing = {
            publish.pipeline_digest: 0 if publish.pipeline_digest == target.pipeline_digest else self._beside(publish)
            for publish in served
        }

    def missing(self, digest: str) -> int:
        """Bytes to fetch for an edge that serves this digest; everything when it serves nothing that we know."""
        return self._missing.get(digest, sum(self._target.values()) + self._manifest)

    def _beside(self, publish: Publish) -> int:
        there = _blobs(publish)[0]
        return sum(size for digest, size in self._target.items() if digest not in there) + self._manifest


def _blobs(publish: Publish) -> tuple[dict[str, int], int]:
    """Sizes of the artifact's blobs by digest, and of its manifest. Built from the version; no file is read."""
    package = artifact.build(publishing.content_of(publish.pipeline_version, publishing.golden_of(publish)), "")
    return {blob.digest: blob.size for blob in package.blobs}, len(package.manifest.content)
