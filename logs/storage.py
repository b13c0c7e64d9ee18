"""Where files of logs are: a folder, or an object store that Arrow knows (`s3://…`, `gs://…`, `abfs://…`).

A file is written once under a name of its own and never changed. It counts from the moment that the database tells of
it, so the bytes are durable before that: synchronised on a disk, answered by an object store.
"""

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from django.conf import settings


@dataclass(frozen=True)
class Found:
    """A file and when it was written, by its store's clock."""

    path: str
    written_at: datetime | None


@contextmanager
def create(path: str) -> Iterator[Any]:
    """A binary file to write a whole new file to; durable when the block ends. Raises `OSError`."""
    filesystem, root = _root()
    place = posixpath.join(root, path)
    if isinstance(filesystem, pafs.LocalFileSystem):
        folder, top = Path(place).parent, _there(Path(root))
        folder.mkdir(parents=True, exist_ok=True)
        with open(place, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # The names, up to the root or above it where that is new: a file whose name is lost is lost.
        for parent in (folder, *folder.parents):
            _sync_folder(parent)
            if parent == top:
                break
        return
    with filesystem.open_output_stream(place) as stream:
        yield stream


def open_file(path: str) -> Any:
    """A file for reading anywhere in it. Raises `FileNotFoundError`."""
    filesystem, root = _root()
    return filesystem.open_input_file(posixpath.join(root, path))


def size(path: str) -> int:
    """Bytes. Raises `FileNotFoundError`."""
    filesystem, root = _root()
    info = filesystem.get_file_info(posixpath.join(root, path))
    if info.type is not pafs.FileType.File:
        raise FileNotFoundError(path)
    return int(info.size)


def delete(path: str) -> None:
    """Removes a file, if it is there."""
    filesystem, root = _root()
    with suppress(FileNotFoundError):
        filesystem.delete_file(posixpath.join(root, path))


def listed(folder: str) -> Iterator[Found]:
    """All files below a folder."""
    filesystem, root = _root()
    place = posixpath.join(root, folder)
    selector = pafs.FileSelector(place, allow_not_found=True, recursive=True)
    for info in filesystem.get_file_info(selector):
        if info.type is pafs.FileType.File:
            yield Found(posixpath.relpath(info.path, root), info.mtime)


def address(path: str) -> str:
    """Where DuckDB and others find it: a path on this machine, or the store's own address."""
    filesystem, root = _root()
    place = posixpath.join(root, path)
    return place if isinstance(filesystem, pafs.LocalFileSystem) else f"{settings.LOGS_URL.split('://')[0]}://{place}"


def filesystem() -> pafs.FileSystem:
    """Arrow's filesystem of the files."""
    return _root()[0]


def _root() -> tuple[pafs.FileSystem, str]:
    return _opened(settings.LOGS_URL)


@lru_cache(maxsize=8)
def _opened(url: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in url:
        return pafs.LocalFileSystem(), str(Path(url).resolve())
    filesystem, root = pafs.FileSystem.from_uri(url)
    return filesystem, root


def _there(folder: Path) -> Path:
    """The folder, or the closest one above it that exists."""
    return next(found for found in (folder, *folder.parents) if found.is_dir())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
