"""Publishes to run, and a device: the engine's side of the device API, through the real addresses."""

import base64
import dataclasses
import itertools
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone
from rest_framework.test import APIClient

from catalog.models import PipelineVersion, User
from edges import operations, tokens
from edges.models import Edge
from publishing.models import Publish
from tests.conftest import CONTRACT

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
ENGINE = {"version": "0.1.0", "arch": "x86_64", "accel": "none", "os": "linux"}


def golden(name: str) -> Any:
    """A message of the contract."""
    return json.loads((CONTRACT / name).read_text(encoding="utf-8"))


def refusals() -> dict[str, int]:
    """Every code that the device API may answer, and its status."""
    codes: dict[str, int] = golden("errors.json")
    return codes


class Clock:
    """The server's time, as far as the code asks `timezone.now()`."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock)
    return clock


@pytest.fixture
def make_publish(make_pipeline_version: Callable[..., PipelineVersion], owner: User) -> Callable[..., Publish]:
    """A publish that is in the registry, as far as edges can tell."""
    numbers = itertools.count(1)

    def make(*replaces: Publish, pipeline: str = "houseprice", **fields: Any) -> Publish:
        version = make_pipeline_version(name=pipeline)
        values: dict[str, Any] = {
            "status": Publish.Status.PUBLISHED,
            "pipeline_url": f"registry.example.com/ml/pipelines/{pipeline}:{version.uuid}",
            "pipeline_digest": f"sha256:{next(numbers):064x}",
            "published_at": timezone.now(),
            "created_by": owner,
        }
        publish = Publish.objects.create(pipeline_version=version, **(values | fields))
        publish.replaces.set(replaces)
        return publish

    return make


@pytest.fixture
def publish(make_publish: Callable[..., Publish]) -> Publish:
    return make_publish()


def join_token_in(bundle: str) -> str:
    return read(bundle)["JOIN_TOKEN"]


def read(bundle: str) -> dict[str, str]:
    """What a bundle says, read as an engine would."""
    lines = base64.b64decode(bundle, validate=True).decode().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


@dataclasses.dataclass
class Device:
    """An engine: holds a key, joins, signs assertions, checks in."""

    clock: Clock
    key: ec.EllipticCurvePrivateKey = dataclasses.field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    client: APIClient = dataclasses.field(default_factory=APIClient)
    joined: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def jwk(self) -> dict[str, str]:
        return tokens.jwk_of(self.key.public_key())

    def join(self, join_token: str) -> Any:
        body = {"join_token": join_token, "public_key": self.jwk, "engine": ENGINE}
        response = self.client.post("/edge/v1/join", body)
        if response.status_code == 201:
            self.joined = response.json()
            self.use(self.joined["session"]["access_token"])
        return response

    def use(self, access_token: str) -> None:
        self.client.credentials(HTTP_AUTHORIZATION=f"Bearer {access_token}")

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good assertion, with changes; `None` takes a claim out."""
        spiffe_id, issued = self.joined["edge"]["spiffe_id"], int(self.clock.now.timestamp())
        claims = {
            "iss": spiffe_id,
            "sub": spiffe_id,
            "aud": self.joined["session"]["token_endpoint"],
            "iat": issued,
            "exp": issued + 60,
            "jti": str(uuid.uuid4()),
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def assertion(self, **changes: Any) -> str:
        return jwt.encode(self.claims(**changes), self.key, algorithm="ES256")

    def token(self, assertion: str | None = None) -> Any:
        body = {**golden("token.request.json"), "client_assertion": assertion or self.assertion()}
        response = APIClient().post("/edge/v1/token", body)
        if response.status_code == 200:
            self.use(response.json()["access_token"])
        return response

    def checkin(self, **changes: Any) -> Any:
        return self.client.post("/edge/v1/checkin", {**golden("checkin.request.json"), **changes})

    def serving(self, publish: Publish) -> dict[str, Any]:
        """What it reports when it serves this publish."""
        version = publish.pipeline_version
        return {
            "digest": publish.pipeline_digest,
            "pipeline": version.pipeline.name,
            "pipeline_version": str(version.uuid),
            "since": 1763683100000,
        }


@pytest.fixture
def added(clock: Clock, owner: User, publish: Publish) -> operations.Added:
    """An edge that was added and did not join yet."""
    return operations.add_edge(actor=owner, publish=publish, name="houseprice-edge-01")


@pytest.fixture
def edge(added: operations.Added) -> Edge:
    return added.edge


@pytest.fixture
def device(clock: Clock, added: operations.Added) -> Device:
    """The engine of `edge`, joined."""
    device = Device(clock)
    response = device.join(join_token_in(added.bundle))
    assert response.status_code == 201, response.content
    return device
