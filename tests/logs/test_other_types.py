"""The same name with another type: each schema stays by itself, in pages, segments and tables, and nothing is cast.

A table that casts one edge's doubles to another's floats answers 0.10000000149011612 and inf for 0.1 and 1e300.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from django.utils import timezone

from catalog.models import User
from logs import compaction, delta, exact, queries, rollups
from logs.exact import Question
from logs.models import LogPage, LogSegment
from logs.query import Query
from logs.scans import Scope
from tests.logs import rows
from tests.logs.busy import Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db

FLOAT = 0.10000000149011612
SINGLE = pa.array([[0.1], [0.25]], pa.list_(pa.float32()))
DOUBLE = pa.array([[0.1, 1e300], [0.5]], pa.list_(pa.float64()))
TEXT = pa.array(["high", "low"])
KINDS = (SINGLE, DOUBLE, TEXT)
VALUES = [[FLOAT], [0.25], [0.1, 1e300], [0.5], "high", "low"]


@pytest.fixture
def mixed(device: Device) -> Device:
    """Rows of the three kinds, one after another, again and again."""
    shipper = Shipper(device)
    for turn in range(compaction.ALIKE):
        for number, values in enumerate(KINDS):
            begin = rows.START + 10 * turn + 2 * number
            shipper.ship(rows.table([begin, begin + 1], version=device.version.uuid, outputs={"variable": values}))
        compact(device)
    return device


def compact(device: Device) -> None:
    rollups.roll_up_waiting(timezone.now)
    compaction.compact(device.version.pipeline_id, timezone.now)


def answered(device: Device) -> list[Any]:
    """The outputs, the oldest first."""
    found = []
    for batch in queries.walk(device.version.pipeline, Query(limit=1000)):
        found += [row for table in batch.tables for row in table.to_pylist()]
    return [row["out"]["variable"] for row in sorted(found, key=lambda row: row["time"])]


def test_segments_that_become_one_are_of_one_schema(mixed: Device) -> None:
    assert not LogPage.objects.exists()
    kept = LogSegment.objects.filter(removed_at=None)
    assert kept.count() == kept.values("schema_id").distinct().count() == len(KINDS)
    assert LogSegment.objects.exclude(removed_at=None).exists(), "they were made of smaller ones"
    assert answered(mixed) == VALUES * compaction.ALIKE


def test_an_answer_of_segments_ends_where_the_type_changes(mixed: Device, owner: User) -> None:
    query = Query(limit=1000)
    kinds = []
    for _ in range(len(KINDS)):
        answer = queries.read(owner, mixed.version.pipeline_id, query)
        kinds.append((len(answer.table), answer.table.schema.field("out").type.field("variable").type, answer.status))
        query = Query(limit=1000, cursor=answer.next)
    assert kinds == [(2, kind.type, "SchemaChange") for kind in reversed(KINDS)]


def test_scans_widen_and_never_narrow(mixed: Device) -> None:
    scope = Scope(mixed.version.pipeline, rows.START, rows.START + 1000)
    [found] = exact.summed(scope, Question("out.variable[*]"))
    # Every element counts, and a row without numbers as one.
    assert (found.rows, found.count, found.nulls) == (56, 40, 16)
    assert (found.max, found.min) == (1e300, 0.1)
    firsts = exact.values(scope, "out.variable[0]")[mixed.edge.name]
    assert sorted(set(firsts.tolist())) == [0.1, FLOAT, 0.25, 0.5]


def test_each_kind_is_a_table_with_its_own_values(mixed: Device, settings: Any) -> None:
    assert delta.publish() == len(KINDS)
    tables = [pl.read_delta(str(log.parent)) for log in Path(settings.LOGS_URL).rglob("_delta_log")]
    found = {str(table.schema["out"]): table.sort("time")["out"].struct.field("variable").to_list() for table in tables}
    assert sorted(found.values(), key=str) == sorted(
        ([*kind.to_pylist()] * compaction.ALIKE for kind in KINDS), key=str
    )
