from datetime import timedelta

import pytest

from catalog.models import User
from edges import operations, queries, states
from edges.models import Edge
from edges.states import State
from tests.edges.conftest import START, Clock, Device


def state(edge: Edge, owner: User, clock: Clock) -> State:
    """The state by its function, after seeing that the filter of lists agrees."""
    found = queries.edge_state(queries.edge_for(owner, edge.pk, removed=True), clock.now).state
    filtered = [each for each in State if Edge.objects.filter(states.in_state(each, clock.now)).exists()]
    assert filtered == [found]
    return found


def test_new_edge_never_joined(edge: Edge, owner: User, clock: Clock) -> None:
    assert state(edge, owner, clock) == State.NEVER_JOINED


@pytest.mark.parametrize(
    ("silence", "expected"),
    [
        (timedelta(0), State.ONLINE),
        (timedelta(seconds=90), State.ONLINE),
        (timedelta(seconds=91), State.LATE),
        (timedelta(seconds=300), State.LATE),
        (timedelta(seconds=301), State.OFFLINE),
        (timedelta(days=5, hours=11, minutes=59), State.OFFLINE),
        (timedelta(days=5, hours=12), State.LAPSING),
        (timedelta(days=6, hours=23), State.LAPSING),
        (timedelta(days=7), State.EXPIRED),
        (timedelta(days=300), State.EXPIRED),
    ],
)
def test_silence_decides(
    device: Device, edge: Edge, owner: User, clock: Clock, silence: timedelta, expected: State
) -> None:
    clock.now = START + silence
    assert state(edge, owner, clock) == expected


def test_check_in_interval_is_the_measure(
    device: Device, edge: Edge, owner: User, clock: Clock, settings: object
) -> None:
    settings.EDGE_CHECKIN_SECONDS = 3600  # type: ignore[attr-defined]
    clock.forward(hours=2)
    assert state(edge, owner, clock) == State.ONLINE


def test_ban_and_removal_hide_everything_else(device: Device, edge: Edge, owner: User, clock: Clock) -> None:
    operations.ban_edge(actor=owner, edge=edge)
    assert state(edge, owner, clock) == State.BANNED
    operations.remove_edge(actor=owner, edge=edge)
    assert state(edge, owner, clock) == State.REMOVED


def test_only_the_digest_that_it_should_serve_counts_as_serving(
    device: Device, edge: Edge, owner: User, clock: Clock
) -> None:
    def is_serving() -> bool:
        return queries.edge_state(queries.edge_for(owner, edge.pk), clock.now).is_serving

    assert not is_serving()
    device.checkin()
    assert not is_serving()
    device.checkin(serving=device.serving(edge.publish))
    assert is_serving()


@pytest.mark.parametrize("update", ["pulling", "warming"])
def test_update_under_way_is_told(device: Device, edge: Edge, owner: User, clock: Clock, update: str) -> None:
    device.checkin(update={"state": update, "error": None})
    assert update in queries.edge_state(queries.edge_for(owner, edge.pk), clock.now).explain


def test_every_state_is_explained(device: Device, edge: Edge, owner: User, clock: Clock) -> None:
    for silence in (0, 200, 3600, 86_400 * 6, 86_400 * 8):
        clock.now = START + timedelta(seconds=silence)
        explanation = queries.explanation_of(queries.edge_for(owner, edge.pk), clock.now)
        assert explanation.next_step.endswith(".")
        assert explanation.state.explain.endswith(".")
