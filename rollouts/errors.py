"""Anticipated failures of rollouts."""

from common import errors


class EdgesInRollout(errors.Conflict):
    """Another rollout that has not ended moves some of these edges. `data["rollout_id"]` is that one."""

    code = "edges_in_rollout"


class NoEdges(errors.Conflict):
    """There is nothing to roll out to: a plain replacement does the same."""

    code = "no_edges"


class NotNow(errors.Conflict):
    """The rollout's state does not allow it. `data["state"]` is the state."""

    code = "rollout_state"
