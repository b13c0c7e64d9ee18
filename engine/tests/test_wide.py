"""Requests of many columns, of long names, of ever new ones: nobody bounds them, so time and memory have to bear it."""

import gc
import time
import tracemalloc

import numpy as np
import pytest

from opsengine import chunks, encode, kept, logpages
from opsengine.kept import Kept
from opsengine.recorder import trimmed
from opsengine.rows import Facts, Result
from opsengine.selection import parse

FACTS = Facts("p", "3b49fba8-94d8-4fca-aecc-c75257fd16c6", "{}", "m", "m1", "edge-1")


def result(names):
    return Result(FACTS, 1000, 1, {name: np.zeros(1) for name in names}, {"y": np.zeros(1)}, (5, 7))


def answer(names):
    """All that is done for a request but for running the model."""
    made = result(names)
    encode.answer_json(made, None)
    encode.answer_json(made, parse("dataset[]=*"))
    encode.answer_arrow(made, parse("dataset[]=out"))
    for page in logpages.of_chunks(list(chunks.pack([made]))):
        logpages.batch_of(page.described, page.body, page.size, page.count)


def test_time_of_an_answer_grows_with_its_columns_only():
    began = time.thread_time()
    answer([f"column-{at}" for at in range(20_000)])
    assert time.thread_time() - began < 4  # in a time that grew with their square: 12 s


def test_time_to_leave_long_inputs_out_of_the_log_grows_with_them_only():
    made = result([f"column-{at}" for at in range(30_000)])
    began = time.thread_time()
    logged = trimmed(made, 7)
    assert time.thread_time() - began < 1  # in a time that grew with their square: 6 s
    assert logged.dropped == tuple(made.inputs) and not logged.inputs


@pytest.mark.parametrize("columns, letters", [(1, 2**16), (200, 10)])
def test_what_is_kept_of_ever_new_columns_is_bounded(monkeypatch, columns, letters):
    monkeypatch.setattr(kept, "MOST_BYTES", 2**20)
    tracemalloc.start()
    try:
        for turn in range(50):
            answer([f"{turn}-{at}" + "n" * letters for at in range(columns)])
            if not turn:
                gc.collect()
                before, _ = tracemalloc.get_traced_memory()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4 * 2**20  # of four times MOST_BYTES


def test_all_is_forgotten_where_it_would_be_too_much(monkeypatch):
    monkeypatch.setattr(kept, "MOST", 3)
    monkeypatch.setattr(kept, "MOST_BYTES", 100)
    some = Kept()
    for key in "abc":
        some.keep(key, key, 10)
    assert "".join(some) == "abc"
    some.keep("d", "d", 90)
    some.keep("e", "e", 10)
    some.keep("f", "f", 101)
    assert "".join(some) == "de", "what alone is too much is not kept, and takes the place of nothing"
    some.keep("g", "g", 1)
    assert "".join(some) == "g"
