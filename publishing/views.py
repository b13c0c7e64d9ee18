"""Pages of publishes: the Version History of a pipeline, a publish on its way, and what to run where it arrived."""

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from catalog import pages
from catalog import queries as catalog
from catalog.models import PipelineVersion, Role
from catalog.pages import SignedInRequest, signed_in
from publishing import commands, forms, history, operations, queries


@require_safe
@signed_in
def versions(request: SignedInRequest, pk: int) -> HttpResponse:
    """A pipeline's page: its versions, newest first, each with its publish."""
    pipeline = catalog.pipeline_for(request.user, pk)
    before = request.GET.get("before", "")
    rows = history.rows_of(pipeline, int(before) if before.isdecimal() and len(before) < 19 else None)
    context = pages.in_workspace(
        request, pipeline.workspace, pipeline=pipeline, rows=rows, is_full=len(rows) == history.PAGE_LENGTH
    )
    return render(request, "publishing/versions.html", context)


@require_safe
@signed_in
def version(request: SignedInRequest, pk: int) -> HttpResponse:
    """A line of the Version History, as it is now."""
    version = catalog.pipeline_version_for(request.user, pk)
    if not pages.wants_fragment(request):
        return redirect(_in_history(version))
    return _line(request, version)


@require_POST
@signed_in
def publish(request: SignedInRequest, pk: int) -> HttpResponse:
    """Publishes a version: the black box."""
    version = catalog.pipeline_version_for(request.user, pk, Role.COLLABORATOR)
    operations.publish(actor=request.user, version=version)
    return _done(request, version)


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def replace(request: SignedInRequest, pk: int) -> HttpResponse:
    """Lets choose publishes, with what will change, and publishes a version that replaces them."""
    version = catalog.pipeline_version_for(request.user, pk, Role.COLLABORATOR)
    candidates = history.candidates_for(version)
    form = forms.ReplaceForm(candidates, request.POST if request.method == "POST" else None)
    if form.is_valid():
        with pages.refusals_on(form):
            chosen = [publish.pk for publish in form.chosen]
            allowed = form.cleaned_data["allow_breaking"]
            operations.publish(actor=request.user, version=version, replaces=chosen, allow_breaking=allowed)
            return _done(request, version)
    found = {"version": version, "pipeline": version.pipeline, "candidates": candidates, "form": form}
    found["is_breaking"] = any(candidate.is_breaking for candidate in candidates)
    context = pages.in_workspace(request, version.pipeline.workspace, **found)
    return pages.ask(request, "publishing/_replace.html", context, status=422 if form.errors else 200)


@require_safe
@signed_in
def info(request: SignedInRequest, pk: int) -> HttpResponse:
    """What there is to know of a publish, with the commands that run it."""
    publish = queries.publish_for(request.user, pk)
    pipeline = publish.pipeline_version.pipeline
    context = pages.in_workspace(request, pipeline.workspace, publish=publish, pipeline=pipeline)
    if publish.status == publish.Status.PUBLISHED:
        context["commands"] = commands.for_publish(queries.view_of(publish))
    name = "_info" if pages.wants_fragment(request) else "info"
    return render(request, f"publishing/{name}.html", context)


@require_POST
@signed_in
def retry(request: SignedInRequest, pk: int) -> HttpResponse:
    """Tries a failed publish again."""
    publish = queries.publish_for(request.user, pk, Role.COLLABORATOR)
    operations.retry(actor=request.user, publish=publish)
    return _done(request, publish.pipeline_version)


@require_POST
@signed_in
def cancel(request: SignedInRequest, pk: int) -> HttpResponse:
    """Stops a publish that waits or runs."""
    publish = queries.publish_for(request.user, pk, Role.COLLABORATOR)
    operations.cancel(actor=request.user, publish=publish)
    return _done(request, publish.pipeline_version)


def _done(request: SignedInRequest, version: PipelineVersion) -> HttpResponse:
    """The line in its place for htmx, wherever the button was; else the page with it."""
    if not pages.wants_fragment(request):
        return redirect(_in_history(version))
    response = _line(request, version)
    response["HX-Retarget"] = f"#version-{version.pk}"
    response["HX-Reswap"] = "outerHTML"
    response["HX-Trigger"] = "close-dialog"
    return response


def _line(request: SignedInRequest, version: PipelineVersion) -> HttpResponse:
    context = pages.in_workspace(request, version.pipeline.workspace, row=history.row_of(version))
    return render(request, "publishing/_version.html", context)


def _in_history(version: PipelineVersion) -> str:
    return f"{reverse('publishing:versions', args=[version.pipeline_id])}#version-{version.pk}"
