import pytest

from rollouts.gates import Gate, judge


@pytest.mark.parametrize(
    ("counts", "forgiven", "gate"),
    [
        ({"waiting": 5}, 0, Gate.OPEN),
        ({"done": 5, "in_flight": 1}, 0, Gate.OPEN),
        ({"held_by_window": 3}, 0, Gate.OPEN),
        ({"done": 5}, 0, Gate.PASSED),
        ({}, 0, Gate.PASSED),
        ({"offline": 5, "gone": 2}, 0, Gate.PASSED),  # nobody answered: nobody is waited for
        ({"done": 9, "failed": 1}, 0, Gate.PASSED),
        ({"done": 8, "failed": 2}, 0, Gate.TRIPPED),
        ({"done": 8, "failed": 2, "offline": 90}, 0, Gate.TRIPPED),  # offline ones dilute nothing
        ({"failed": 1, "waiting": 99}, 0, Gate.OPEN),  # one of the first few says little
        ({"failed": 2, "waiting": 98}, 0, Gate.TRIPPED),
        ({"failed": 1}, 0, Gate.TRIPPED),  # a canary of one
        ({"failed": 1, "done": 2}, 0, Gate.TRIPPED),
        ({"failed": 2, "done": 8}, 2, Gate.PASSED),  # somebody saw them and resumed
        ({"failed": 3, "done": 2}, 2, Gate.TRIPPED),
    ],
)
def test_gate_counts_only_edges_that_answered(counts: dict[str, int], forgiven: int, gate: Gate) -> None:
    assert judge(counts, forgiven=forgiven, success_percent=90, error_percent=10).gate is gate


def test_group_that_settles_below_its_success_threshold_is_stopped() -> None:
    verdict = judge({"done": 7, "failed": 3}, forgiven=0, success_percent=80, error_percent=50)
    assert (verdict.gate, verdict.reason) == (
        Gate.TRIPPED,
        "Only 7 of 10 edges that answered succeeded; 80 % must.",
    )
