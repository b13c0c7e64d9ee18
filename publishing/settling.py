"""Which golden request a version is published with: that of its first publish, for good."""

from django.utils.translation import gettext as _

from catalog.models import PipelineVersion
from publishing import queries
from publishing.errors import OtherGolden
from publishing.golden import Golden
from publishing.models import GoldenRequest, Publish


def settled(version: PipelineVersion, request: Golden | None) -> GoldenRequest | None:
    """What this version ships. The first publish settles it: a published artifact and its tag never change.

    Within the caller's transaction. Raises `OtherGolden`.
    """
    PipelineVersion.objects.select_for_update().get(pk=version.pk)  # two publishes at once settle it once
    before = queries.settled_by(version)
    if before is None:
        return _stored(version, request) if request else None
    if request and (before.golden is None or before.golden.digest != request.digest):
        raise OtherGolden(_already(version, with_golden=before.golden is not None), publish=before.pk)
    return before.golden


def _already(version: PipelineVersion, *, with_golden: bool) -> str:
    if with_golden:
        words = _(
            "%(version)s is published with another golden request, and what is published never changes: make a new "
            "version of the pipeline and publish that with this one."
        )
    else:
        words = _(
            "%(version)s is published without a golden request, and what is published never changes: make a new "
            "version of the pipeline and publish that with this one."
        )
    return words % {"version": version}


def _stored(version: PipelineVersion, request: Golden) -> GoldenRequest:
    return GoldenRequest.objects.get_or_create(
        pipeline_version=version,
        digest=request.digest,
        defaults={"records": request.records, "content": request.content},
    )[0]


def refuse_other(publish: Publish) -> None:
    """Another publish may have settled meanwhile what the version ships. Raises `OtherGolden`."""
    PipelineVersion.objects.select_for_update().get(pk=publish.pipeline_version_id)
    before = queries.settled_by(publish.pipeline_version)
    if before is not None and before.golden_id != publish.golden_id:
        raise OtherGolden(
            _(
                "Publish %(before)s brought this version with another golden request, or without one: publish "
                "it again instead of trying this one."
            )
            % {"before": before.pk},
            publish=before.pk,
        )
