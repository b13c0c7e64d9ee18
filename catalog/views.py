"""Pages of workspaces, their members, models, and new pipelines and versions."""

from uuid import UUID

from django.contrib import messages
from django.forms import Form
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from catalog import forms, operations, pages, queries, slots, uploads
from catalog.models import ModelVersion, Role
from catalog.pages import SignedInRequest, signed_in
from common.errors import Invalid, NotFound

page_or_form = require_http_methods(["GET", "HEAD", "POST"])


@require_safe
@signed_in
def workspaces(request: SignedInRequest) -> HttpResponse:
    """All workspaces of the user."""
    page = pages.paged(request, queries.counted(queries.workspaces_for(request.user)))
    return render(request, "catalog/workspaces.html", {"workspaces": page.object_list, "page": page})


@page_or_form
@signed_in
def create_workspace(request: SignedInRequest) -> HttpResponse:
    """The form of a new workspace, and what it does."""
    form = forms.WorkspaceForm(request.POST or None)
    if form.is_valid():
        with pages.refusals_on(form, "name"):
            workspace = operations.create_workspace(actor=request.user, name=form.cleaned_data["name"])
            messages.success(
                request, _("Workspace %(name)s is ready. Upload a first model to it.") % {"name": workspace.name}
            )
            return redirect("catalog:models", workspace.pk)
    return render(request, "catalog/create_workspace.html", {"form": form}, status=_status(form))


@require_POST
@signed_in
def select_workspace(request: SignedInRequest) -> HttpResponse:
    """Opens another workspace, which is remembered."""
    chosen = request.POST.get("workspace", "")
    if not chosen.isdecimal() or len(chosen) > 18:
        raise Invalid(_("Choose a workspace from the list."))
    workspace = queries.workspace_for(request.user, int(chosen))
    request.session[pages.SESSION_KEY] = workspace.pk
    return redirect("pipelines", workspace.pk)


@page_or_form
@signed_in
def members(request: SignedInRequest, pk: int) -> HttpResponse:
    """Who is in a workspace; an owner lets people in and changes what they may do."""
    at_least = Role.OWNER if request.method == "POST" else Role.VIEWER
    workspace = queries.workspace_for(request.user, pk, at_least)
    form = forms.MemberForm(request.POST or None)
    if form.is_valid():
        email, role = form.cleaned_data["email"], Role(form.cleaned_data["role"])
        with pages.refusals_on(form, "email"):
            operations.set_member(actor=request.user, workspace=workspace, email=email, role=role)
            told = {"email": email, "role": str(role.label).lower(), "name": workspace.name}
            messages.success(request, _("%(email)s is now %(role)s of %(name)s.") % told)
            return redirect("catalog:members", workspace.pk)
    context = pages.in_workspace(request, workspace, members=queries.members_of(workspace), form=form)
    return render(request, "catalog/members.html", context, status=_status(form))


@page_or_form
@signed_in
def remove_member(request: SignedInRequest, pk: int, public_id: UUID) -> HttpResponse:
    """Asks, with the effect, and takes a member out."""
    workspace = queries.workspace_for(request.user, pk, Role.OWNER)
    membership = queries.members_of(workspace).filter(user__public_id=public_id).first()
    if membership is None:
        raise NotFound(_("This person is not a member of %(workspace)s.") % {"workspace": workspace.name})
    if request.method == "POST":
        operations.remove_member(actor=request.user, workspace=workspace, user=membership.user)
        told = {"email": membership.user.email, "name": workspace.name}
        messages.success(request, _("%(email)s is no longer a member of %(name)s.") % told)
        return redirect("catalog:members", workspace.pk)
    context = pages.in_workspace(request, workspace, membership=membership)
    return pages.ask(request, "catalog/_remove_member.html", context)


@require_safe
@signed_in
def models(request: SignedInRequest, pk: int) -> HttpResponse:
    """A workspace's models."""
    workspace = queries.workspace_for(request.user, pk)
    page = pages.paged(request, queries.models_of(workspace))
    context = pages.in_workspace(request, workspace, rows=queries.newest_model_versions(page), page=page)
    return render(request, "catalog/models.html", context)


@csrf_exempt  # see _receive_model
@page_or_form
@signed_in
def upload_model(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form for a model's file, and what it does."""
    queries.workspace_for(request.user, pk, Role.COLLABORATOR)
    uploads.expect_model(request)
    return _receive_model(request, pk)


@csrf_protect  # reads the body, so it comes after the permission: nobody else's gigabytes are written to disk
def _receive_model(request: SignedInRequest, pk: int) -> HttpResponse:
    workspace = queries.workspace_for(request.user, pk, Role.COLLABORATOR)
    form = forms.UploadForm(request.POST or None, request.FILES or None, initial={"name": request.GET.get("name")})
    if form.is_valid():
        values = {**form.cleaned_data}
        file = values.pop("file")
        with pages.refusals_on(form):
            version = operations.create_model_version(
                actor=request.user, workspace=workspace, upload=file.writer, file_name=file.name, **values
            )
            _tell_upload(request, version)
            if pages.wants_fragment(request):  # a script sent it, to show how far it is
                return HttpResponse(headers={"HX-Redirect": reverse("catalog:model", args=[version.model.pk])})
            return redirect("catalog:model", version.model.pk)
    context = pages.in_workspace(request, workspace, form=form)
    return render(request, "catalog/upload_model.html", context, status=_status(form))


def _tell_upload(request: SignedInRequest, version: ModelVersion) -> None:
    if version.status == ModelVersion.Status.ERROR:
        messages.error(request, _("The file is stored but no engine can serve it: %(why)s") % {"why": version.error})
    else:
        told = {"version": str(version.uuid)[:8], "name": version.model.name}
        messages.success(request, _("Version %(version)s of %(name)s is ready.") % told)


@require_safe
@signed_in
def model(request: SignedInRequest, pk: int) -> HttpResponse:
    """A model's versions."""
    model = queries.model_for(request.user, pk)
    page = pages.paged(request, model.versions.select_related("created_by").prefetch_related("configs"))
    context = pages.in_workspace(request, model.workspace, model=model, versions=page.object_list, page=page)
    return render(request, "catalog/model.html", context)


@page_or_form
@signed_in
def create_pipeline(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form of a new pipeline, and what it does."""
    workspace = queries.workspace_for(request.user, pk, Role.COLLABORATOR)
    form = forms.PipelineForm(request.POST or None)
    if form.is_valid():
        name = form.cleaned_data["name"]
        with pages.refusals_on(form, "name"):
            pipeline = operations.create_pipeline(actor=request.user, workspace=workspace, name=name)
            return redirect("catalog:create-version", pipeline.pk)
    context = pages.in_workspace(request, workspace, form=form)
    return render(request, "catalog/create_pipeline.html", context, status=_status(form))


@page_or_form
@signed_in
def create_version(request: SignedInRequest, pk: int) -> HttpResponse:
    """The steps of a new version, beginning with those of the newest; "more" and "less" only change the form."""
    pipeline = queries.pipeline_for(request.user, pk, Role.COLLABORATOR)
    usable = list(queries.usable_model_versions(pipeline.workspace))
    asked = request.method == "POST"
    chosen = slots.of_form(request.POST) if asked else slots.of_steps(queries.newest_steps(pipeline))
    form = forms.StepsForm(usable, chosen, request.POST or None)
    if asked and not _reshaped(request, form) and form.is_valid():
        with pages.refusals_on(form):
            operations.create_pipeline_version(actor=request.user, pipeline=pipeline, steps=form.steps())
            return redirect("publishing:versions", pipeline.pk)
    found = {"pipeline": pipeline, "form": form, "kinds": slots.KINDS, "operators": slots.OPERATORS}
    context = pages.in_workspace(request, pipeline.workspace, **found)
    return render(request, "catalog/create_version.html", context, status=_status(form))


@page_or_form
@signed_in
def configure(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form of how a model version is fed, and what it does; made pipeline versions stay as they are."""
    version = queries.model_version_for(request.user, pk, Role.COLLABORATOR)
    config = version.configs.first()
    batching = (config.batching if config else None) or {}
    initial = {"tensor_fields": ", ".join((config.tensor_fields if config else None) or []), **batching}
    form = forms.ConfigForm(request.POST or None, initial=initial)
    if form.is_valid():
        with pages.refusals_on(form):
            operations.configure_model_version(actor=request.user, version=version, **form.values())
            messages.success(request, _("Saved. Pipeline versions that are made from now on take it."))
            return redirect("catalog:model", version.model_id)
    context = pages.in_workspace(request, version.model.workspace, version=version, form=form)
    return render(request, "catalog/configure.html", context, status=_status(form))


def _reshaped(request: SignedInRequest, form: forms.StepsForm) -> bool:
    """Whether a step was only added to the form or taken out of it, which is done."""
    less = request.POST.get("less", "")
    if less.isdecimal() and int(less[:4]) < len(form.chosen):
        del form.chosen[int(less)]
        return True
    kind = request.POST.get("more", "")
    if kind in slots.KINDS:
        form.chosen.append(slots.Slot(kind))
    return "more" in request.POST or "less" in request.POST


def _status(form: Form) -> int:
    """422 when the form was sent and refused."""
    return 422 if form.is_bound and form.errors else 200
