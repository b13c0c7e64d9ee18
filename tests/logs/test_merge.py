"""Rows come in true global time order, each once, however they are cut into pages and answers."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import Invalid
from logs import merge
from logs.columns import Selection
from logs.query import Answer, Cursor, Order, Query, Rows, Status
from tests.logs import rows

ONE = {"variable": pa.list_(pa.float32())}
OTHER = {"variable": pa.string()}  # the same name with another type


@dataclasses.dataclass
class Stored:
    """A page in memory that knows whether it was read."""

    pk: int
    times: list[int]
    kind: int = 0
    reach: int = 0
    reads: int = 0

    def read(self) -> Rows:
        self.reads += 1
        output = (
            pa.array([[1.0]] * len(self.times), ONE["variable"])
            if self.kind == 0
            else pa.array(["x"] * len(self.times))
        )
        ids = [1000 * self.pk + row for row in range(len(self.times))]
        table = rows.table(self.times, names=ids, outputs={"variable": output})
        return Rows(table, np.full(len(table), self.pk), np.arange(len(table)))


class Pages:
    """A source that offers pages as a database would."""

    def __init__(self, stored: Iterable[Stored]) -> None:
        self.stored = list(stored)

    def pieces(self, query: Query) -> Iterator[Stored]:
        sign = query.order.sign
        for page in self.stored:
            page.reach = max(sign * time for time in page.times)
        for page in sorted(self.stored, key=lambda page: page.reach, reverse=True):
            if query.earliest is not None and max(page.times) < query.earliest:
                continue
            if query.latest is not None and min(page.times) > query.latest:
                continue
            yield page


def ids(answer: Answer) -> list[int]:
    return [row["in"]["id"] for row in answer.table.to_pylist()] if answer.table.num_columns > 1 else []


def walked(pages: Pages, query: Query) -> list[Answer]:
    """All answers of a query, each begun where the one before ended."""
    answers = [merge.answer([pages], query)]
    while answers[-1].next:
        query = dataclasses.replace(query, cursor=Cursor.parse(str(answers[-1].next)))
        answers.append(merge.answer([pages], query))
        assert len(answers) < 1000
    return answers


page_times = st.lists(st.integers(0, 30), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(
    pages=st.lists(st.tuples(page_times, st.integers(0, 1)), max_size=8),
    order=st.sampled_from(Order),
    limit=st.integers(1, 12),
    window=st.tuples(st.none() | st.integers(0, 30), st.none() | st.integers(0, 30)),
    max_bytes=st.sampled_from([1, 1500, 10**9]),
)
def test_every_row_comes_once_in_order(
    pages: list[tuple[list[int], int]],
    order: Order,
    limit: int,
    window: tuple[int | None, int | None],
    max_bytes: int,
) -> None:
    start, end = window
    stored = [Stored(pk, times, kind) for pk, (times, kind) in enumerate(pages, start=1)]
    expected = sorted(
        (
            (time, page.pk, row)
            for page in stored
            for row, time in enumerate(page.times)
            if (start is None or time >= start) and (end is None or time <= end)
        ),
        reverse=order is Order.NEWEST_FIRST,
    )
    query = Query(order=order, limit=limit, start=start, end=end, max_bytes=max_bytes)
    answers = walked(Pages(stored), query)
    assert [one for answer in answers for one in ids(answer)] == [1000 * page + row for _, page, row in expected]
    kinds = {page.pk: page.kind for page in stored}
    for number, answer in enumerate(answers):
        found = ids(answer)
        assert len({kinds[one // 1000] for one in found}) <= 1
        assert len(found) <= limit
        assert (answer.status is Status.ALL) == (number == len(answers) - 1)
        if answer.status is Status.RECORD_LIMITED:
            assert len(found) == limit
        if answer.status is Status.SCHEMA_CHANGE:
            assert kinds[found[0] // 1000] != kinds[ids(answers[number + 1])[0] // 1000]
        assert found or answer.status is Status.ALL


@settings(max_examples=100, deadline=None)
@given(
    before=st.lists(page_times, min_size=1, max_size=5),
    meanwhile=st.lists(page_times, max_size=5),
    limit=st.integers(1, 5),
    order=st.sampled_from(Order),
)
def test_rows_that_arrive_meanwhile_neither_hide_nor_repeat_others(
    before: list[list[int]], meanwhile: list[list[int]], limit: int, order: Order
) -> None:
    pages = Pages(Stored(pk, times) for pk, times in enumerate(before, start=1))
    there = {1000 * page.pk + row for page in pages.stored for row in range(len(page.times))}
    query, found = Query(order=order, limit=limit), []
    while True:
        answer = merge.answer([pages], query)
        found += ids(answer)
        if not answer.next:
            break
        query = dataclasses.replace(query, cursor=answer.next)
        if meanwhile:
            pages.stored.append(Stored(len(pages.stored) + 1, meanwhile.pop()))
    assert len(found) == len(set(found))
    assert there <= set(found)


@settings(deadline=None)
@given(st.lists(page_times, min_size=1, max_size=6))
def test_records_come_in_order_whatever_their_schemas(pages: list[list[int]]) -> None:
    stored = [Stored(pk, times, pk % 2) for pk, times in enumerate(pages, start=1)]
    found = merge.records([Pages(stored)], Query(limit=10)).rows
    expected = sorted(((t, page.pk, row) for page in stored for row, t in enumerate(page.times)), reverse=True)[:10]
    assert [row["in"]["id"] for row in found] == [1000 * pk + row for _, pk, row in expected]


def test_sources_are_merged() -> None:
    odd, even = (Pages([Stored(pk, list(range(pk, 20, 2)))]) for pk in (1, 2))
    assert ids(merge.answer([odd, even], Query(limit=4))) == [1009, 2008, 1008, 2007]


def test_only_pages_that_may_hold_the_newest_rows_are_read() -> None:
    stored = [Stored(pk, list(range(100 * pk, 100 * pk + 100))) for pk in range(1, 50)]
    answer = merge.answer([Pages(stored)], Query(limit=100))
    assert ids(answer) == [49_099 - number for number in range(100)]
    assert sum(page.reads for page in stored) == 2  # the second tells that there are more


def test_overlapping_pages_are_all_read() -> None:
    stored = [Stored(pk, [0, 1000 + pk]) for pk in range(1, 21)]
    assert len(ids(merge.answer([Pages(stored)], Query(limit=20)))) == 20
    assert all(page.reads == 1 for page in stored)


def test_large_rows_end_an_answer_and_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = [Stored(pk, [1, pk]) for pk in range(2, 200)]
    answers = walked(Pages(stored), Query(limit=1000, max_bytes=2000))
    assert answers[0].status is Status.BYTE_LIMITED
    assert 1 < len(ids(answers[0])) < 20
    assert sum(page.reads for page in stored) < 200 * len(answers)
    assert sorted(one for answer in answers for one in ids(answer)) == sorted(
        1000 * p.pk + r for p in stored for r in (0, 1)
    )


def test_columns_that_are_not_asked_for_do_not_end_an_answer() -> None:
    pages = Pages([Stored(1, [1, 3], kind=0), Stored(2, [2, 4], kind=1)])
    assert merge.answer([pages], Query()).status is Status.SCHEMA_CHANGE
    narrow = merge.answer([pages], Query(selection=Selection(dataset=("in.id",))))
    assert (ids(narrow), narrow.status) == ([2001, 1001, 2000, 1000], Status.ALL)


def test_nothing_there_is_an_empty_answer() -> None:
    answer = merge.answer([Pages([])], Query())
    assert (answer.table.num_rows, answer.table.column_names, answer.status, answer.next) == (
        0,
        ["time"],
        Status.ALL,
        None,
    )


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "ZGVzYyAxIDIgMw",
        "",
        "ZGVzYyAxIDIgMyA0",
        "bm90IGEgY3Vyc29y",
        "é",
        "ZGVzYyAxIDIgOTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk",
    ],
)
def test_other_cursors_are_refused(text: str) -> None:
    if text == "ZGVzYyAxIDIgMw":
        assert Cursor.parse(text) == Cursor(Order.NEWEST_FIRST, 1, 2, 3)
        return
    with pytest.raises(Invalid):
        Cursor.parse(text)


def test_cursor_of_the_other_order_is_refused() -> None:
    with pytest.raises(Invalid, match="order"):
        Query(cursor=Cursor(Order.OLDEST_FIRST, 1, 1, 1))


@settings(max_examples=100, deadline=None)
@given(
    pages=st.lists(st.tuples(page_times, st.integers(0, 1)), max_size=8),
    order=st.sampled_from(Order),
    limit=st.integers(1, 12),
    max_bytes=st.sampled_from([1, 1500, 10**9]),
    holds=st.sampled_from([1, 3000, 10**9]),
)
def test_a_walk_gives_every_row_once_in_order(
    pages: list[tuple[list[int], int]], order: Order, limit: int, max_bytes: int, holds: int
) -> None:
    stored = [Stored(pk, times, kind) for pk, (times, kind) in enumerate(pages, start=1)]
    expected = sorted(
        ((time, page.pk, row) for page in stored for row, time in enumerate(page.times)),
        reverse=order is Order.NEWEST_FIRST,
    )
    query = Query(order=order, limit=limit, max_bytes=max_bytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "HELD_BYTES", holds)
        batches = list(merge.walk([Pages(stored)], query))
        first = list(merge.walk([Pages(stored)], query, total=5))
    wanted = [1000 * page + row for _, page, row in expected]
    assert walked_over(batches, wanted) == wanted
    assert [batch.next is None for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert all(sum(map(len, batch.tables)) <= limit for batch in batches)
    assert walked_over(first, wanted) == wanted[:5]


def walked_over(batches: Iterable[merge.Batch], wanted: list[int]) -> list[int]:
    """The rows of all batches; those of a batch, which may be of several schemas, as they should follow one another."""
    found: list[int] = []
    for batch in batches:
        tables = [[row["in"]["id"] for row in table.to_pylist()] for table in batch.tables if len(table)]
        assert all(table == sorted(table, key=wanted.index) for table in tables)
        found += sorted((one for table in tables for one in table), key=wanted.index)
    return found


def test_a_walk_reads_what_overlaps_once() -> None:
    stored = [Stored(pk, list(range(100))) for pk in range(1, 11)]
    batches = list(merge.walk([Pages(stored)], Query(limit=50)))
    assert sum(len(table) for batch in batches for table in batch.tables) == 1000
    assert [page.reads for page in stored] == [1] * 10


class Compacting(Pages):
    """Two pages of which the second becomes part of another piece (same keys) just before it is read."""

    def __init__(self) -> None:
        super().__init__([Stored(1, [10, 20]), Stored(2, [5, 15])])
        self.is_done = False

    def pieces(self, query: Query) -> Iterator[Any]:
        for piece in super().pieces(query):
            yield piece if self.is_done or piece.pk == 1 else Gone(self, piece.reach)


@dataclasses.dataclass
class Gone:
    source: Compacting
    reach: int

    def read(self) -> None:
        self.source.is_done = True


def test_rows_that_move_while_they_are_read_are_not_missed() -> None:
    assert ids(merge.answer([Compacting()], Query())) == [1001, 2001, 1000, 2000]
    wanted = [1001, 2001, 1000, 2000]
    assert walked_over(merge.walk([Compacting()], Query(limit=1)), wanted) == wanted


def test_a_row_that_is_listed_twice_comes_once() -> None:
    page = [Stored(1, [10, 20, 30])]
    for limit in (1, 2, 3, 10):
        found = walked_twice(page, Query(limit=limit))
        assert found == [1002, 1001, 1000]


def walked_twice(stored: list[Stored], query: Query) -> list[int]:
    """The rows of all answers, of a source that is there twice."""
    found = []
    while True:
        one = merge.answer([Pages(stored), Pages(stored)], query)
        found += ids(one)
        if one.next is None:
            return found
        query = dataclasses.replace(query, cursor=one.next)
