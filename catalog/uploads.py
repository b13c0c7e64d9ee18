"""Uploaded files go straight to the model store, hashed as they arrive, in constant memory.

A file part is read past (`NoFiles`, the default) but in the views that ask for one: with `expect_model`, or with
`expect_small_file` for one that may be held in memory.
"""

from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile, UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http import HttpRequest
from django.utils.translation import gettext as _

from catalog import storage
from common.errors import StorageFull, TooLarge

FORM_ROOM = 1 << 20  # what the other fields and the boundaries of a form may take


class NoFiles(FileUploadHandler):
    """Reads file parts past: what nobody asked for is never written to disk."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Passes over a file part."""
        raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Never called."""

    def file_complete(self, file_size: int) -> None:
        """There is no file."""


class UploadedModel(UploadedFile):  # type: ignore[type-arg]  # generic in the stubs only
    """A file that is in the store's folder but not kept yet: closed without `writer.keep()` it is gone."""

    def __init__(self, writer: storage.Writer, name: str, content_type: str | None) -> None:
        super().__init__(file=None, name=name, content_type=content_type, size=writer.size)
        self.writer = writer

    def close(self) -> None:
        """Removes what was not kept. Django calls this when the request ends."""
        self.writer.discard()


class ModelUploadHandler(FileUploadHandler):
    """Writes a file part to the store piece by piece."""

    chunk_size = 1 << 20

    def handle_raw_input(self, input_data: Any, META: Any, content_length: int, *args: Any) -> None:
        """Refuses a body that cannot fit before a byte of it is read."""
        limit = settings.MODEL_MAX_BYTES
        if content_length > limit + FORM_ROOM:
            raise TooLarge(
                _("A model may have at most %(limit)s bytes (OPSCENTER_MODEL_MAX_BYTES).") % {"limit": limit},
                limit=limit,
            )

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Begins a file part."""
        super().new_file(*args, **kwargs)
        self.writer = storage.Writer()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Appends a piece. Raises `TooLarge`, `StorageFull`."""
        try:
            self.writer.write(raw_data)
        except (TooLarge, StorageFull):
            self.writer.discard()
            raise

    def file_complete(self, file_size: int) -> UploadedModel:
        """The finished part, for the view to keep."""
        return UploadedModel(self.writer, self.file_name or "", self.content_type)

    def upload_interrupted(self) -> None:
        """The sender went away: nothing stays."""
        if hasattr(self, "writer"):
            self.writer.discard()


class SmallFileHandler(FileUploadHandler):
    """Holds a file part of at most `limit` bytes in memory. Of a larger one a byte more is held, for a form to see."""

    def __init__(self, request: HttpRequest, limit: int) -> None:
        super().__init__(request)
        self.limit = limit

    def handle_raw_input(self, input_data: Any, META: Any, content_length: int, *args: Any) -> None:
        """Refuses a body that cannot fit before a byte of it is read."""
        if content_length > self.limit + FORM_ROOM:
            raise TooLarge(_("The file may have at most %(limit)s bytes.") % {"limit": self.limit}, limit=self.limit)

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Begins a file part."""
        super().new_file(*args, **kwargs)
        self.held = bytearray()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Appends a piece."""
        self.held += raw_data[: self.limit + 1 - len(self.held)]

    def file_complete(self, file_size: int) -> UploadedFile:  # type: ignore[type-arg]  # generic in the stubs only
        """The finished part."""
        return SimpleUploadedFile(
            self.file_name or "file", bytes(self.held), self.content_type or "application/octet-stream"
        )


def expect_small_file(request: HttpRequest, limit: int) -> None:
    """Lets this request bring a file of so many bytes. To be called before anything of the body is read."""
    request.upload_handlers = [SmallFileHandler(request, limit)]


def expect_model(request: HttpRequest) -> None:
    """Lets this request bring a model's file. To be called before anything of the body is read."""
    request.upload_handlers = [ModelUploadHandler(request)]
