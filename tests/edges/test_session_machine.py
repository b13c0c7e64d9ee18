"""Join tokens and sessions as one state machine: any order of what people, engines and time do, against a model.

The center's process holds check-ins, writes them at any moment later, or is killed before it does.
"""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from catalog.models import Membership, Pipeline, PipelineVersion, Role, Workspace
from common.errors import DomainError
from edges import contacts, hot, operations, pending, queries, sessions, signing, tokens
from edges.models import Edge, JoinToken
from publishing.models import Publish
from tests.edges.conftest import ENGINE, START, Clock, Device, golden, join_token_in

DAY, SESSION, REPEAT = timedelta(hours=24), timedelta(days=7), timedelta(minutes=10)
KEYS = [Device(Clock()) for _ in range(3)]
SPANS = [timedelta(seconds=30), timedelta(minutes=9), timedelta(minutes=61), timedelta(hours=23), timedelta(days=6)]


class Sessions(RuleBasedStateMachine):
    """The model is written from docs/edges.md, not from the code."""

    def __init__(self) -> None:
        super().__init__()
        self.around = transaction.atomic()
        self.around.__enter__()
        signing.forget_ring()
        sessions.forget_tokens()
        queries.forget_desired()
        pending.forget()

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.around.__exit__(None, None, None)

    @initialize()
    def add(self) -> None:
        self.now = START
        self.owner = get_user_model().objects.create_user("machine@example.com", "machine-password-1")
        workspace = Workspace.objects.create(name="machine", created_by=self.owner)
        Membership.objects.create(workspace=workspace, user=self.owner, role=Role.OWNER)
        pipeline = Pipeline.objects.create(workspace=workspace, name="p", created_by=self.owner)
        version = PipelineVersion.objects.create(pipeline=pipeline, definition={"steps": []}, created_by=self.owner)
        publish = Publish.objects.create(
            pipeline_version=version, status="Published", pipeline_digest="sha256:" + "a" * 64, created_by=self.owner
        )
        added = operations.add_edge(actor=self.owner, publish=publish, name="e", now=self.now)
        self.edge = added.edge
        self.secrets = [join_token_in(added.bundle)]
        self.issued = [self.now]
        self.used: dict[int, tuple[int, Any]] = {}  # token -> (key, when)
        self.holder: int | None = None
        self.contact: Any = None  # as it is stored
        self.held: Any = None
        self.is_banned = False
        self.access: dict[int, tuple[str, Any]] = {}  # key -> (access token, when it was given)

    @rule(span=st.sampled_from(SPANS))
    def time_goes_by(self, span: timedelta) -> None:
        self.now += span

    @rule()
    def reissue(self) -> None:
        try:
            added = operations.reissue_token(actor=self.owner, edge=self.edge, now=self.now)
        except DomainError as refusal:
            assert (refusal.code, self.is_banned) == ("edge_banned", True)
            return
        assert not self.is_banned
        self.secrets.append(join_token_in(added.bundle))
        self.issued.append(self.now)

    @rule(banned=st.booleans())
    def ban(self, banned: bool) -> None:
        verb = operations.ban_edge if banned else operations.unban_edge
        verb(actor=self.owner, edge=self.edge, now=self.now)
        self.is_banned = banned

    @rule()
    def rotate_signing_key(self) -> None:
        signing.rotate(self.now)

    @rule(key=st.integers(0, 2), which=st.integers(0, 50))
    def join(self, key: int, which: int) -> None:
        which %= len(self.secrets)
        expected = self._join_expected(key, which)
        try:
            with transaction.atomic():
                joined = contacts.join(
                    join_token=self.secrets[which], public_key=KEYS[key].jwk, engine=ENGINE, now=self.now
                )
        except DomainError as refusal:
            assert refusal.code == expected
            return
        assert expected == "joined"
        self.used.setdefault(which, (key, self.now))
        if self.holder != key:
            self.held = None  # what the edge said with its old key is not written any more
        self.holder, self.contact = key, self.now
        self.access[key] = (joined.session.access_token, self.now)

    def _join_expected(self, key: int, which: int) -> str:
        if self.is_banned:
            return "edge_banned"
        if which in self.used:
            owner, when = self.used[which]
            repeats = owner == key == self.holder and self.now < when + REPEAT
            return "joined" if repeats else "join_token_used"
        is_newest = which == len(self.secrets) - 1
        return "joined" if is_newest and self.now < self.issued[which] + DAY else "join_token_expired"

    @rule(key=st.integers(0, 2))
    def check_in(self, key: int) -> None:
        if key not in self.access:
            return
        token, given = self.access[key]
        report = {**golden("checkin.request.json"), "serving": None}
        try:
            with transaction.atomic():
                told = hot.checkin(sessions.proven(token, self.now), lambda: report, self.now)
        except DomainError as refusal:
            assert refusal.code in self._call_expected(key, given)
            return
        assert self._call_expected(key, given) == {"in"}
        assert told.lapses_at == self.now + SESSION
        if self.contact > self.now - pending.RECENT:
            self.held = self.now
        else:
            self.contact = self.now

    @rule()
    def write_held(self) -> None:
        is_written = self.held is not None and not self.is_banned
        assert pending.flush(self.now) <= is_written
        if is_written:
            self.contact = max(self.contact, self.held)
        self.held = None

    @rule()
    def kill_process(self) -> None:
        pending.forget()
        signing.forget_ring()
        sessions.forget_tokens()
        queries.forget_desired()
        self.held = None

    def _call_expected(self, key: int, given: Any) -> set[str]:
        if self.now >= given + timedelta(hours=1):
            # The key that signed it may be gone by then too. An engine does the same for both: it gets a new token.
            return {"token_expired", "token_invalid"}
        if self.is_banned:
            return {"edge_banned"}
        if key != self.holder:
            return {"token_invalid"}
        return {"in"} if self.now < self.contact + SESSION else {"session_expired"}

    @rule(key=st.integers(0, 2), again=st.booleans())
    def get_token(self, key: int, again: bool) -> None:
        if self.holder is None:
            return
        device = KEYS[key]
        device.joined = {
            "edge": {"spiffe_id": self.edge.spiffe_id},
            "session": {"token_endpoint": sessions.token_endpoint()},
        }
        issued = int(self.now.timestamp())
        assertion = device.assertion(iat=issued, exp=issued + 60)
        expected = self._token_expected(key)
        for turn in range(1 + again):
            try:
                with transaction.atomic():
                    session = contacts.token(assertion=assertion, now=self.now)
            except DomainError as refusal:
                assert refusal.code == (expected if turn == 0 or expected != "given" else "invalid_assertion")
                return
            assert (turn, expected) == (0, "given")
            self.contact = self.now
            self.access[key] = (session.access_token, self.now)

    def _token_expected(self, key: int) -> str:
        if key != self.holder:
            return "invalid_assertion"
        if self.is_banned:
            return "edge_banned"
        return "given" if self.now < self.contact + SESSION else "session_expired"

    @invariant()
    def one_way_in_and_one_key(self) -> None:
        if not hasattr(self, "edge"):
            return
        assert JoinToken.objects.filter(used_at=None, revoked_at=None).count() <= 1
        row = Edge.objects.get(pk=self.edge.pk)
        held = "" if self.holder is None else tokens.thumbprint(KEYS[self.holder].jwk)
        assert row.key_thumbprint == held
        assert row.session_lapses_at == (self.contact + SESSION if self.contact else None)


@pytest.mark.django_db(transaction=True)
def test_every_order_of_events_ends_as_documented(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.EDGE_HOLD_SECONDS = 2
    monkeypatch.setattr(pending._Waiting, "_run", lambda waiting: None)
    run_state_machine_as_test(
        Sessions,
        settings=hypothesis_settings(
            max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
