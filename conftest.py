"""What holds for the tests of the center and of the engine alike."""

from collections.abc import Generator

import pytest

from scripts.services import is_ci

# How a test says that it skips because an outside program is missing; other reasons (no root, no Docker) may stand.
MISSING = "is not installed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI every program is there, so a test that skips for want of one has failed."""
    report = yield
    if report.skipped and is_ci() and not hasattr(report, "wasxfail") and MISSING in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not skip in CI: {report.longreprtext}"
    return report
