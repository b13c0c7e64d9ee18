"""Full scans find the same rows whether they are in pages or in segments."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from django.utils import timezone

from common.errors import Conflict, Invalid
from logs import compaction, exact, rollups, scan_segments, scans, storage
from logs.exact import Question
from logs.filters import Filters
from logs.models import LogPage, LogSegment
from logs.scans import Scope
from tests.logs import rows
from tests.logs.busy import Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db
START = rows.START
VALUES = np.random.default_rng(4).lognormal(3, 1, 600)
FIELD = "out.variable[0]"


@pytest.fixture
def devices(device: Device, make_device: Callable[..., Device]) -> list[Device]:
    """Two edges of one pipeline, which shipped half of the values each, and rows of other schemas."""
    found = [device, make_device("second-edge", device.version)]
    for one, values in zip(found, np.split(VALUES, 2), strict=True):
        shipper = Shipper(one)
        shipper.run(START, 150, outputs=values[:150])
        shipper.run(START + 150_000, 150, outputs=values[150:])
        text = {"variable": pa.array(["high"] * 5), "label": pa.array(["a", "b", "a", None, "it's"])}
        shipper.ship(rows.table(range(START, START + 5), version=one.version.uuid, outputs=text, partition="x"))
    alike = {"Name": pa.array([1.0] * 3), "name": pa.array([2.0] * 3)}
    for changes in ({"inputs": alike, "outputs": {"other": pa.array([1.0] * 3)}}, {"outputs": {}}):
        shipper.ship(rows.table(range(START, START + 3), version=device.version.uuid, partition="x", **changes))
    return found


def compact(device: Device) -> None:
    rollups.roll_up_waiting(timezone.now)
    assert compaction.compact(device.version.pipeline_id, timezone.now)
    assert not LogPage.objects.exists()


def scope(device: Device, **filters: Any) -> Scope:
    return Scope(device.version.pipeline, START, START + 10_000_000, Filters(**filters))


QUESTIONS: list[tuple[Question, dict[str, Any]]] = [
    (Question(FIELD), {}),
    (Question(FIELD, by=("edge", "model", "pipeline_version")), {}),
    (Question(FIELD, step=100), {"edges": ("second-edge",)}),
    (Question(FIELD, by=("out.label",)), {}),
    (Question(FIELD), {"models": ("house-price",)}),
    (Question(FIELD), {"models": ("nobody",)}),
    (Question(FIELD), {"edges": ("second-*",)}),
    (Question("in.tensor[*]"), {}),
    (Question("in.Name"), {}),
    (Question("in.name"), {}),
    (Question("in.id"), {"conditions": ("out.variable > 20",)}),
    (Question("in.id"), {"conditions": ("out.label = 'it\\'s'",)}),
    (Question("in.id"), {"anomalies": ("count",)}),
]


@pytest.fixture(params=["disk", "elsewhere"])
def place(request: Any, monkeypatch: Any) -> Iterator[str]:
    """Files that DuckDB can reach by itself, and files that it cannot."""
    if request.param == "elsewhere":
        monkeypatch.setattr(scan_segments, "is_on_disk", lambda: False)
    yield request.param


def test_answers_are_the_same_from_pages_and_segments(devices: list[Device], place: str) -> None:
    device = devices[0]
    asked = [(question, scope(device, **filters)) for question, filters in QUESTIONS]
    before = [exact.summed(given, question) for question, given in asked]
    assert before[0][0].sum == pytest.approx(VALUES.sum())
    compact(device)
    after = [exact.summed(given, question) for question, given in asked]
    for (question, _), was, now in zip(asked, before, after, strict=True):
        assert len(was) == len(now), question
        for one, other in zip(was, now, strict=True):
            assert one.groups == other.groups, question
            told = [{name: value for name, value in vars(x).items() if name != "groups"} for x in (one, other)]
            assert told[0] == pytest.approx(told[1]), question
    for edge, values in exact.values(scope(device), FIELD).items():
        wanted = VALUES[:300] if edge == device.edge.name else VALUES[300:]
        assert sorted(values) == sorted(wanted)


def test_files_on_a_disk_are_read_by_duckdb_itself(devices: list[Device]) -> None:
    compact(devices[0])
    files, others = scan_segments.apart(LogSegment.objects.all(), Filters(edges=("second-edge",)))
    assert len(files) == 2
    # The schema whose names differ in case alone, and the one that Parquet has no word for.
    assert sorted(one.form for one in others) == ["arrow", "parquet"]
    assert scan_segments.apart(LogSegment.objects.all(), Filters(conditions=("in.id > 3",)))[0] == []


def test_pages_and_segments_together(devices: list[Device]) -> None:
    compact(devices[0])
    later = Shipper(devices[0])
    later.next = 306
    later.run(START + 400_000, 50, outputs=np.full(50, 1000.0))
    [found] = exact.summed(scope(devices[0]), Question(FIELD))
    assert found.count == 650
    assert found.sum == pytest.approx(VALUES.sum() + 50_000)


def test_a_page_that_becomes_a_segment_while_it_is_read_counts_once(devices: list[Device], monkeypatch: Any) -> None:
    listed = scan_segments.there
    calls = []

    def slow(found: Any) -> Any:
        kept = listed(found)
        calls.append(len(kept))
        if len(calls) == 1:
            compact(devices[0])
        return kept

    monkeypatch.setattr(scan_segments, "there", slow)
    assert exact.summed(scope(devices[0]), Question(FIELD))[0].count == 600
    assert calls == [0, 4]


def test_a_lost_file_hides_no_other(devices: list[Device], settings: Any, caplog: Any) -> None:
    compact(devices[0])
    lost = LogSegment.objects.filter(form="arrow").first()
    assert lost
    Path(storage.address(lost.path)).unlink()
    assert exact.summed(scope(devices[0]), Question(FIELD))[0].count == 600
    assert "is missing" in caplog.text
    LogSegment.objects.filter(pk=lost.pk).delete()
    monkey = LogSegment(path="gone", rows=1, pk=99)
    with pytest.raises(FileNotFoundError):
        scan_segments.there([monkey])


def test_rows_that_are_moved_again_and_again_are_given_up(device: Device, monkeypatch: Any) -> None:
    def moved(*_: Any) -> Any:
        raise FileNotFoundError

    Shipper(device).run(START, 3)
    monkeypatch.setattr(scan_segments, "there", moved)
    with pytest.raises(Conflict):
        exact.summed(scope(device), Question(FIELD))


def test_a_field_that_no_segment_has_is_refused(devices: list[Device]) -> None:
    compact(devices[0])
    with pytest.raises(Invalid, match=r"out\.none"):
        exact.summed(scope(devices[0]), Question("out.none"))
    with scans.scan(scope(devices[0])) as connection:
        assert connection.execute("SELECT count(*) FROM found").fetchall() == [(616,)]
