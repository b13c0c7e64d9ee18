"""Where models run: on the accelerator that onnxruntime offers, else on the CPU, and the log says so."""

import logging

import onnxruntime as ort
import pytest

from engine.tests.conftest import eventually
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_main_job import V1
from opsengine import providers, runtime
from opsengine.runtime import OnnxModel

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
ALL = sorted({name for wanted in providers.WANTED.values() for name in wanted})
OPENVINO = "OpenVINOExecutionProvider"


@pytest.mark.parametrize(
    ("accel", "available", "chosen"),
    [
        ("none", [CUDA, CPU], [CPU]),
        ("cpu", [CUDA, CPU], [CPU]),
        ("", [CUDA, CPU], [CPU]),
        ("cuda", [TENSORRT, CUDA, CPU], [CUDA, CPU]),
        ("CUDA", [CUDA, CPU], [CUDA, CPU]),
        ("gpu", ["ROCMExecutionProvider", CPU], ["ROCMExecutionProvider", CPU]),
        ("jetson", [CUDA, TENSORRT, CPU], [TENSORRT, CUDA, CPU]),
        ("jetson", [CUDA, CPU], [CUDA, CPU]),
        ("openvino", [OPENVINO, CPU], [OPENVINO, CPU]),
    ],
)
def test_providers_are_those_that_are_there_best_first_and_the_cpu_last(accel, available, chosen, caplog):
    assert providers.choose(accel, "m", available) == chosen
    assert not caplog.records


@pytest.mark.parametrize("accel", [*providers.WANTED, "abacus"])
def test_accelerator_that_is_not_there_is_one_line_and_the_cpu(accel, caplog):
    assert providers.choose(accel, "m", [CPU]) == [CPU]
    (line,) = caplog.messages
    assert line == f"Model m is made for {accel}, which this engine does not have: it runs on the CPU"


@pytest.mark.parametrize(
    ("available", "told"),
    [([CPU], "none"), (["AzureExecutionProvider", CPU], "none"), ([CUDA, CPU], "cuda"), ([TENSORRT, CUDA, CPU], "cuda"),
     ([OPENVINO, CPU], "openvino"), ([], "none")],
)  # fmt: skip
def test_engine_tells_which_accelerator_it_has(available, told):
    assert providers.accelerator(available) == told


@pytest.fixture
def offered(monkeypatch):
    """Have onnxruntime offer these; sessions start with those in `works`, as onnxruntime does. What was asked for."""
    asked = []

    def offer(*available, works=(CPU,)):
        class Session(ort.InferenceSession):
            def __init__(self, path, options, providers):
                asked.append(providers)
                self.got = [name for name in providers if name in works]
                super().__init__(path, options, providers=[CPU])

            def get_providers(self):
                return self.got

        monkeypatch.setattr(runtime.ort, "get_available_providers", lambda: list(available))
        monkeypatch.setattr(runtime.ort, "InferenceSession", Session)
        return asked

    return offer


def loaded(tmp_path, accel):
    path = tmp_path / "m.onnx"
    path.write_bytes(models.scale(2.0))
    return OnnxModel(path, "m", 1, accel)


def test_model_for_a_gpu_runs_on_it_and_the_log_says_so(offered, tmp_path, caplog):
    asked = offered(TENSORRT, CUDA, CPU, works=(CUDA, CPU))
    with caplog.at_level(logging.INFO):
        loaded(tmp_path, "cuda")
    assert asked == [[CUDA, CPU]]
    assert caplog.messages == [f"Model m runs on {CUDA}"]


def test_gpu_that_does_not_start_is_one_line_and_the_model_runs_on_the_cpu(offered, tmp_path, caplog):
    asked = offered(CUDA, CPU, works=(CPU,))
    model = loaded(tmp_path, "cuda")
    model.warm()
    assert asked == [[CUDA, CPU]]
    assert caplog.messages == [f"Model m: {CUDA} did not start on this machine, it runs on {CPU}"]


@pytest.mark.skipif(set(ALL) & set(ort.get_available_providers()), reason="this machine has an accelerator")
def test_engine_without_a_gpu_says_so_once_and_serves(start_engine, registry):
    part = ("by-two", "m1", models.scale(2.0), ["tensor"], {"accel": "cuda"})
    url, _ = publish(registry, "scale", V1, [part])
    engine = start_engine(PIPELINE_URL=url).ready()
    assert engine.post("/infer", [{"tensor": [1.0, 2.0]}])[1][0]["out"] == {"y": [2.0, 4.0]}
    line = "Model by-two is made for cuda, which this engine does not have: it runs on the CPU"
    eventually(lambda: line in engine.log)
    assert engine.log.count("does not have") == 1
