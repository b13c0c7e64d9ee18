"""Shipping against a strict center: resends, holes, refusals, sizes, and new beginnings."""

import sqlite3

import numpy as np
import pytest

from engine.tests.fakes.center import Refuse
from engine.tests.fakes.http import Reply
from engine.tests.test_logstore import one_page, page, result, values
from opsengine import bundle, transport
from opsengine import shipper as shipping
from opsengine.center import Center
from opsengine.errors import CenterRefused, CenterUnavailable
from opsengine.identity import Identity
from opsengine.logfile import LogFile
from opsengine.logstore import LogStore, Lost
from opsengine.logwriter import LogWriter
from opsengine.shipper import Shipper


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(transport, "pause", lambda *_, **__: 0.01)


@pytest.fixture
def log(tmp_path):
    store = LogStore(tmp_path / "rows.sqlite", 2**26)
    yield store
    store.close()


@pytest.fixture
def connect(center, tmp_path):
    def join(name="edge-1"):
        made = Center(bundle.parse(center.add_edge(name)), Identity(tmp_path / "identity"))
        made.join()
        return made

    return join


@pytest.fixture
def make_shipper(log, connect, tmp_path):
    def make(page_rows=1000):
        return Shipper(connect(), log, LogWriter(log, tmp_path / "taken"), page_rows)

    return make


def ship_all(shipper, turns=100):
    for _ in range(turns):
        if not shipper.ship_once():
            return
    raise AssertionError("shipping does not come to an end")


def received(center):
    return [[row["out"]["y"] for _, row in sorted(rows.items())] for rows in center.rows.values()]


def test_pages_have_at_most_the_size_asked_for(center, log, make_shipper):
    log.append([page(*range(25))])
    ship_all(make_shipper(page_rows=10))
    assert [(sent["first"], sent["count"]) for sent in center.pages] == [(1, 10), (11, 10), (21, 5)]
    assert received(center) == [list(range(25))]
    assert log.position.acked == 25


def test_lost_reply_doubles_no_row(center, log, make_shipper):
    log.append([page(1, 2, 3)])
    shipper = make_shipper()
    center.refuse["/edge/v1/logs"] = [None]
    with pytest.raises(CenterUnavailable):
        shipper.ship_once()
    log.append([page(4)])
    ship_all(shipper)
    assert received(center) == [[1, 2, 3, 4]]


def test_gaps_are_told_in_their_place(center, log, make_shipper):
    log.append([page(1, 2)], Lost(3, 10, 20, "queue_full"))
    log.append([page(6)])
    ship_all(make_shipper())
    (gap,) = center.gaps
    assert (gap["first"], gap["last"], gap["count"], gap["reason"]) == (3, 5, 3, "queue_full")
    assert center.total() == (3, 3)


def test_hole_sends_again_from_what_is_expected(center, log, make_shipper):
    log.append([page(1, 2), page(3, 4)])
    shipper = make_shipper()
    ship_all(shipper)
    center.acked.clear()  # the center was put back to before it knew this edge
    center.rows.clear()
    log.append([page(5)])
    ship_all(shipper)
    assert received(center) == [[1, 2, 3, 4, 5]]


def test_log_put_back_from_a_copy_begins_a_new_epoch_and_loses_nothing(center, log, make_shipper):
    log.append([page(1, 2)])  # the copy: both rows are at the center, one is known to be
    log.acknowledge(1)
    shipper = make_shipper()
    epoch = log.position.epoch
    center.acked[epoch] = 500  # the rest was written after the copy was made, and is gone here
    log.append([page(3, 4)])
    ship_all(shipper)
    assert log.position.epoch != epoch
    assert [row["out"]["y"] for row in center.rows[log.position.epoch].values()] == [3, 4]
    log.append([page(5)])
    ship_all(shipper)
    assert [row["out"]["y"] for row in center.rows[log.position.epoch].values()] == [3, 4, 5]


def begun_anew(writer):
    """The writer met damage that only a new file can help."""
    writer.begin_again(sqlite3.DatabaseError("database disk image is malformed"), writer.epoch)


@pytest.mark.parametrize("refusal", [None, Refuse("page_too_large", limit=1000)], ids=["taken", "refused"])
def test_answer_that_comes_when_the_log_was_begun_anew_tells_nothing_of_the_new_one(
    center, log, make_shipper, monkeypatch, refusal
):
    log.append([page(1)])
    shipper = make_shipper()
    center.refuse["/edge/v1/logs"] = [refusal] if refusal else []
    send = shipper._center.send_page

    def send_slowly(*given, **told):
        begun_anew(shipper._writer)
        log.append([page(2), page(3)])
        return send(*given, **told)

    with monkeypatch.context() as slow:
        slow.setattr(shipper._center, "send_page", send_slowly)
        shipper.ship_once()
    assert (log.position.acked, values(log.next(10))) == (0, [2, 3])


def test_damage_that_both_threads_meet_begins_the_log_anew_once(log, make_shipper, monkeypatch):
    shipper = make_shipper()
    before = log.position.epoch

    def meet_damage(_):
        begun_anew(shipper._writer)
        log.append([page(1, 2)])
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(log, "next", meet_damage)
    shipper._turn()
    assert log.position.epoch != before and log.position.last == 2


def test_log_that_could_be_begun_anew_in_the_end_is_no_longer_told_as_a_fault(log, make_shipper, monkeypatch):
    """Whoever met the damage: there may be no rows to write for long."""
    writer = make_shipper()._writer

    def refuse(_):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(LogFile, "_open", refuse)
        begun_anew(writer)
        assert "disk I/O error" in writer.fault
    begun_anew(writer)
    assert writer.fault is None


def test_expired_token_is_renewed_once(center, log, make_shipper):
    log.append([page(1)])
    shipper = make_shipper()
    center.valid.clear()
    ship_all(shipper)
    assert received(center) == [[1]]


def test_center_that_knows_no_token_for_a_while_is_tried_again(center, log, make_shipper):
    log.append([page(1)])
    shipper = make_shipper()
    center.refuse["/edge/v1/logs"] = [Refuse("token_invalid")] * 2  # the new token as well
    with pytest.raises(CenterUnavailable, match="does not know this edge now"):
        shipper.ship_once()
    ship_all(shipper)
    assert received(center) == [[1]]


def test_page_too_large_is_halved(center, log, make_shipper):
    log.append([page(*range(100))])
    shipper = make_shipper()
    too_large = Refuse("page_too_large", limit=1000)
    center.refuse["/edge/v1/logs"] = [too_large, too_large]
    ship_all(shipper)
    assert center.pages[0]["count"] == 25
    assert received(center) == [list(range(100))]


@pytest.mark.parametrize("way", [None, Reply(413, b"<html>"), Reply(504, b"<html>")], ids=["cut", "413", "504"])
def test_page_too_long_for_the_way_is_halved(center, log, make_shipper, way):
    """A link that is too slow for a page within the time, or a proxy that takes no such body, takes fewer rows."""
    log.append([page(*range(8))])
    shipper = make_shipper()
    center.refuse["/edge/v1/logs"] = [way, way]
    for _ in range(2):
        with pytest.raises(CenterUnavailable):
            shipper.ship_once()
    ship_all(shipper)
    assert received(center) == [list(range(8))]
    assert [sent["count"] for sent in center.pages] == [2, 4, 2]


def test_slow_link_keeps_the_pages_that_it_takes(center, log, make_shipper, monkeypatch):
    monkeypatch.setattr(shipping, "QUICK_SECONDS", 0.0)
    log.append([page(*range(6))])
    shipper = make_shipper()
    center.refuse["/edge/v1/logs"] = [None]
    with pytest.raises(CenterUnavailable):
        shipper.ship_once()
    ship_all(shipper)
    assert [sent["count"] for sent in center.pages] == [3, 3]


def test_refusal_that_is_not_the_centers_costs_no_row(center, log, make_shipper):
    """A gateway that has lost its way to the center, say: the center's own answers all carry its time."""
    log.append([page(1)])
    shipper = make_shipper()
    center.refuse["/edge/v1/logs"] = [Reply(404, b'{"code":"not_found","message":"no such route"}')] * 5
    for _ in range(5):
        with pytest.raises(CenterUnavailable, match="no such route"):
            shipper.ship_once()
    ship_all(shipper)
    assert received(center) == [[1]] and center.gaps == []


def test_page_over_the_limit_is_never_sent(center, log, make_shipper, monkeypatch):
    monkeypatch.setattr(shipping, "LARGEST_PAGE", 20_000)
    noise = np.random.default_rng(1).random(100)
    log.append([page(*noise, width=50)])
    ship_all(make_shipper())
    assert max(sent["bytes"] for sent in center.pages) <= 20_000
    assert center.total() == (100, 0)


def test_single_row_too_large_is_a_gap(center, log, make_shipper, monkeypatch):
    monkeypatch.setattr(shipping, "LARGEST_PAGE", 20_000)
    huge = np.random.default_rng(1).random((1, 20_000)).astype(np.float32)
    row = result(1)
    row.inputs["x"] = huge
    log.append([one_page(row), page(2)])
    ship_all(make_shipper())
    assert received(center) == [[2]]
    assert [gap["reason"] for gap in center.gaps] == ["row_too_large"]


def test_page_that_is_refused_again_and_again_is_told_as_a_gap(center, log, make_shipper):
    log.append([page(1, 2)])
    shipper = make_shipper()
    center.refuse["/edge/v1/logs"] = [Refuse("invalid_page")] * 3
    for _ in range(2):
        with pytest.raises(CenterUnavailable, match="refused log rows"):
            shipper.ship_once()
    ship_all(shipper)
    log.append([page(3)])
    ship_all(shipper)
    assert center.total() == (1, 2)
    assert [gap["reason"] for gap in center.gaps] == ["refused_invalid_page"]


@pytest.mark.parametrize("code", ["edge_removed", "edge_banned", "session_expired"])
def test_final_refusal_ends_shipping_and_keeps_the_rows(center, log, make_shipper, code):
    log.append([page(1)])
    shipper = make_shipper()
    center.refuse["/edge/v1/logs"] = [Refuse(code)]
    with pytest.raises(CenterRefused) as caught:
        shipper.ship_once()
    assert caught.value.is_final
    assert log.next(10).count == 1


def test_center_with_observability_off_holds_the_rows_however_often_it_refuses(center, log, make_shipper):
    log.append([page(1, 2)], Lost(3, 10, 20, "queue_full"))
    log.append([page(6)])
    shipper = make_shipper()
    center.is_off = True
    for _ in range(10):
        with pytest.raises(CenterUnavailable, match="takes no logs now: An administrator switched observability off"):
            shipper.ship_once()
    assert (log.position.acked, center.total()) == (0, (0, 0))
    center.is_off = False
    ship_all(shipper)
    assert center.total() == (3, 3)
    assert [gap["reason"] for gap in center.gaps] == ["queue_full"]


def test_gap_that_is_held_is_told_later(center, log, make_shipper):
    log.append([page(1)], Lost(2, 10, 20, "queue_full"))
    shipper = make_shipper()
    shipper.ship_once()
    center.is_off = True
    for _ in range(5):
        with pytest.raises(CenterUnavailable, match="takes no logs now"):
            shipper.ship_once()
    center.is_off = False
    ship_all(shipper)
    assert center.total() == (1, 2)


def test_rows_of_a_pipeline_that_is_not_the_edges_are_told_as_a_gap(center, log, make_shipper):
    log.append([page(1)])
    shipper = make_shipper()
    center.refuse["/edge/v1/logs"] = [Refuse("pipeline_not_assigned")] * 3
    for _ in range(2):
        with pytest.raises(CenterUnavailable, match="refused log rows"):
            shipper.ship_once()
    ship_all(shipper)
    assert [gap["reason"] for gap in center.gaps] == ["refused_pipeline_not_assigned"]


@pytest.mark.parametrize("status", [429, 500, 503, 507])
def test_passing_fault_waits_as_long_as_it_asks(center, log, make_shipper, status):
    log.append([page(1)])
    shipper = make_shipper()
    busy = Reply(status, b'{"code":"rate_limited","message":"later"}', {"Retry-After": "7"})
    center.refuse["/edge/v1/logs"] = [busy]
    with pytest.raises(CenterUnavailable) as caught:
        shipper.ship_once()
    assert caught.value.retry_after == 7.0
    ship_all(shipper)
    assert received(center) == [[1]]


def test_full_disk_at_an_acknowledgement_is_tried_again_soon(center, log, make_shipper, monkeypatch):
    """The page is at the center by then: it is sent again, and the pauses grow from the shortest on."""
    waited = []
    monkeypatch.setattr(transport, "pause", lambda attempt, **_: waited.append(attempt) or 0.01)
    log.append([page(1)])
    acknowledge, failures = log.acknowledge, iter([True, True])

    def full(*given):
        if next(failures, False):
            raise sqlite3.OperationalError("database or disk is full")
        acknowledge(*given)

    monkeypatch.setattr(log, "acknowledge", full)
    shipper = make_shipper()
    for _ in range(3):
        shipper._turn()
    assert waited == [0, 1]
    assert received(center) == [[1]] and log.position.acked == 1
