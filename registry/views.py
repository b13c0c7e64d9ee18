"""The registry's endpoints, numbered as in OCI distribution-spec 1.1, "Endpoints"."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt

from registry import access, answers, blobs, bodies, manifests, uploads
from registry.errors import DigestInvalid, EndpointUnknown, MethodRefused, NameInvalid, RegistryError, Unsupported
from registry.manifest_format import OCI_INDEX, SIZE_LIMIT
from registry.references import Digest
from registry.storage import Repository, repository_named

View = Callable[..., HttpResponseBase]


def _endpoint(**handlers: View) -> View:
    """A view that lets in only the robot account, calls the method's handler and words refusals."""

    # Clients are programs that send credentials with every call; no browser session is ever looked at.
    @csrf_exempt
    def view(request: HttpRequest, **arguments: str) -> HttpResponseBase:
        try:
            access.require_robot(request)
            handler = handlers.get(request.method or "")
            if handler is None:
                raise MethodRefused(sorted(handlers))
            response = handler(request, **_checked(arguments))
        except RegistryError as error:
            response = answers.refusal(error)
        response["Docker-Distribution-API-Version"] = "registry/2.0"
        return response

    return view


def _checked(arguments: dict[str, str]) -> dict[str, Any]:
    checked: dict[str, Any] = dict(arguments)
    if "name" in checked:
        checked["repository"] = repository_named(checked.pop("name"))
    return checked


def _nowhere(request: HttpRequest) -> HttpResponseBase:
    raise EndpointUnknown("The registry has no such address.")


def _version(request: HttpRequest) -> HttpResponseBase:
    return answers.document({})


def _get_blob(request: HttpRequest, repository: Repository, digest: str) -> HttpResponseBase:
    parsed = Digest.parse(digest)
    path = blobs.blob_for(repository, parsed)
    try:
        return answers.blob(request, path, parsed)
    except FileNotFoundError:
        # Deleted since we looked.
        raise blobs.unknown(repository, parsed) from None


def _delete_blob(request: HttpRequest, repository: Repository, digest: str) -> HttpResponseBase:
    blobs.delete(repository, Digest.parse(digest))
    return answers.empty(202)


def _start_upload(request: HttpRequest, repository: Repository) -> HttpResponseBase:
    if "mount" in request.GET:
        digest = Digest.parse(request.GET["mount"])
        if _mounted(request, repository, digest):
            return answers.blob_created(repository, digest)
    elif "digest" in request.GET:
        return _single_post(request, repository, Digest.parse(request.GET["digest"]))
    return answers.upload_progress(repository, uploads.start(repository), 0, 202)


def _mounted(request: HttpRequest, repository: Repository, digest: Digest) -> bool:
    """Without `from` any repository's copy will do: there is one account, and it may read them all."""
    origin = request.GET.get("from")
    if origin is None:
        return blobs.mount(repository, digest, repository.shared_blob(digest))
    try:
        return blobs.mount(repository, digest, repository_named(origin).blob(digest))
    except NameInvalid:
        # distribution-spec, "Mounting a blob from another repository": what cannot be mounted becomes a normal upload.
        return False


def _single_post(request: HttpRequest, repository: Repository, digest: Digest) -> HttpResponseBase:
    upload_id = uploads.start(repository)
    try:
        uploads.finish(repository, upload_id, digest, bodies.upload_body(request, lambda: 0))
    finally:
        # The client was told of no session it could go on with.
        uploads.drop(repository, upload_id)
    return answers.blob_created(repository, digest)


def _get_upload(request: HttpRequest, repository: Repository, upload_id: str) -> HttpResponseBase:
    return answers.upload_progress(repository, upload_id, uploads.offset(repository, upload_id), 204)


def _patch_upload(request: HttpRequest, repository: Repository, upload_id: str) -> HttpResponseBase:
    body = bodies.upload_body(request, lambda: uploads.offset(repository, upload_id))
    return answers.upload_progress(repository, upload_id, uploads.append(repository, upload_id, body), 202)


def _put_upload(request: HttpRequest, repository: Repository, upload_id: str) -> HttpResponseBase:
    if "digest" not in request.GET:
        raise DigestInvalid("An upload is closed with ?digest=<digest of the whole blob>.")
    digest = Digest.parse(request.GET["digest"])
    uploads.finish(
        repository, upload_id, digest, bodies.upload_body(request, lambda: uploads.offset(repository, upload_id))
    )
    return answers.blob_created(repository, digest)


def _delete_upload(request: HttpRequest, repository: Repository, upload_id: str) -> HttpResponseBase:
    uploads.cancel(repository, upload_id)
    return answers.empty(204)


def _get_manifest(request: HttpRequest, repository: Repository, reference: str) -> HttpResponseBase:
    stored = manifests.manifest_for(repository, reference)
    return HttpResponse(
        b"" if request.method == "HEAD" else stored.content,
        content_type=stored.media_type,
        headers={
            "Content-Length": str(len(stored.content)),
            "Docker-Content-Digest": str(stored.digest),
            "ETag": f'"{stored.digest}"',
        },
    )


def _put_manifest(request: HttpRequest, repository: Repository, reference: str) -> HttpResponseBase:
    content = bodies.read_manifest(request, SIZE_LIMIT)
    digest, manifest = manifests.put(repository, reference, request.content_type or "", content)
    location = reverse("registry:manifest", kwargs={"name": repository.name, "reference": str(digest)})
    response = answers.empty(201, Location=location, Docker_Content_Digest=str(digest))
    if manifest.subject is not None:
        response["OCI-Subject"] = str(manifest.subject)
    return response


def _delete_manifest(request: HttpRequest, repository: Repository, reference: str) -> HttpResponseBase:
    manifests.delete(repository, reference)
    return answers.empty(202)


def _list_tags(request: HttpRequest, repository: Repository) -> HttpResponseBase:
    limit = request.GET.get("n")
    if limit is not None and not (limit.isascii() and limit.isdigit() and len(limit) <= 9):
        raise Unsupported(f"n={limit[:32]!r} is not a number of tags.")
    tags, more = manifests.tags_for(repository, request.GET.get("last", ""), None if limit is None else int(limit))
    response = answers.document({"name": repository.name, "tags": tags})
    if more:
        answers.next_page(request, response, last=tags[-1])
    return response


def _list_referrers(request: HttpRequest, repository: Repository, digest: str) -> HttpResponseBase:
    artifact_type = request.GET.get("artifactType", "")
    found, more = manifests.referrers_for(repository, Digest.parse(digest), artifact_type, request.GET.get("last", ""))
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
    response = answers.document(index, media_type=OCI_INDEX)
    if artifact_type:
        response["OCI-Filters-Applied"] = "artifactType"
    if more:
        answers.next_page(request, response, last=found[-1]["digest"])
    return response


version = _endpoint(GET=_version, HEAD=_version)
blob = _endpoint(GET=_get_blob, HEAD=_get_blob, DELETE=_delete_blob)
upload_start = _endpoint(POST=_start_upload)
upload = _endpoint(GET=_get_upload, PATCH=_patch_upload, PUT=_put_upload, DELETE=_delete_upload)
manifest = _endpoint(GET=_get_manifest, HEAD=_get_manifest, PUT=_put_manifest, DELETE=_delete_manifest)
tag_list = _endpoint(GET=_list_tags)
referrer_list = _endpoint(GET=_list_referrers)
nowhere = _endpoint(GET=_nowhere, HEAD=_nowhere, POST=_nowhere, PUT=_nowhere, PATCH=_nowhere, DELETE=_nowhere)
