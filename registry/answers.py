"""How the registry answers: headers, ranges, and refusals with their HTTP status."""

import json
import re
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import reverse

from registry import errors
from registry.references import Digest
from registry.storage import Repository

# Measured with granian on 1 GiB: 256 KiB is the fastest of 64 KiB to 4 MiB (about 5 GB/s from the page cache).
_BLOCK = 256 * 1024
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_STATUS: dict[type[errors.RegistryError], int] = {
    errors.Unauthorized: 401,
    errors.EndpointUnknown: 404,
    errors.MethodRefused: 405,
    errors.NameUnknown: 404,
    errors.BlobUnknown: 404,
    errors.UploadUnknown: 404,
    errors.UploadBusy: 409,
    errors.LengthRequired: 411,
    errors.ChunkOutOfOrder: 416,
    errors.ManifestTooLarge: 413,
    errors.ManifestUnknown: 404,
    errors.ManifestBlobUnknown: 404,
    errors.StorageFull: 507,
}


class FileBlocks:
    """Iterates over `length` bytes of a file from `first`, and closes it when the answer is done or dropped."""

    def __init__(self, path: Path, first: int, length: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(first)
        self._left = length

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        block = self._file.read(min(_BLOCK, self._left))
        if not block:
            raise StopIteration
        self._left -= len(block)
        return block

    def close(self) -> None:
        self._file.close()


def empty(status: int, **headers: str) -> HttpResponse:
    """An answer without a body. Header names are written with `_` for `-`."""
    response = HttpResponse(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})
    # Django would announce HTML.
    del response["Content-Type"]
    if status != 204:
        response["Content-Length"] = "0"
    return response


def document(value: Any, *, status: int = 200, media_type: str = "application/json") -> HttpResponse:
    """An answer with a JSON body."""
    content = json.dumps(value, separators=(",", ":")).encode()
    return HttpResponse(content, status=status, content_type=media_type, headers={"Content-Length": str(len(content))})


def refusal(error: errors.RegistryError) -> HttpResponse:
    """The answer to a refused request, in the specification's form."""
    response = document({"errors": error.entries()}, status=_STATUS.get(type(error), 400))
    if isinstance(error, errors.Unauthorized):
        response["WWW-Authenticate"] = 'Basic realm="OpsCenter registry"'
    if isinstance(error, errors.MethodRefused):
        response["Allow"] = ", ".join(error.allowed)
    if isinstance(error, errors.ChunkOutOfOrder):
        response["Range"] = upload_range(error.offset)
    return response


def upload_range(offset: int) -> str:
    """The `Range` of an upload that holds `offset` bytes. Docker's 0-0 where it holds none."""
    return f"0-{max(offset - 1, 0)}"


def upload_progress(repository: Repository, upload_id: str, offset: int, status: int) -> HttpResponse:
    """Where to go on with an upload, and from which byte."""
    location = reverse("registry:upload", kwargs={"name": repository.name, "upload_id": upload_id})
    return empty(status, Location=location, Range=upload_range(offset), Docker_Upload_UUID=upload_id)


def blob_created(repository: Repository, digest: Digest) -> HttpResponse:
    """The blob is stored."""
    location = reverse("registry:blob", kwargs={"name": repository.name, "digest": str(digest)})
    return empty(201, Location=location, Docker_Content_Digest=str(digest))


def blob(request: HttpRequest, path: Path, digest: Digest) -> HttpResponseBase:
    """The blob's bytes, or the one range that was asked for. Several ranges get the whole, which HTTP allows."""
    size = path.stat().st_size
    headers = {
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    wanted = _wanted_range(request, size, headers["ETag"])
    if wanted is None:
        return _bytes(request, path, 0, size, 200, headers)
    first, last = wanted
    if first > last:
        response = document({"errors": [_range_refusal(size)]}, status=416)
        response["Content-Range"] = f"bytes */{size}"
        return response
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return _bytes(request, path, first, last - first + 1, 206, headers)


def next_page(request: HttpRequest, response: HttpResponse, **parameters: str) -> None:
    """Link to the page that follows (RFC 8288)."""
    kept = {key: value for key, value in request.GET.items() if key not in parameters}
    response["Link"] = f'<{request.path}?{urlencode(kept | parameters)}>; rel="next"'


def _bytes(
    request: HttpRequest, path: Path, first: int, length: int, status: int, headers: dict[str, str]
) -> HttpResponseBase:
    headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    return StreamingHttpResponse(FileBlocks(path, first, length), status=status, headers=headers)


def _wanted_range(request: HttpRequest, size: int, etag: str) -> tuple[int, int] | None:
    """First and last byte asked for (first > last: none), or None for the whole blob. RFC 9110, 14.1.2, 13.1.5."""
    match = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if match is None or match[1] == match[2] == "" or request.headers.get("If-Range", etag) != etag:
        return None
    if match[1] == "":
        return max(size - int(match[2]), 0), size - 1 if int(match[2]) else -1
    first = int(match[1])
    if match[2] and int(match[2]) < first:
        return None
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    return first, last


def _range_refusal(size: int) -> dict[str, Any]:
    return {
        "code": "UNSUPPORTED",
        "message": f"The blob has {size} bytes: the range asked for lies behind its end.",
        "detail": None,
    }
