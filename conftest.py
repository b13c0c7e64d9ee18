"""What holds for the tests of the center and of the engine alike."""

from collections.abc import Generator
from pathlib import Path

import pytest

from scripts.services import is_ci

# How a test says that it skips because an outside program is missing; other reasons (no root, no Docker) may stand.
MISSING = "is not installed"

# In CI a test of whole processes that failed runs once more, and the summary names it as RERUN: on a shared machine a
# program may starve for longer than any wait, and that is no reason to hold a change back. Nothing else runs twice,
# and pyproject.toml bounds how many of these do: a fault that strikes often is one of the product.
WHOLE_PROCESSES = Path(__file__).parent / "engine/tests"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In CI, lets tests of whole processes fail once."""
    for item in items:
        if is_ci() and (item.get_closest_marker("e2e") or item.path.is_relative_to(WHOLE_PROCESSES)):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI every program is there, so a test that skips for want of one has failed."""
    report = yield
    if report.skipped and is_ci() and not hasattr(report, "wasxfail") and MISSING in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not skip in CI: {report.longreprtext}"
    return report
