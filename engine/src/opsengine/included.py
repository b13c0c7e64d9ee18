"""A pipeline that lies in a folder, as in an image that holds engine and pipeline: nothing is pulled for it.

The folder has the files of the artifact at their paths and its manifest as `manifest.json`, so the digest is that of
the published pipeline, and the ops center knows what is served.
"""

import hashlib
from pathlib import Path

import orjson

from opsengine import privileges
from opsengine.errors import PipelineError, SettingsError
from opsengine.store import DIGEST, READ_BYTES, ContentStore

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 4 * 2**20
PATH_ANNOTATION = "org.cncf.model.filepath"


def digest_of(folder: Path) -> str:
    """The digest of the pipeline in a folder. Raises SettingsError where there is none."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            return f"sha256:{hashlib.sha256(file.read(LARGEST_MANIFEST)).hexdigest()}"
    except PermissionError as error:
        raise SettingsError(f"PIPELINE_DIR: {privileges.refusal(error)}.") from error
    except OSError as error:
        raise SettingsError(
            f"PIPELINE_DIR is {str(folder)!r}, but {MANIFEST} cannot be read there ({error.strerror})."
        ) from error


def open_store(root: Path, folder: Path | None) -> ContentStore:
    """The store in `root`, which sees the pipeline of `folder` where there is one. Raises as `lend`."""
    store = ContentStore(root)
    if folder:
        lend(folder, store)
    return store


def lend(folder: Path, store: ContentStore) -> None:
    """Make the store see the folder's files where they lie. Raises PipelineError if one is missing or damaged."""
    try:
        layers = [
            (layer["digest"], str(layer.get("annotations", {}).get(PATH_ANNOTATION, "")))
            for layer in orjson.loads((folder / MANIFEST).read_bytes())["layers"]
        ]
    except PermissionError as error:
        raise PipelineError(f"{privileges.refusal(error)}.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise PipelineError(
            f"{folder / MANIFEST} cannot be read: give the folder of a published pipeline, or build its image again."
        ) from None
    for digest, relative in layers:
        path = (folder / relative).resolve()
        if not relative or not path.is_relative_to(folder.resolve()) or not DIGEST.fullmatch(digest):
            raise PipelineError(f"{MANIFEST} in {folder} names a file that is not in it: build the image again.")
        if _hash(path) != digest:
            raise PipelineError(f"{path} is not the file that was published: build the image again.")
        store.lend(digest, path)
    store.lend(digest_of(folder), folder / MANIFEST)


def _hash(path: Path) -> str:
    """Its digest. Some seconds a large model, once at the start, against a model that silently infers wrongly."""
    seen = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                seen.update(block)
    except PermissionError as error:
        raise PipelineError(f"{privileges.refusal(error)}.") from error
    except OSError as error:
        raise PipelineError(f"{path} cannot be read ({error.strerror}): build the image again.") from error
    return f"sha256:{seen.hexdigest()}"
