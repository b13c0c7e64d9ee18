"""Joining a center and staying joined: lost replies, spent and new bundles, refusals, clocks."""

import errno
import stat

import orjson
import pytest

from engine.tests.conftest import EngineProcess, eventually
from engine.tests.fakes import models
from engine.tests.fakes.center import Refuse
from engine.tests.fakes.http import Reply
from engine.tests.fakes.registry import publish
from opsengine import bundle
from opsengine.center import Center
from opsengine.errors import CenterRefused, CenterUnavailable
from opsengine.identity import Identity

V1, V2 = "3b49fba8-94d8-4fca-aecc-c75257fd16c6", "2e78349c-d282-41c9-a435-0c943c3accf1"


@pytest.fixture
def pipeline_url(registry, center):
    url, digest = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    center.wish("scale", V1, url, digest)
    return url


def connect(tmp_path, text):
    return Center(bundle.parse(text), Identity(tmp_path / "identity"))


def test_join_keeps_key_and_session_for_the_engine_only(center, tmp_path):
    made = connect(tmp_path, center.add_edge())
    made.join()
    files = list((tmp_path / "identity").iterdir())
    assert {path.suffix for path in files} == {".pem", ".json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert not any(token.encode() in path.read_bytes() for path in files for token in center.tokens)


def test_join_after_a_lost_reply_shows_the_same_key(center, tmp_path):
    text = center.add_edge()
    center.refuse["/edge/v1/join"] = [Reply(502, b"lost")]
    with pytest.raises(CenterUnavailable):
        connect(tmp_path, text).join()
    connect(tmp_path, text).join()
    made = connect(tmp_path, text)
    assert made.has_spent_bundle
    assert len({orjson.dumps(told["public_key"]) for told in center.joins}) == 1


def test_session_is_used_again_without_the_join_token(center, tmp_path):
    text = center.add_edge()
    connect(tmp_path, text).join()
    again = connect(tmp_path, text)
    assert again.has_spent_bundle
    again.send_gap({"epoch": V1, "first": 1, "last": 1, "count": 1, "time_min": 1, "time_max": 1, "reason": "x"})
    assert len(center.joins) == 1


def test_new_bundle_rotates_the_key(center, tmp_path):
    connect(tmp_path, center.add_edge()).join()
    again = connect(tmp_path, center.add_edge("edge-2"))
    assert not again.has_spent_bundle
    again.join()
    assert again.session.edge_name == "edge-2"
    assert len({orjson.dumps(told["public_key"]) for told in center.joins}) == 2
    assert len(list((tmp_path / "identity").glob("*.pem"))) == 1


def test_session_that_cannot_be_written_costs_no_answer(center, tmp_path, monkeypatch):
    made = connect(tmp_path, center.add_edge())
    made.join()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Identity, "keep", full)
    center.clock_ahead_ms = 10**9
    made.send_gap({"epoch": V1, "first": 1, "last": 1, "count": 1, "time_min": 1, "time_max": 1, "reason": "x"})
    made.keep_lapse(2 * 10**12)
    assert made.session.lapses_at == 2 * 10**12
    assert abs(made.clock_offset - 10**9) < 60_000


def test_pause_without_end_is_not_obeyed(start_engine, center, pipeline_url):
    center.next_checkin = 1e300
    engine = start_engine(EDGE_BUNDLE=center.add_edge(), PIPELINE_URL=pipeline_url, CHECKIN_SECONDS="").ready()
    eventually(lambda: center.serving, 30)  # the swap asks for a check-in at once: the thread still runs
    engine.stop()
    assert "Exception in thread" not in engine.log


@pytest.mark.parametrize("ahead", [-(10**11), 10**11])
def test_clock_that_is_far_off_is_corrected_from_the_centers(center, tmp_path, ahead):
    text = center.add_edge()
    connect(tmp_path, text).join()
    center.clock_ahead_ms = ahead
    again = connect(tmp_path, text)
    again.send_gap({"epoch": V1, "first": 1, "last": 1, "count": 1, "time_min": 1, "time_max": 1, "reason": "x"})
    assert abs(again.now_ms() - connect(tmp_path, text).now_ms()) < 1000  # also after the next start


def test_another_key_with_a_used_token_is_refused_for_good(center, tmp_path):
    text = center.add_edge()
    connect(tmp_path / "one", text).join()
    with pytest.raises(CenterRefused, match="reissue the bundle") as caught:
        connect(tmp_path / "two", text).join()
    assert caught.value.is_final


@pytest.mark.parametrize("answer", [Reply(200, b"<html>login</html>"), Reply(404, b"not here"), Reply(301, b"")])
def test_answers_that_are_not_the_centers_are_tried_again_later(center, tmp_path, answer):
    center.refuse["/edge/v1/join"] = [answer]
    with pytest.raises(CenterUnavailable):
        connect(tmp_path, center.add_edge()).join()


def test_used_token_on_a_fresh_volume_ends_with_one_line(start_engine, center, pipeline_url):
    center.refuse["/edge/v1/join"] = [Refuse("join_token_used", "This bundle was used already: reissue it.")]
    engine = start_engine(EDGE_BUNDLE=center.add_edge(pipeline_url=pipeline_url))
    assert engine.wait() == 1
    assert engine.log.splitlines()[-1] == "CRITICAL: This bundle was used already: reissue it. (join_token_used)"
    assert "Traceback" not in engine.log


def test_removed_edge_keeps_serving(start_engine, center, pipeline_url):
    engine = start_engine(EDGE_BUNDLE=center.add_edge(pipeline_url=pipeline_url)).ready()
    eventually(lambda: center.checkins)
    with center.lock:
        center.refuse["/edge/v1/checkin"] = [Refuse("edge_removed", "This edge was removed.")] * 1000
        center.refuse["/edge/v1/logs"] = [Refuse("edge_removed", "This edge was removed.")] * 1000
    eventually(lambda: "This edge was removed." in engine.log)
    assert engine.post("/infer", [{"tensor": [1.0, 1.0]}])[0] == 200
    assert len(engine.post("/logs", {})[1]) == 1
    left = len(center.refuse["/edge/v1/checkin"])
    engine.post("/infer", [{"tensor": [1.0, 1.0]}])
    assert len(center.refuse["/edge/v1/checkin"]) == left  # it does not ask again
    assert engine.stop() == 0


def test_damaged_session_keeps_serving_and_a_new_bundle_mends_it(start_engine, center, pipeline_url):
    engine = start_engine(EDGE_BUNDLE=center.add_edge(pipeline_url=pipeline_url)).ready()
    engine.stop()
    session = engine.folder / "persist" / "identity" / "session.json"
    session.write_bytes(session.read_bytes()[:20])
    center.refuse["/edge/v1/join"] = [Refuse("join_token_used", "This token was used.")]
    again = start_engine(**engine.env).ready()
    assert again.post("/infer", [{"tensor": [1.0, 1.0]}])[0] == 200
    assert "session.json is damaged" in again.log and "Traceback" not in again.log
    again.stop()
    count = len(center.checkins)
    start_engine(EDGE_BUNDLE=center.add_edge("edge-1", pipeline_url=pipeline_url)).ready()
    eventually(lambda: len(center.checkins) > count, 30)


def test_damaged_key_keeps_serving_and_says_what_to_do(start_engine, center, pipeline_url):
    engine = start_engine(EDGE_BUNDLE=center.add_edge(pipeline_url=pipeline_url)).ready()
    engine.stop()
    (key,) = (engine.folder / "persist" / "identity").glob("key-*.pem")
    key.write_text("-----BEGIN PRIVATE KEY-----")
    again = start_engine(**engine.env).ready()
    assert again.post("/infer", [{"tensor": [1.0, 1.0]}])[0] == 200
    problem = eventually(lambda: again.get("/status.json")[1]["contact"]["problem"], 30)
    assert "is damaged: delete it and start with a new EDGE_BUNDLE" in problem
    assert "Traceback" not in again.log


@pytest.mark.parametrize("name", ["session.json", "key-*.pem"])
def test_folder_in_the_place_of_session_or_key_keeps_serving(start_engine, center, pipeline_url, name):
    """As some tools that check a disk leave it: no start may fail of what only the center needs."""
    engine = start_engine(EDGE_BUNDLE=center.add_edge(pipeline_url=pipeline_url)).ready()
    engine.stop()
    (path,) = (engine.folder / "persist" / "identity").glob(name)
    path.unlink()
    path.mkdir()
    center.refuse["/edge/v1/join"] = [Refuse("join_token_used", "This token was used.")]
    again = start_engine(**engine.env).ready()
    assert again.post("/infer", [{"tensor": [1.0, 1.0]}])[0] == 200
    eventually(lambda: f"{path.name} is damaged: delete it and start with a new EDGE_BUNDLE" in again.log)
    assert "Traceback" not in again.log


def test_session_that_cannot_be_written_at_the_join_is_told_and_joined_again(center, tmp_path, monkeypatch):
    text = center.add_edge()
    made = connect(tmp_path, text)
    with monkeypatch.context() as full:
        full.setattr(Identity, "keep", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(CenterUnavailable, match="cannot be written"):
            made.join()
    made.join()
    assert connect(tmp_path, text).has_spent_bundle


def test_refused_new_bundle_goes_on_with_the_old_session(start_engine, center, pipeline_url):
    engine = start_engine(EDGE_BUNDLE=center.add_edge(pipeline_url=pipeline_url)).ready()
    engine.stop()
    center.refuse["/edge/v1/join"] = [Refuse("join_token_expired", "Too late: reissue it.")] * 5
    count = len(center.checkins)
    again = start_engine(EDGE_BUNDLE=center.add_edge("edge-2", pipeline_url=pipeline_url)).ready()
    eventually(lambda: len(center.checkins) > count)
    assert "Too late: reissue it." in again.log


def test_new_identity_ships_what_was_left_and_nothing_twice(start_engine, center, pipeline_url):
    engine = start_engine(EDGE_BUNDLE=center.add_edge(pipeline_url=pipeline_url)).ready()
    engine.post("/infer", [{"tensor": [1.0, 1.0]}])
    eventually(lambda: center.total()[0] == 1)
    center.stop()
    engine.post("/infer", [{"tensor": [2.0, 2.0]}])
    engine.stop()
    center.start()
    again = start_engine(EDGE_BUNDLE=center.add_edge("edge-2", pipeline_url=pipeline_url)).ready()
    eventually(lambda: len(center.rows) == 2)
    old, new = center.rows.values()
    assert [row["out"]["y"][0] for row in old.values()] == [2.0]
    assert [row["out"]["y"][0] for row in new.values()] == [4.0]
    again.post("/infer", [{"tensor": [3.0, 3.0]}])
    eventually(lambda: sorted(new) == [1, 2])
    assert new[2]["metadata"]["partition"] == "edge-2"
    assert len(again.post("/logs", {})[1]) == 3


def test_center_out_of_reach_at_the_first_start_does_not_stop_serving(start_engine, center, pipeline_url):
    text = center.add_edge(pipeline_url=pipeline_url)
    center.stop()
    engine = start_engine(EDGE_BUNDLE=text).ready()
    engine.post("/infer", [{"tensor": [1.0, 1.0]}])
    center.start()
    eventually(lambda: center.total()[0] == 1, 15)
    assert "Node attestation was successful" in engine.log


def test_centers_wish_beats_the_pipeline_url_of_the_environment(start_engine, registry, center, pipeline_url):
    other, _ = publish(registry, "other", V2, [("by-nine", "m2", models.scale(9.0), ["tensor"])])
    engine = start_engine(EDGE_BUNDLE=center.add_edge(), PIPELINE_URL=other).ready()
    assert engine.get("/pipelines")[1]["pipelines"][0]["id"] == "scale"
    engine.stop()
    again = EngineProcess(engine.folder, **{**engine.env, "PIPELINE_URL": pipeline_url + "-changed"}).start().ready()
    count = len(center.checkins)
    eventually(lambda: len(center.checkins) > count + 1)
    assert again.get("/pipelines")[1]["pipelines"][0]["id"] == "scale"
    again.stop()


def test_secrets_are_never_in_the_log(start_engine, center, registry, pipeline_url):
    registry.auth = "bearer"
    username, password = registry.user
    text = center.add_edge(pipeline_url=pipeline_url)
    engine = start_engine(
        EDGE_BUNDLE=text, OCI_REGISTRY=registry.host, OCI_USERNAME=username, OCI_PASSWORD=password, DEBUG="true"
    ).ready()
    engine.post("/infer", [{"tensor": [1.0, 1.0]}])
    eventually(lambda: center.total()[0] == 1)
    engine.stop()
    secrets = [text, password, *center.tokens, *center.valid, "granted"]
    assert not any(secret in engine.log for secret in secrets)
