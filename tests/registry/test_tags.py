import re
from typing import Any

import pytest


@pytest.fixture
def tags(robot: Any) -> list[str]:
    """The tags of a repository, in the order they must be listed in."""
    names = ["1.0.0", "alpha", "Beta", "gamma", "v1", "v10", "v2"]
    for name in reversed(names):
        robot.push_artifact(name)
    return names


def test_all_tags_are_listed_in_lexical_order(robot: Any, tags: list[str]) -> None:
    answer = robot.call("GET", "site/app/tags/list")
    assert answer.status_code == 200
    assert answer.json() == {"name": "site/app", "tags": tags}
    assert "Link" not in answer


def test_pages_lead_through_all_tags(robot: Any, tags: list[str]) -> None:
    found = []
    path = "site/app/tags/list?n=3"
    for size in (3, 3, 1):
        answer = robot.call("GET", path)
        assert len(answer.json()["tags"]) == size
        found += answer.json()["tags"]
        if size == 3:
            link = re.fullmatch(r'<(/v2/site/app/tags/list\?n=3&last=[^>]+)>; rel="next"', answer["Link"])
            assert link
            path = link[1]
    assert "Link" not in answer
    assert found == tags


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("last=gamma", slice(4, None)),
        ("last=c", slice(3, None)),
        ("n=2&last=alpha", slice(2, 4)),
        ("n=100", slice(None)),
        ("n=7", slice(None)),
        ("n=0", slice(0)),
        ("last=zzz", slice(0)),
    ],
)
def test_part_is_listed(robot: Any, tags: list[str], query: str, expected: slice) -> None:
    assert robot.call("GET", f"site/app/tags/list?{query}").json()["tags"] == tags[expected]


@pytest.mark.parametrize("query", ["n=7", "n=0", "n=100", "n=1&last=v10"])
def test_last_page_has_no_link(robot: Any, tags: list[str], query: str) -> None:
    assert "Link" not in robot.call("GET", f"site/app/tags/list?{query}")


@pytest.mark.parametrize("number", ["-1", "x", "1.5", "", "9" * 40, "²"])
def test_malformed_number_is_refused(robot: Any, codes: Any, tags: list[str], number: str) -> None:
    answer = robot.call("GET", f"site/app/tags/list?n={number}")
    assert answer.status_code == 400
    assert codes(answer) == ["UNSUPPORTED"]


def test_repository_of_blobs_alone_has_no_tags(robot: Any) -> None:
    robot.push_blob(b"bytes", "site/blobs-only")
    assert robot.call("GET", "site/blobs-only/tags/list").json() == {"name": "site/blobs-only", "tags": []}


@pytest.mark.parametrize("name", ["site/none", "site", "site/app/deeper"])
def test_unknown_repository_is_404(robot: Any, codes: Any, tags: list[str], name: str) -> None:
    answer = robot.call("GET", f"{name}/tags/list")
    assert answer.status_code == 404
    assert codes(answer) == ["NAME_UNKNOWN"]
