"""Edges that ship rows, and assays over them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from catalog.models import User
from drift import operations
from drift.models import Assay
from drift.operations import BaselineAsked, Comparison, Schedule
from tests.logs.busy import Shipper
from tests.logs.conftest import (  # noqa: F401
    Device,
    device,
    make_device,
    make_publish,
    no_throttling_between_tests,
)

BEGIN = datetime(2026, 11, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
FIELD = "out.variable[0]"
RANDOM = np.random.default_rng(11)
USUAL = RANDOM.normal(100, 10, 1200)


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def ship(shipper: Shipper, begin: datetime, values: Any, apart: int = 500) -> np.ndarray:
    """Rows with these outputs from a moment on."""
    return shipper.run(ms(begin), len(values), apart=apart, outputs=values)


@pytest.fixture
def make_assay(owner: User) -> Callable[..., Assay]:
    """An assay with the first hour as its baseline, over the hours after it."""

    def make(on: Device, **changes: Any) -> Assay:
        compared = {
            name: changes.pop(name)
            for name in (
                "model",
                "field",
                "baseline",
                "edges",
                "bin_mode",
                "bins",
                "bin_edges",
                "aggregation",
                "metric",
            )
            if name in changes
        }
        baseline = BaselineAsked(BEGIN, BEGIN + HOUR)
        comparison = Comparison(**({"model": "house-price", "field": FIELD, "baseline": baseline} | compared))
        schedule = changes.pop("schedule", Schedule(width=3600, interval=3600, wait=0))
        given = {"name": "prices", "now": BEGIN + HOUR} | changes
        return operations.create(
            actor=owner, pipeline_pk=on.version.pipeline_id, comparison=comparison, schedule=schedule, **given
        )

    return make
