"""The model behind BentoML: `bentoml serve bentoml_model:House`, the model's file in MODEL."""

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class House:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        (made,) = self.session.run(None, {"float_input": rows.astype(np.float32)})
        return made
