"""Two real engines behind narrow links that are cut while a new publish comes: nothing is fetched twice."""

import hashlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from examples.center import Engine, wait_for
from tests.e2e import centers, links
from tests.e2e.centers import RunningCenter
from tests.e2e.links import Link
from tests.e2e.test_killed_processes import Site, big_model, serves, serving

pytestmark = pytest.mark.e2e

SIZE = 16 << 20
MEGABITS = 24.0
# Ethernet, IP and TCP headers, acknowledgements of our own requests, and the answers of check-ins.
OVERHEAD = 1.08
# What had come and was not on the disk yet: the engine writes by 256 KiB, the kernel and the queue hold some more.
LOST_AT_A_CUT = 1 << 20
ASK = """
import sys, urllib.request
body = b'[{"tensor": [1.0]}]'
print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})).status)
"""


@pytest.fixture
def two_links() -> Iterator[list[Link]]:
    with links.made(2) as found:
        yield found


@pytest.fixture
def far_center(two_links: list[Link], tmp_path: Path) -> Iterator[RunningCenter]:
    """A center that sites reach over their links."""
    plain = {"OCI_PLAIN_HTTP": "true"}
    folder = tmp_path / "center"
    folder.mkdir()
    with centers.embedded(folder, links.center_address(), **plain) as running:
        running.registry |= plain | {"NO_PROXY": "*", "no_proxy": "*"}
        yield running


def test_pull_that_is_cut_goes_on_where_it_stopped(
    two_links: list[Link], far_center: RunningCenter, tmp_path: Path
) -> None:
    site = Site(far_center.api())
    old, content = site.publish(big_model(1 << 12)), big_model(SIZE)
    started: list[Engine] = []
    try:
        for number, link in enumerate(two_links):
            edge = site.api.post(f"publishes/{old['id']}/edges", {"name": f"{site.name}-{number}"})["edge_bundle"]
            folder = tmp_path / f"site-{number}"
            started.append(Engine(folder, edge, far_center.registry, host=link.theirs, within=link.within))
        for engine in started:
            serving(engine)
        _cut_in_mid_pull(two_links, started, site, old["id"], content)
    finally:
        for engine in started:
            engine.stop()


def _cut_in_mid_pull(two_links: list[Link], started: list[Engine], site: Site, old: int, content: bytes) -> None:
    for link in two_links:
        link.shape(MEGABITS)
    before = [link.sent() for link in two_links]
    site.publish(content, replaces=(old,))
    for link, begin, share in zip(two_links, before, (0.3, 0.6), strict=True):
        wait_for("a part of the model", partial(_has_come, link, begin + int(SIZE * share)))
        link.cut()
        assert SIZE * 0.25 < link.sent() - begin < SIZE * 0.9, "cut in mid-pull"
    for link, engine in zip(two_links, started, strict=True):
        assert link.at_site(sys.executable, "-c", ASK, f"{engine.url}/infer").strip() == "200", "it serves on"
    for link, engine in zip(two_links, started, strict=True):
        engine.http.clear()  # our own connections went too
        link.connect()

    wanted = hashlib.sha256(content).hexdigest()
    for link, begin, engine in zip(two_links, before, started, strict=True):
        wait_for("the model at the edge", partial(serves, engine, wanted), 120)
        fetched = link.sent() - begin
        assert fetched < SIZE * OVERHEAD + LOST_AT_A_CUT, f"{fetched - SIZE} bytes more than the model"


def _has_come(link: Link, count: int) -> bool:
    return link.sent() >= count
