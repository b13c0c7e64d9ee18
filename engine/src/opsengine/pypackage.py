"""The zip of a Python step: what its `manifest.json` declares (docs/pipelines.md). Nothing in it is run here.

The center keeps the same rules when the zip is uploaded; both prove it on contract/python_manifests.json.
"""

import json
import re
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from opsengine.connections import Tensor
from opsengine.errors import PipelineError

MANIFEST = "manifest.json"
MANIFEST_BYTES = 2**20
MOST_FILES, MOST_BYTES = 50_000, 4 * 2**30  # unpacked
NUMBERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
TYPES = frozenset((*NUMBERS, "float16", "float32", "float64", "bool", "string"))
CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z", re.ASCII)
MOST_TENSORS = 64


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a Python step takes, gives and may use. Times in seconds, memory in MiB beyond the interpreter's own."""

    module: str
    class_name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    timeout_seconds: float
    memory_mib: int


def read(path: Path, name: str) -> Manifest:
    """Read and check the zip of model `name`. Raises PipelineError."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = _checked_files(archive, name)
            if MANIFEST not in files or archive.getinfo(MANIFEST).file_size > MANIFEST_BYTES:
                raise PipelineError(f"Model {name}: the zip holds no {MANIFEST} of at most 1 MiB at its top.")
            told = json.loads(archive.read(MANIFEST))
    except (zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
        raise PipelineError(f"Model {name} is not a zip with a {MANIFEST} that can be read: {error}.") from None
    manifest = _manifest(told, name)
    module = manifest.module.replace(".", "/")
    places = {f"{top}{module}{end}" for top in ("", "vendor/") for end in (".py", "/__init__.py")}
    if not places & files:
        raise PipelineError(f"Model {name}: the zip has no module {manifest.module}, which {MANIFEST} names.")
    return manifest


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip that `read` accepted."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)


def _checked_files(archive: zipfile.ZipFile, name: str) -> set[str]:
    infos = archive.infolist()
    if len(infos) > MOST_FILES or sum(info.file_size for info in infos) > MOST_BYTES:
        raise PipelineError(f"Model {name}: the zip unpacks to more than {MOST_FILES} files or {MOST_BYTES} bytes.")
    for info in infos:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in info.filename or stat.S_ISLNK(info.external_attr >> 16):
            raise PipelineError(f"Model {name}: the zip has a file outside of it or a link: {info.filename[:100]!r}.")
        if info.flag_bits & 1:
            raise PipelineError(f"Model {name}: the zip is encrypted: upload it without a password.")
    return {info.filename for info in infos}


def _manifest(told: Any, name: str) -> Manifest:
    if not isinstance(told, dict):
        raise PipelineError(f"Model {name}: {MANIFEST} is an object.")
    target = told.get("class")
    if not isinstance(target, str) or not CLASS.match(target):
        raise PipelineError(f'Model {name}: "class" in {MANIFEST} is "module:ClassName".')
    timeout, memory = told.get("timeout_seconds", 10), told.get("memory_mib", 512)
    if not _is_number(timeout) or not 0.1 <= timeout <= 300:
        raise PipelineError(f'Model {name}: "timeout_seconds" is a number from 0.1 to 300.')
    if not isinstance(memory, int) or isinstance(memory, bool) or not 16 <= memory <= 65536:
        raise PipelineError(f'Model {name}: "memory_mib" is a whole number from 16 to 65536.')
    module, _, class_name = target.partition(":")
    inputs, outputs = (_tensors(told.get(side), side, name) for side in ("inputs", "outputs"))
    return Manifest(module, class_name, inputs, outputs, float(timeout), memory)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tensors(told: object, side: str, name: str) -> tuple[Tensor, ...]:
    if not isinstance(told, list) or not 1 <= len(told) <= MOST_TENSORS:
        raise PipelineError(f'Model {name}: "{side}" lists 1 to {MOST_TENSORS} of {{"name", "type", "shape"}}.')
    made = tuple(_tensor(one, side, name) for one in told)
    if len({tensor.name for tensor in made}) != len(made):
        raise PipelineError(f'Model {name}: two of "{side}" have the same name.')
    return made


def _tensor(told: object, side: str, name: str) -> Tensor:
    one = told if isinstance(told, dict) else {}
    called, kind, shape = one.get("name"), one.get("type"), one.get("shape")
    if not isinstance(called, str) or not called:
        raise PipelineError(f'Model {name}: each of "{side}" has a "name".')
    if not isinstance(kind, str) or kind not in TYPES:
        raise PipelineError(f'Model {name}: the type of "{called}" is one of {", ".join(sorted(TYPES))}.')
    if not isinstance(shape, list) or not shape or shape[0] is not None or not all(map(_is_length, shape[1:])):
        raise PipelineError(
            f'Model {name}: the shape of "{called}" is a list that begins with null (the rows), like [null, 18].'
        )
    return Tensor(called, kind, tuple(shape[1:]))


def _is_length(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)
