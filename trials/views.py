"""The page on which a pipeline version is tried."""

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods

from catalog import pages, uploads
from catalog import queries as catalog
from catalog.models import PipelineVersion, Role
from catalog.pages import SignedInRequest, signed_in
from publishing import queries
from trials import answers, examples, forms, operations


@csrf_exempt  # see _receive_request
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def infer(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form, and what the engine answers to what it brings."""
    catalog.pipeline_version_for(request.user, pk, Role.COLLABORATOR)
    uploads.expect_small_file(request, operations.LARGEST_REQUEST)
    return _receive_request(request, pk)


@csrf_protect  # reads the body, so it comes after the permission: nobody else's file is held
def _receive_request(request: SignedInRequest, pk: int) -> HttpResponse:
    version = catalog.pipeline_version_for(request.user, pk, Role.COLLABORATOR)
    form = forms.RequestForm(request.POST or None, request.FILES or None, initial={"records": _example(version)})
    answer = None
    if form.is_valid():
        with pages.refusals_on(form):
            body, content_type = form.request()
            found = operations.infer(actor=request.user, version=version, body=body, content_type=content_type)
            answer = answers.of_json(found)
    context = pages.in_workspace(
        request,
        version.pipeline.workspace,
        pipeline=version.pipeline,
        version=version,
        form=form,
        answer=answer,
        reason=operations.why_not(version),
    )
    return render(request, "trials/infer.html", context, status=422 if form.errors else 200)


def _example(version: PipelineVersion) -> str:
    publish = queries.settled_by(version)
    golden = queries.golden_of(publish) if publish else ""
    if golden and (found := examples.of_golden(golden)):
        return found
    return examples.of_interface(queries.interfaces_of([version])[version.pk])
