"""What every page asks of the database: little, and no more when there is more to show."""

import uuid
from collections.abc import Callable
from typing import Any

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog.models import Membership, Model, ModelVersion, Pipeline, User, Workspace
from drift.models import Assay
from edges import operations, provisioning
from edges.models import Edge
from logs.models import LogExport
from publishing.models import Publish
from rollouts.models import Rollout
from tests.drift.conftest import make_assay  # noqa: F401 a fixture
from tests.logs.conftest import device, make_device, make_publish  # noqa: F401 fixtures
from tests.opscenter.test_page_access import (
    ELSEWHERE,
    PAGES,
    POST_ONLY,
    address_of,
    patterns,
    things,  # noqa: F401 a fixture
)

MOST = 36
MORE = 6  # of each thing: a query for each would be so many more
CHANCE = 3  # a chart asks for minutes, hours and days, as the time of day has it


def counts(client: Client, found: dict[str, Any]) -> dict[str, int]:
    """Queries of each page, once what a process remembers is there."""
    asked = {}
    for name, route in patterns():
        if name in ELSEWHERE or PAGES[name] == POST_ONLY:
            continue
        address = address_of(name, route, found)
        client.get(address)
        with CaptureQueriesContext(connection) as queries:
            client.get(address)
        asked[name] = len(queries)
    return asked


def copied(row: Any, **changes: Any) -> None:
    row.pk = None
    row._state.adding = True
    for name, value in changes.items():
        setattr(row, name, value)
    row.save()


def add_more(owner: User, found: dict[str, Any]) -> None:
    """More of everything that pages list."""
    publish, workspace = Publish.objects.get(), Workspace.objects.get(pk=found["workspaces"])
    for number in range(MORE):
        person = User.objects.create_user(email=f"more{number}@example.com", password=None)
        Membership.objects.create(workspace=workspace, user=person, role="viewer")
        copied(Workspace.objects.get(pk=found["workspaces"]), name=f"more{number}")
        copied(Model.objects.get(pk=found["models"]), name=f"more{number}")
        copied(ModelVersion.objects.get(pk=found["model-versions"]), uuid=uuid.uuid4())
        copied(Pipeline.objects.get(pk=found["pipelines"]), name=f"more{number}", uuid=uuid.uuid4())
        copied(Assay.objects.get(pk=found["assays"]), name=f"more{number}")
        copied(LogExport.objects.get(pk=found["logs"]))
        copied(Rollout.objects.get(pk=found["rollouts"]))
        operations.add_edge(actor=owner, publish=publish, name=f"more{number}")
        provisioning.make_fleet_token(actor=owner, publish=publish, pattern=f"more{number}-{{n}}", max_edges=3)


def test_no_page_asks_much_and_none_asks_more_when_there_is_more(
    browser: Callable[..., Client],
    owner: User,
    things: dict[str, Any],  # noqa: F811
) -> None:
    client = browser(owner)
    few = counts(client, things)
    assert {name: count for name, count in few.items() if count > MOST} == {}
    add_more(owner, things)
    assert Edge.objects.count() == MORE + 1
    many = counts(client, things)
    assert {name: (few[name], count) for name, count in many.items() if count > few[name] + CHANCE} == {}
