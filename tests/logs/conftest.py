"""Edges that joined, and a way to ship pages as their engines do."""

import base64
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.core.cache import cache
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from catalog.models import PipelineVersion, User
from edges import contacts, operations, tokens
from edges.models import Edge
from publishing.models import Publish
from tests.logs import rows

ENGINE = {"version": "0.1.0", "arch": "x86_64", "accel": "none", "os": "linux"}
STREAM = "application/vnd.apache.arrow.stream"


@pytest.fixture(autouse=True)
def no_throttling_between_tests() -> None:
    cache.clear()


@contextmanager
def full_disk() -> Iterator[None]:
    """The database itself has no more room for pages: SQLite's page limit, PostgreSQL's own error from a trigger."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA page_count")
            pages_now = cursor.fetchone()[0]
            cursor.execute(f"PRAGMA max_page_count = {pages_now + 1}")
            yield
            cursor.execute("PRAGMA max_page_count = 1073741823")
            return
        cursor.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
        )
        cursor.execute("CREATE TRIGGER no_room BEFORE INSERT ON logs_logpage EXECUTE FUNCTION no_room()")
        yield
        cursor.execute("DROP FUNCTION no_room CASCADE")


@dataclasses.dataclass
class Device:
    """An edge's engine, as far as logs go."""

    edge: Edge
    version: PipelineVersion
    client: APIClient

    def ship(self, body: bytes, first: int = 1, **changes: Any) -> Any:
        """`POST logs` with that body; `headers` and query parameters may be changed."""
        headers = changes.pop("headers", {})
        query = {"epoch": rows.EPOCH, "first": first, "pipeline_version": self.version.uuid} | changes
        address = "/edge/v1/logs?" + "&".join(f"{name}={value}" for name, value in query.items())
        return self.client.generic("POST", address, body, content_type=STREAM, **headers)

    def page(self, times: Any, **changes: Any) -> bytes:
        return rows.page(times, **({"version": self.version.uuid, "partition": self.edge.name} | changes))

    def gap(self, **changes: Any) -> Any:
        return self.client.post("/edge/v1/gaps", {"epoch": str(rows.EPOCH), "reason": "storage_limit"} | changes)


@pytest.fixture
def make_publish(make_pipeline_version: Callable[..., PipelineVersion], owner: User) -> Callable[..., Publish]:
    """A publish that is in the registry, as far as edges can tell."""
    numbers = itertools.count(1)

    def make(version: PipelineVersion | None = None) -> Publish:
        return Publish.objects.create(
            pipeline_version=version or make_pipeline_version(),
            status=Publish.Status.PUBLISHED,
            pipeline_url="registry.example.com/ml/pipelines/houseprice:1",
            pipeline_digest=f"sha256:{next(numbers):064x}",
            published_at=timezone.now(),
            created_by=owner,
        )

    return make


@pytest.fixture
def make_device(make_publish: Callable[..., Publish], owner: User) -> Callable[..., Device]:
    """An engine that joined; of the same pipeline version when `version` is given."""

    def make(name: str = "houseprice-edge-01", version: PipelineVersion | None = None) -> Device:
        publish = make_publish(version)
        added = operations.add_edge(actor=owner, publish=publish, name=name)
        lines = base64.b64decode(added.bundle).decode().splitlines()
        bundle = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        key = tokens.jwk_of(ec.generate_private_key(ec.SECP256R1()).public_key())
        joined = contacts.join(join_token=bundle["JOIN_TOKEN"], public_key=key, engine=ENGINE)
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {joined.session.access_token}")
        return Device(joined.edge, publish.pipeline_version, client)

    return make


@pytest.fixture
def device(make_device: Callable[..., Device]) -> Device:
    return make_device()
