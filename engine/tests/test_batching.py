"""Micro-batching: callers at the same time run together, and nobody sees another's rows."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.tests.fakes import models
from opsengine.batching import Batcher
from opsengine.definition import Batching
from opsengine.errors import PipelineError, RequestError
from opsengine.runtime import OnnxModel


class Counting:
    """A model's run that says how many rows came at a time."""

    def __init__(self, model):
        self.model, self.sizes = model, []

    def run(self, columns):
        self.sizes.append(len(columns["x"]))
        return self.model.run(columns)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(models.scale(2.0))
    return Counting(OnnxModel(path, "by-two", 1))


def together(batcher, arrays):
    start = threading.Barrier(len(arrays))

    def call(array):
        start.wait()
        try:
            return batcher.run({"x": array})
        except RequestError as error:
            return error

    with ThreadPoolExecutor(len(arrays)) as pool:
        return list(pool.map(call, arrays))


def test_callers_run_together_and_get_their_own_rows(model):
    arrays = [np.full((n + 1, 2), n, np.float32) for n in range(8)]
    answers = together(Batcher(model.run, Batching(36, 2_000_000)), arrays)
    assert model.sizes == [36]
    for array, answer in zip(arrays, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], model.model.run({"x": array})["y"])


def test_no_more_rows_than_allowed_run_at_a_time(model):
    arrays = [np.full((3, 2), n, np.float32) for n in range(8)]
    answers = together(Batcher(model.run, Batching(7, 50_000)), arrays)
    assert sum(model.sizes) == 24 and max(model.sizes) <= 7
    assert [answer["y"][0, 0] for answer in answers] == [2.0 * n for n in range(8)]


def test_single_caller_waits_no_longer_than_asked(model):
    answer = Batcher(model.run, Batching(1000, 1000)).run({"x": np.ones((2, 2), np.float32)})
    assert answer["y"].tolist() == [[2.0, 2.0]] * 2


def test_fault_of_one_caller_is_not_anothers():
    def run(columns):
        if (columns["x"] < 0).any():
            raise RequestError("negative")
        return {"y": columns["x"]}

    arrays = [np.full((1, 1), n, np.float32) for n in (1, -1, 2)]
    good, bad, other = together(Batcher(run, Batching(3, 2_000_000)), arrays)
    assert (good["y"].item(), str(bad), other["y"].item()) == (1.0, "negative", 2.0)


def test_rows_of_other_lengths_do_not_run_together():
    sizes = []

    def run(columns):
        sizes.append(columns["x"].shape)
        return {"y": columns["x"].sum(axis=1)}

    answers = together(Batcher(run, Batching(3, 2_000_000)), [np.ones((1, n), np.float32) for n in (2, 3, 2)])
    assert [answer["y"].item() for answer in answers] == [2.0, 3.0, 2.0]
    assert sorted(sizes) == [(1, 3), (2, 2)]


@pytest.mark.parametrize("widths", [(1, 1), (1, 2)], ids=["one run", "two runs"])
def test_fault_that_nobody_expects_ends_every_wait(widths):
    def run(columns):
        raise ZeroDivisionError

    batcher = Batcher(run, Batching(2, 2_000_000))
    faults = []

    def call(width):
        try:
            batcher.run({"x": np.ones((1, width))})
        except (RequestError, ZeroDivisionError) as error:
            faults.append(type(error))

    threads = [threading.Thread(target=call, args=(width,)) for width in widths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert set(faults) == {RequestError, ZeroDivisionError} and len(faults) == 2


def test_pipeline_batches_as_its_config_says(infer, data):
    part = ("rf", "m1", (data / "houseprice" / "rf_model.onnx").read_bytes(), ["tensor"])
    batching = {"config": {"tensor_fields": ["tensor"], "batching": {"max_rows": 8, "max_wait_us": 100}}}
    records = (data / "houseprice" / "xtest-1k.df.json").read_bytes()
    alone, batched = infer(records, part), infer(records, (*part, batching))
    assert [row["out"] for row in batched] == [row["out"] for row in alone]


ROWS = '"max_rows" of "batching" is a whole number from 2 to 100000.'
WAIT = '"max_wait_us" of "batching" is a whole number from 0 to 1000000 (microseconds).'


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_rows": 8}, WAIT),
        ({"max_wait_us": 0}, ROWS),
        ({}, ROWS),
        ({"max_rows": 1, "max_wait_us": 0}, ROWS),
        ({"max_rows": "8", "max_wait_us": 0}, ROWS),
        ({"max_rows": 8.0, "max_wait_us": 0}, ROWS),
        ({"max_rows": 8, "max_wait_us": None}, WAIT),
        ({"max_rows": 8, "max_wait_us": True}, WAIT),
        ({"max_rows": 8, "max_wait_us": 1_000_001}, WAIT),
        ([8, 0], '"batching" is {"max_rows", "max_wait_us"}, or null.'),
        (8, '"batching" is {"max_rows", "max_wait_us"}, or null.'),
    ],
)
def test_batching_that_cannot_be_is_refused_by_model_and_field(load_pipeline, limits, said):
    part = ("by-two", "m1", models.scale(2.0), None, {"config": {"batching": limits}})
    with pytest.raises(PipelineError) as refused:
        load_pipeline(part)
    assert str(refused.value) == f"Model by-two: {said}"


def test_model_of_fixed_rows_cannot_be_batched(load_pipeline):
    limits = {"max_rows": 8, "max_wait_us": 0}
    part = ("by-two", "m1", models.scale(2.0, batch=1), None, {"config": {"batching": limits}})
    with pytest.raises(PipelineError, match="fixed number of rows"):
        load_pipeline(part)
