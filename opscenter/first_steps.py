"""What a center still needs before it does its job, step by step, for who looks."""

from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext as _

from catalog.models import Pipeline, User, Workspace
from edges import queries as edges
from logs import observability
from logs.models import LogMark
from publishing import doctor, engine_images
from publishing import queries as publishing
from publishing.models import Publish, RegistrySettings


@dataclass(frozen=True)
class Step:
    """`said` is how it stands; `link` is where it is done, empty when this person cannot do it."""

    title: str
    said: str
    is_done: bool
    link: str = ""
    action: str = ""
    is_optional: bool = False


def steps_for(actor: User, workspace: Workspace | None) -> list[Step]:
    """From the registry to the first edge that is online. A fixed number of queries."""
    return [_registry(actor), _engine_image(actor), _signing(actor), _observability(actor), *_work(actor, workspace)]


def is_untouched() -> bool:
    """Whether nobody made anything in this center yet."""
    return not Pipeline.objects.exists()


def _registry(actor: User) -> Step:
    row = publishing.registry_settings()
    link = reverse("admin:publishing_registrysettings_changelist") if actor.is_superuser else ""
    title = _("A registry to publish to")
    if row is None or not row.registry:
        return Step(title, str(publishing.NOT_CONFIGURED), False, link, _("Set the registry"))
    if not row.enabled:
        return Step(title, str(publishing.DISABLED), False, link, _("Enable it"))
    return Step(
        title,
        _("%(registry)s is set, %(tested)s.") % {"registry": row, "tested": _tested(row)},
        not _fails(row),
        link,
        _("Test the connection"),
    )


def _fails(row: RegistrySettings) -> bool:
    return any(check["state"] == doctor.FAIL for check in row.checks)


def _tested(row: RegistrySettings) -> str:
    if row.source == RegistrySettings.Source.BUILT_IN:
        return _("the one that is built in")
    if not row.checks:
        return _("not tested yet")
    return _("its last test failed") if _fails(row) else _("its last test passed")


def _engine_image(actor: User) -> Step:
    title = _("An engine image that goes along")
    link = reverse("admin:publishing_engineimageschange_changelist") if actor.is_superuser else ""
    images = engine_images.current().text
    if images:
        said = _("%(image)s goes along with every publish.") % {"image": images}
        return Step(title, said, True, link, _("Check it"), is_optional=True)
    said = _("None is set: the commands then name no image, and engines run from their package.")
    return Step(title, said, False, link, _("Set an image"), is_optional=True)


def _signing(actor: User) -> Step:
    key = publishing.signing_keys().filter(active=True).first()
    link = reverse("admin:publishing_signingkey_changelist") if actor.is_superuser else ""
    said = _("Publishes are signed with %(name)s.") % {"name": key.name} if key else _("Publishes are not signed.")
    return Step(_("A key that signs publishes"), said, key is not None, link, _("Choose a key"), is_optional=True)


def _observability(actor: User) -> Step:
    link = reverse("admin:logs_observabilitychange_changelist") if actor.is_superuser else ""
    if observability.is_on():
        return Step(_("Logs of edges"), _("Edges may send what they infer here."), True, link, _("Look at it"))
    said = _("Observability is off: edges keep what they infer, and nothing of it is seen here.")
    return Step(_("Logs of edges"), said, False, link, _("Switch it on"))


def _work(actor: User, workspace: Workspace | None) -> list[Step]:
    if workspace is None:
        link = reverse("catalog:create-workspace")
        return [Step(_("A workspace"), _("You are in none yet."), False, link, _("Create a workspace"))]
    models = workspace.models.count()
    pipelines = workspace.pipelines.count()
    published = Publish.objects.filter(
        pipeline_version__pipeline__workspace=workspace, status=Publish.Status.PUBLISHED
    ).count()
    placed = edges.edges_for(actor, workspace=workspace).count()
    listed = reverse("pipelines", args=[workspace.pk])
    name = workspace.name
    return [
        Step(
            _("A workspace"),
            _("%(name)s is open.") % {"name": name},
            True,
            reverse("catalog:workspaces"),
            _("Look at all"),
        ),
        _counted(_("A model"), models, name, reverse("catalog:upload-model", args=[workspace.pk]), _("Upload a model")),
        _counted(
            _("A pipeline"),
            pipelines,
            name,
            reverse("catalog:create-pipeline", args=[workspace.pk]),
            _("Create a pipeline"),
        ),
        _counted(_("A publish"), published, name, listed, _("Publish a version")),
        _counted(_("An edge"), placed, name, listed, _("Add an edge")),
        _logged(workspace, listed),
    ]


def _logged(workspace: Workspace, link: str) -> Step:
    arrived = LogMark.objects.filter(edge__publish__pipeline_version__pipeline__workspace=workspace, rows__gt=0)
    if arrived.exists():
        return Step(_("The first inference"), _("Rows of edges arrived."), True, link, _("Read the logs"))
    said = _("None arrived yet: start the edge with the command that its bundle comes with, and send it a request.")
    return Step(_("The first inference"), said, False, link, _("Look at the edges"))


def _counted(title: str, count: int, name: str, link: str, action: str) -> Step:
    told = {"name": name, "count": count}
    said = _("%(name)s has %(count)s.") % told if count else _("%(name)s has none yet.") % told
    return Step(title, said, count > 0, link, action)
