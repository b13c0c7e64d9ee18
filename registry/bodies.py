"""Bodies of requests as streams: blobs are far larger than memory, so `request.body` is never touched."""

import re
from collections.abc import Callable, Iterator

from django.http import HttpRequest

from registry.errors import ChunkOutOfOrder, LengthRequired, ManifestTooLarge, SizeInvalid
from registry.uploads import Body, Chunk

# Large enough that Python's share of the work is small, small enough that many uploads at once stay cheap.
_PIECE = 1024 * 1024
_CONTENT_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


def upload_body(request: HttpRequest, offset: Callable[[], int]) -> Body:
    """The body as an upload's next part; `offset` tells how far the upload is, for the refusal of a malformed range."""
    length = _length(request)
    return Body(pieces=_pieces(request, length), length=length, chunk=_chunk(request, offset))


def read_manifest(request: HttpRequest, limit: int) -> bytes:
    """The whole body. Raises ManifestTooLarge before more than `limit` bytes are held, and SizeInvalid."""
    length = _length(request)
    if length is not None and length > limit:
        raise _too_large(limit)
    content = bytearray()
    for piece in _pieces(request, length):
        content += piece
        if len(content) > limit:
            raise _too_large(limit)
    if length is not None and len(content) != length:
        raise SizeInvalid(f"The connection ended after {len(content)} of {length} bytes: send the manifest again.")
    return bytes(content)


def _too_large(limit: int) -> ManifestTooLarge:
    return ManifestTooLarge(f"A manifest may have at most {limit} bytes.", {"limit": limit})


def _length(request: HttpRequest) -> int | None:
    """The announced size in bytes; None when the body ends where the server says so (chunked coding, HTTP/2)."""
    announced = request.META.get("CONTENT_LENGTH") or ""
    # RFC 9112, 6.3: a transfer coding overrides a Content-Length beside it.
    if "HTTP_TRANSFER_ENCODING" not in request.META and announced.isascii() and announced.isdigit():
        return int(announced)
    if request.META.get("wsgi.input_terminated"):
        return None
    if "HTTP_TRANSFER_ENCODING" in request.META:
        raise LengthRequired("This web server cannot take a body of unknown length: send Content-Length.")
    return 0


def _pieces(request: HttpRequest, length: int | None) -> Iterator[bytes]:
    # Django's own stream ends at Content-Length and takes a missing one for 0: then the server's is read.
    stream = request if length is not None else request.META["wsgi.input"]
    while piece := stream.read(_PIECE):
        yield piece


def _chunk(request: HttpRequest, offset: Callable[[], int]) -> Chunk | None:
    header = request.headers.get("Content-Range")
    if header is None:
        return None
    # No unit in front: distribution-spec 1.1, "Pushing a blob in chunks".
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None or int(match[1]) > int(match[2]):
        raise ChunkOutOfOrder(f"Content-Range {header[:100]!r} is not '<first byte>-<last byte>'.", offset())
    return Chunk(int(match[1]), int(match[2]))
