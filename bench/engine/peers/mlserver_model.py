"""The model behind MLServer: `mlserver start FOLDER` with the settings that `servers.py` writes."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class House(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = NumpyCodec.decode_input(payload.inputs[0])
        (made,) = self.session.run(None, {"float_input": values})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("variable", made)])
