"""Whether a group goes on, has passed, or stops its rollout. Pure: counts in, verdict out.

Thresholds are over the edges that answered. Edges that are offline or gone count neither for nor against.
"""

import dataclasses
from collections.abc import Mapping
from enum import Enum

from rollouts.models import Bucket

UNSETTLED = (Bucket.WAITING, Bucket.HELD, Bucket.IN_FLIGHT)
# One failure among the first few answers says little: errors are judged over at least so many, or the whole group.
ANSWERS_TO_JUDGE = 10


class Gate(Enum):
    OPEN = "open"
    PASSED = "passed"
    TRIPPED = "tripped"


@dataclasses.dataclass(frozen=True)
class Verdict:
    gate: Gate
    reason: str = ""


def judge(counts: Mapping[str, int], *, forgiven: int, success_percent: int, error_percent: int) -> Verdict:
    """The verdict on a group from its members by bucket. `forgiven` failures were seen by the person who resumed."""
    done, failed = counts.get(Bucket.DONE, 0), max(0, counts.get(Bucket.FAILED, 0) - forgiven)
    unsettled = sum(counts.get(bucket, 0) for bucket in UNSETTLED)
    answered = done + failed
    if failed * 100 > error_percent * max(answered, min(ANSWERS_TO_JUDGE, answered + unsettled)):
        return Verdict(
            Gate.TRIPPED, f"{failed} of {answered} edges that answered failed; at most {error_percent} % may."
        )
    if unsettled:
        return Verdict(Gate.OPEN)
    if done * 100 < success_percent * answered:
        return Verdict(
            Gate.TRIPPED, f"Only {done} of {answered} edges that answered succeeded; {success_percent} % must."
        )
    return Verdict(Gate.PASSED)
