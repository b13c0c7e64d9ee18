"""Where a model runs: the onnxruntime execution providers for its `accel`, as far as this machine has them."""

import logging
from collections.abc import Sequence

CPU = "CPUExecutionProvider"
# Values of `accel` in pipeline.json -> providers, best first.
WANTED = {
    "cuda": ("CUDAExecutionProvider",),
    "gpu": ("CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider"),
    "jetson": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "openvino": ("OpenVINOExecutionProvider",),
    "rocm": ("ROCMExecutionProvider",),
    "coreml": ("CoreMLExecutionProvider",),
    "qnn": ("QNNExecutionProvider",),
}

logger = logging.getLogger(__name__)


def wants(accel: str) -> bool:
    """Whether a model is made for an accelerator."""
    return accel.lower() in WANTED


def choose(accel: str, model: str, available: Sequence[str]) -> list[str]:
    """Providers for a model, the CPU always last: without the accelerator it runs there, and the log says so."""
    wanted = WANTED.get(accel.lower(), ())
    found = [name for name in wanted if name in available]
    if not found and accel.lower() not in ("", "none", "cpu"):
        logger.warning("Model %s is made for %s, which this engine does not have: it runs on the CPU", model, accel)
    return [*found, CPU]


def accelerator(available: Sequence[str]) -> str:
    """What the engine says of itself when it joins: an `accel` that it can serve, "none" with the CPU alone."""
    return next((accel for accel, wanted in WANTED.items() if wanted[-1] in available), "none")


def told(model: str, chosen: Sequence[str], got: Sequence[str]) -> None:
    """Say where a loaded model runs. onnxruntime goes on without a provider that fails to start."""
    lost = [name for name in chosen if name not in got]
    if lost:
        logger.warning("Model %s: %s did not start on this machine, it runs on %s", model, ", ".join(lost), got[0])
    elif got[0] != CPU:
        logger.info("Model %s runs on %s", model, got[0])
