"""People and things that tests begin with. `make_*` functions have defaults for everything."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from catalog import storage
from catalog.models import (
    Membership,
    Model,
    ModelConfig,
    ModelVersion,
    Pipeline,
    PipelineVersion,
    Role,
    User,
    Workspace,
)
from edges import limits, pending, queries, sessions, signing
from logs import observability

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = ROOT / "contract"


@pytest.fixture(autouse=True)
def data_folder(settings: Any, tmp_path: Path) -> Path:
    """Nothing a test stores outlives it."""
    settings.DATA = tmp_path
    settings.MODEL_ROOT = tmp_path / "models"
    settings.LOG_EXPORT_ROOT = tmp_path / "log-exports"
    settings.LOGS_URL = str(tmp_path / "logs")
    settings.REGISTRY_ROOT = tmp_path / "registry"
    # Page tests need no `collectstatic` before them.
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }
    settings.EDGE_HOLD_SECONDS = 0  # written at once: nothing happens beside a test
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast; nothing is kept
    return tmp_path


@pytest.fixture(autouse=True)
def no_memory_between_tests() -> None:
    """What a process remembers of the database it talks to, and what all of them count in Redis."""
    if django_settings.REDIS_URL:
        cache.clear()  # with the whole Redis database, which is the tests' own
    signing.forget_ring()
    sessions.forget_tokens()
    queries.forget_desired()
    pending.forget()
    observability.forget()
    limits.forget()


@pytest.fixture(scope="session")
def real_models() -> Path:
    """The real models and inputs with known answers, which are not part of the project."""
    folder = Path(os.environ.get("OPSCENTER_TEST_DATA") or ROOT.parent / "shared/data")
    if not (folder / "houseprice/rf_model.onnx").exists():
        pytest.skip("the real models are not here: set OPSCENTER_TEST_DATA to their folder")
    return folder


@pytest.fixture
def owner(db: None) -> User:
    return User.objects.create_user("owner@example.com", "owner-password-1")


@pytest.fixture
def workspace(owner: User) -> Workspace:
    workspace = Workspace.objects.create(name="factory", created_by=owner)
    Membership.objects.create(workspace=workspace, user=owner, role=Role.OWNER)
    return workspace


@pytest.fixture
def member(workspace: Workspace) -> User:
    user = User.objects.create_user("member@example.com", "member-password-1")
    Membership.objects.create(workspace=workspace, user=user, role=Role.COLLABORATOR)
    return user


@pytest.fixture
def viewer(workspace: Workspace) -> User:
    user = User.objects.create_user("viewer@example.com", "viewer-password-1")
    Membership.objects.create(workspace=workspace, user=user, role=Role.VIEWER)
    return user


@pytest.fixture
def stranger(db: None) -> User:
    return User.objects.create_user("stranger@example.com", "stranger-password-1")


@pytest.fixture
def api() -> Callable[..., APIClient]:
    """`api(user)` is a REST client of that user, `api()` of nobody."""

    def make(user: User | None = None) -> APIClient:
        client = APIClient()
        if user:
            client.force_authenticate(user)
        return client

    return make


@pytest.fixture
def browser() -> Callable[..., Client]:
    """`browser(user)` is a page client that is logged in, `browser()` one that is not."""

    def make(user: User | None = None) -> Client:
        client = Client()
        if user:
            client.force_login(user)
        return client

    return make


@pytest.fixture
def statuses(
    browser: Callable[..., Client], owner: User, member: User, viewer: User, stranger: User
) -> Callable[..., dict[str, int]]:
    """`statuses(address)` is how each kind of person is answered; nobody must be sent to the login page."""
    people = {"owner": owner, "member": member, "viewer": viewer, "stranger": stranger}

    def ask(address: str, method: str = "get", without: tuple[str, ...] = (), **data: Any) -> dict[str, int]:
        found = {
            name: getattr(browser(user), method)(address, data).status_code
            for name, user in people.items()
            if name not in without
        }
        answer = getattr(browser(), method)(address, data)
        assert answer.status_code == 302, answer.status_code
        assert answer["Location"].startswith(reverse("login")), answer["Location"]
        return found

    return ask


def check_newest_events(client: Client, url: str, of: Any, kind: str) -> None:
    """Fail unless the page of `of` at `url` says that it shows the newest 30 of 60 events, and leads to all of them."""
    events = f"{url}/events"
    assert f'href="{events}"' not in client.get(url).content.decode(), "all are shown"
    for number in range(of.events.count(), 60):
        of.events.create(kind=kind, detail={"reason": f"reason-{number:02}"})
    text = client.get(url).content.decode()
    assert "The newest 30 of 60." in text
    assert f'href="{events}"' in text
    assert "reason-30" in text
    assert "reason-29" not in text


@pytest.fixture
def make_model_version(workspace: Workspace, owner: User) -> Callable[..., ModelVersion]:
    """A stored model version; its file holds `content`."""

    def make(name: str = "house-price", content: bytes = b"model", **fields: Any) -> ModelVersion:
        model, _ = Model.objects.get_or_create(workspace=workspace, name=name, defaults={"created_by": owner})
        with storage.Writer() as writer:
            writer.write(content)
            writer.keep()
        values = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "file_name": f"{name}.onnx",
            "inputs": [{"name": "tensor", "type": "float32", "shape": [None, 18]}],
            "outputs": [{"name": "variable", "type": "float32", "shape": [None, 1]}],
            "status": ModelVersion.Status.READY,
            "created_by": owner,
        }
        version = ModelVersion.objects.create(model=model, **(values | fields))
        ModelConfig.objects.create(model_version=version, tensor_fields=["tensor"])
        return version

    return make


@pytest.fixture
def make_pipeline_version(
    workspace: Workspace, owner: User, make_model_version: Callable[..., ModelVersion]
) -> Callable[..., PipelineVersion]:
    """A pipeline version of one step a model version; one of `make_model_version()` when none is given."""

    def make(*models: ModelVersion, name: str = "houseprice", **fields: Any) -> PipelineVersion:
        pipeline, _ = Pipeline.objects.get_or_create(workspace=workspace, name=name, defaults={"created_by": owner})
        chosen = models or (make_model_version(),)
        steps = [
            {"ModelInference": {"models": [{"name": m.model.name, "version": str(m.uuid), "sha": m.sha256}]}}
            for m in chosen
        ]
        version = PipelineVersion.objects.create(
            pipeline=pipeline, definition={"id": name, "steps": steps}, created_by=owner, **fields
        )
        configs = [config for m in chosen if (config := m.configs.first())]
        version.model_configs.set(configs)
        return version

    return make


@pytest.fixture
def shared_database(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """A database that many threads can use, configured as in production.

    SQLite's test database is in memory, which its connections cannot share like a file: here it is a file.
    """
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    memory, name = connection.connection, connection.settings_dict["NAME"]
    file = tmp_path / "shared.sqlite3"
    copy = sqlite3.connect(file)
    memory.backup(copy)
    copy.close()
    connection.connection, connection.settings_dict["NAME"] = None, str(file)
    yield
    connection.close()
    connection.connection, connection.settings_dict["NAME"] = memory, name
