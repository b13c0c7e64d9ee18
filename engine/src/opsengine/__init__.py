"""The OpsCenter edge inference server."""

import os

# onnxruntime's Linux builds would tell their maker about this machine and its models: nothing leaves an edge unasked.
# It looks at this once, when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
