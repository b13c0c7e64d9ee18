"""What people do with trials."""

from django.conf import settings
from django.utils.translation import gettext as _

from catalog import queries as catalog
from catalog.models import PipelineVersion, Role, User
from common.errors import Invalid, TooLarge
from publishing import artifact, queries
from publishing import operations as publishing
from publishing.errors import ModelsNotReady
from trials import running
from trials.errors import NotTried

LARGEST_REQUEST = 2**20


def infer(*, actor: User, version: PipelineVersion, body: bytes, content_type: str) -> bytes:
    """What a version answers to a request that `/infer` of an edge would take: pandas records in JSON.

    Nothing is logged. Collaborators only. Raises `NotFound`, `Forbidden`, `Invalid`, `TooLarge`, `NotTried`,
    and what `running.infer` raises.
    """
    version = catalog.pipeline_version_for(actor, version.pk, Role.COLLABORATOR)
    if not body.strip():
        raise Invalid(_("The request is empty: send records, as to /infer of an edge."))
    if len(body) > LARGEST_REQUEST:
        raise TooLarge(
            _("A request to try may have at most %(largest_request)s bytes.") % {"largest_request": LARGEST_REQUEST},
            limit=LARGEST_REQUEST,
        )
    if reason := why_not(version):
        raise NotTried(reason)
    package = artifact.build(queries.content_of(version), "trials")
    return running.infer(package, body, content_type)


def why_not(version: PipelineVersion) -> str:
    """Why a version cannot be tried in this center; empty when it can."""
    if not settings.TRIALS_AT_ONCE:
        return _("Trials are switched off in this center (OPSCENTER_TRIALS_AT_ONCE is 0).")
    if not settings.ENGINE_COMMAND:
        return _(
            "There is no engine beside this center: install it (pip install ./engine), "
            "or name its command in OPSCENTER_ENGINE_COMMAND."
        )
    try:
        models = publishing.ready_models(version)
    except ModelsNotReady as refusal:
        return refusal.message
    if any(model.framework == "python" for model in models):
        return _("It has a Python step, which is code that was uploaded: that runs on edges only, not in the center.")
    return ""
