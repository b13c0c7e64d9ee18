"""Models on onnxruntime."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from opsengine import fields, providers
from opsengine.errors import PipelineError, RequestError
from opsengine.fields import Array, Field, Shape

TENSORS: dict[str, np.dtype[np.generic]] = {
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype("O"),
}
TAKEN = "tensors of float16 to float64, whole numbers, bool or text"
# Faults that onnxruntime finds in what it was given, as opposed to faults in the model.
CALLER_FAULTS = (ort.capi.onnxruntime_pybind11_state.InvalidArgument,)
MODEL_FAULTS = (
    ort.capi.onnxruntime_pybind11_state.Fail,
    ort.capi.onnxruntime_pybind11_state.RuntimeException,
    ort.capi.onnxruntime_pybind11_state.NotImplemented,
    ort.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    ort.capi.onnxruntime_pybind11_state.InvalidGraph,
    ort.capi.onnxruntime_pybind11_state.NoSuchFile,
    ort.capi.onnxruntime_pybind11_state.EPFail,
)


@dataclass(frozen=True, slots=True)
class Input:
    """One model input: `shape` is that of a row, `batch` the fixed number of rows a run takes (None: any)."""

    name: str
    dtype: np.dtype[np.generic]
    shape: Shape
    batch: int | None

    def prepare(self, field: Field, column: str) -> Array:
        """The column in this input's type, rows as they were sent. Raises RequestError naming the column."""
        if self.dtype.kind == "O":
            values = field.tolist() if isinstance(field, np.ndarray) else field
            return fields.text_from_values(values, column)
        array = field if isinstance(field, np.ndarray) else fields.from_values(field, column, self.dtype)
        return fields.cast(array, self.dtype, column)


@dataclass(frozen=True, slots=True)
class Output:
    """One model output: `shape` is that of a row, None where it is not known."""

    name: str
    dtype: np.dtype[np.generic]
    shape: Shape | None


class Model(Protocol):
    """What runs in a step, whatever it is made with. Safe for several threads."""

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    @property
    def fault(self) -> str | None:
        """Why it cannot answer now without being started first, None where it can."""
        ...

    def run(self, columns: Mapping[str, Array]) -> dict[str, Field]:
        """Outputs by name, one row for each row of `columns` (by input name). Raises RequestError."""
        ...

    def warm(self) -> None:
        """One run, so that the first caller does not pay for set-up. Raises PipelineError if the model fails."""
        ...


class OnnxModel:
    """A loaded ONNX model. Safe for several threads."""

    def __init__(self, path: Path, name: str, cpus: int, accel: str = "none") -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = cpus
        options.inter_op_num_threads = 1
        # Waiting threads sleep: spinning takes the cores that the HTTP threads need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            chosen = providers.choose(accel, name, ort.get_available_providers())
            self._session = ort.InferenceSession(str(path), options, providers=chosen)
        except (*CALLER_FAULTS, *MODEL_FAULTS) as error:
            raise PipelineError(f"Model {name} cannot be loaded: {_first_line(error)}.") from error
        providers.told(name, chosen, self._session.get_providers())
        self.name = name
        self.inputs = tuple(_input(name, node) for node in self._session.get_inputs())
        self.outputs = tuple(_output(name, node) for node in self._session.get_outputs())
        self._names = [node.name for node in self.outputs]
        self._batch = next((node.batch for node in self.inputs if node.batch), None)

    @property
    def fault(self) -> str | None:
        """None: it is part of this process."""
        return None

    def run(self, columns: Mapping[str, Array]) -> dict[str, Field]:
        """Outputs by name, one row for each row of `columns` (by input name, of the inputs' shapes).

        Raises RequestError: 400 where the model refuses the values, 500 where it fails.
        """
        count = len(next(iter(columns.values())))
        batch = self._batch
        if batch is None or batch == count:
            made = self._run(columns)
        elif count % batch:
            raise RequestError(
                f"Model {self.name} takes {batch} rows at a time: send a multiple of {batch}, not {count}."
            )
        else:
            parts = [
                self._run({name: a[at : at + batch] for name, a in columns.items()}) for at in range(0, count, batch)
            ]
            made = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
        for node, array in zip(self.outputs, made, strict=True):
            if not array.ndim or len(array) != count:
                raise RequestError(f"Model {self.name} gave an output {node.name} without one value a row.", 500)
        return {
            node.name: array.tolist() if array.dtype.kind in "OU" else array
            for node, array in zip(self.outputs, made, strict=True)
        }

    def warm(self) -> None:
        """One run on zeros, so that the first caller does not pay for set-up. Raises PipelineError if the model fails.

        Only where all shapes are known: for others a made-up size may be wrong without the model being at fault.
        """
        if any(length is None for node in self.inputs for length in node.shape):
            return
        filled = zeros(self.inputs)
        try:
            self.run(filled)
        except RequestError as error:
            raise PipelineError(f"Model {self.name} fails on its first run: {error}") from error

    def _run(self, columns: Mapping[str, Array]) -> list[Array]:
        try:
            return list(self._session.run(self._names, columns))
        except CALLER_FAULTS as error:
            raise RequestError(f"Model {self.name} refused the values: {_first_line(error)}.") from error
        except MODEL_FAULTS as error:
            raise RequestError(f"Model {self.name} failed: {_first_line(error)}.", 500) from error


def _input(model: str, node: ort.NodeArg) -> Input:
    if node.type not in TENSORS:
        raise PipelineError(
            f"Model {model} has an input {node.name} of type {node.type}: cast it in the model, engines take {TAKEN}."
        )
    if not node.shape:
        raise PipelineError(f"Model {model} has an input {node.name} without a row axis: give it a shape like [N, 18].")
    lengths = [length if isinstance(length, int) and length > 0 else None for length in node.shape]
    return Input(node.name, TENSORS[node.type], tuple(lengths[1:]), lengths[0])


def _output(model: str, node: ort.NodeArg) -> Output:
    if node.type not in TENSORS:
        raise PipelineError(
            f"Model {model} has an output {node.name} of type {node.type}: convert it, engines give {TAKEN} "
            "(scikit-learn: zipmap=False)."
        )
    lengths = [length if isinstance(length, int) and length > 0 else None for length in node.shape]
    return Output(str(node.name), TENSORS[node.type], tuple(lengths[1:]) if lengths else None)


def zeros(inputs: tuple[Input, ...]) -> dict[str, Array]:
    """One row, or one batch, of nothing."""
    return {node.name: _zeros(node) for node in inputs}


def _zeros(node: Input) -> Array:
    shape = (node.batch or 1, *(length or 1 for length in node.shape))
    return np.full(shape, "", dtype=object) if node.dtype.kind == "O" else np.zeros(shape, dtype=node.dtype)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300].rstrip(".") if str(error) else type(error).__name__
