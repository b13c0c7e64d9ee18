"""One request answered without serving: `opsengine infer`, to see what the pipeline in a folder gives."""

import tempfile
from pathlib import Path

from opsengine import included, pipeline
from opsengine.plane import DataPlane


def answer(folder: Path, body: bytes, content_type: str) -> bytes:
    """The pandas records that the pipeline in `folder` (laid out as a PIPELINE_DIR) gives. Nothing is logged.

    Raises SettingsError and PipelineError when there is none that can be loaded, RequestError.
    """
    with tempfile.TemporaryDirectory() as root:
        store = included.open_store(Path(root), folder)
        plane = DataPlane(lambda _: None, len(body))
        plane.swap(pipeline.load(included.digest_of(folder), store, cpus=1, partition=""))
        return plane.infer(body, content_type, as_arrow=False)
