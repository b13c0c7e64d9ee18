"""Whole centers and engines for end-to-end tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.center import Engine
from tests.e2e import centers

SHAPES = {"embedded": centers.embedded, "production": centers.production}


@pytest.fixture(scope="session", params=list(SHAPES))
def center(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[centers.RunningCenter]:
    """A running center of each shape in turn, shared by all tests: leave it running, use names of your own."""
    with SHAPES[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def engine(center: centers.RunningCenter, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """`engine(bundle, NAME="value")` starts `opsengine serve`; the same `folder` again is the same site later on."""
    started: list[Engine] = []

    def start(bundle: str, *, folder: Path | None = None, **environment: str) -> Engine:
        started.append(Engine(folder or tmp_path / f"engine-{len(started)}", bundle, center.registry | environment))
        return started[-1]

    yield start
    for one in started:
        one.stop()
