"""The golden request: an input with its expected output, shipped with a publish and run before it is served.

Either the key `golden` of pipeline.json or a layer `golden.json` (contract/README.md).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from opsengine import encode
from opsengine.errors import PipelineError, RequestError
from opsengine.pipeline import CONFIG_PATH, CONFIG_TYPE, PATH_ANNOTATION, Blob, LoadedPipeline
from opsengine.plane import DataPlane
from opsengine.store import ContentStore

PATH = "golden.json"
LARGEST = 16 * 2**20
RTOL, ATOL = 1e-4, 1e-6  # what float32 differs by from one processor to another


@dataclass(frozen=True, slots=True)
class Golden:
    """Records to send, columns of `out` to get."""

    records: list[Any]
    output: Mapping[str, list[Any]]
    rtol: float
    atol: float


def layer(manifest: bytes) -> Blob | None:
    """The layer that holds golden.json, None where the publish has none."""
    for one in orjson.loads(manifest)["layers"]:
        if one.get("annotations", {}).get(PATH_ANNOTATION) == PATH:
            if int(one["size"]) > LARGEST:
                raise PipelineError(
                    f"The {PATH} of the publish is larger than {LARGEST // 2**20} MiB: make it shorter."
                )
            return Blob(str(one["digest"]), int(one["size"]))
    return None


def find(digest: str, store: ContentStore) -> Golden | None:
    """The golden request of a pulled publish. Raises PipelineError when it cannot be read."""
    manifest = store.read(digest)
    blob = layer(manifest)
    try:
        told = orjson.loads(store.read(blob.digest)) if blob else _configured(manifest, store).get("golden")
        return _read(told) if told is not None else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PipelineError(
            'The golden request of the publish cannot be read: it needs {"input": [...], "output": {column: values}}.'
        ) from None


def _configured(manifest: bytes, store: ContentStore) -> dict[str, Any]:
    for one in orjson.loads(manifest)["layers"]:
        if one["mediaType"] == CONFIG_TYPE and one.get("annotations", {}).get(PATH_ANNOTATION) == CONFIG_PATH:
            told: dict[str, Any] = orjson.loads(store.read(one["digest"]))
            return told
    return {}


def _read(told: Mapping[str, Any]) -> Golden:
    records, output = told["input"], told["output"]
    if not isinstance(records, list) or not records or not output:
        raise ValueError
    if any(not isinstance(column, list) or len(column) != len(records) for column in output.values()):
        raise ValueError
    return Golden(records, output, float(told.get("rtol", RTOL)), float(told.get("atol", ATOL)))


def check(golden: Golden, pipeline: LoadedPipeline, max_body: int) -> None:
    """Run it. Raises PipelineError that says what came instead of what was expected."""
    plane = DataPlane(lambda _: None, max_body)  # a plane of its own: nothing of this is counted or logged
    plane.swap(pipeline)
    try:
        answer = plane.infer(orjson.dumps(golden.records), encode.JSON_TYPE, as_arrow=False)
    except RequestError as error:
        raise PipelineError(f"The golden request of the publish was refused: {error}") from error
    rows = orjson.loads(answer)
    for name, wanted in golden.output.items():
        for row, (record, value) in enumerate(zip(rows, wanted, strict=True)):
            if name not in record["out"]:
                raise PipelineError(f"The golden request of the publish expects {name!r}, which is no output.")
            _compare(golden, f"row {row} of {name!r}", record["out"][name], value)


def _compare(golden: Golden, where: str, found: object, wanted: object) -> None:
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for one, other in zip(found, wanted, strict=True):
            _compare(golden, where, one, other)
        return
    numbers = (int, float)
    if isinstance(found, numbers) and isinstance(wanted, numbers):
        if math.isclose(found, wanted, rel_tol=golden.rtol, abs_tol=golden.atol):
            return
    elif found == wanted:
        return
    raise PipelineError(
        f"The golden request of the publish gave {str(found)[:80]} in {where} instead of {str(wanted)[:80]}."
    )
