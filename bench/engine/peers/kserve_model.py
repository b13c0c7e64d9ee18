"""The model behind KServe: `python kserve_model.py MODEL PORT`."""

import sys

import kserve
import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferResponse


class House(kserve.Model):
    def __init__(self, path: str) -> None:
        super().__init__("house")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        values = payload.inputs[0].as_numpy().astype(np.float32, copy=False)
        (made,) = self.session.run(None, {"float_input": values})
        output = InferOutput("variable", list(made.shape), "FP32")
        output.set_data_from_numpy(made, binary_data=False)
        return InferResponse("1", "house", [output])


if __name__ == "__main__":
    model, port = sys.argv[1:]
    server = kserve.ModelServer(http_port=int(port), enable_grpc=False, enable_latency_logging=False)
    server.start([House(model)])
