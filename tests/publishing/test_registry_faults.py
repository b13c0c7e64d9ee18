"""A whole publish, signed, against a registry that fails at one of its requests, each in turn."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from catalog.models import ModelVersion, PipelineVersion
from publishing import jobs, operations
from publishing.models import Publish, RegistrySettings
from tests.fakes.oci import FakeRegistry, Fault

Status = Publish.Status
MODEL = os.urandom(200_000)


class Failing(FakeRegistry):
    """Does `action` instead of, or with None before, answering its request number `at`."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.at, self.count = -1, 0
        self.action: Callable[[str, str], Fault | None] = lambda method, path: None

    def begin(self, at: int) -> None:
        self.blobs.clear()
        self.manifests.clear()
        self.uploads.clear()
        self.at, self.count = at, 0

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.count += 1
            is_now = self.count - 1 == self.at
        return self.action(method, path) if is_now else None


@pytest.fixture
def failing(to_registry: Callable[..., RegistrySettings]) -> Iterator[Failing]:
    with Failing(auth="bearer") as registry:
        to_registry(registry.host, username=registry.username, password=registry.password)
        operations.create_signing_key(actor=None, name="site")
        yield registry


@pytest.fixture
def run(
    failing: Failing,
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    caplog: pytest.LogCaptureFixture,
) -> Callable[[int], Publish]:
    """Publishes one version into the emptied registry; -1 for no fault."""
    version = make_pipeline_version(make_model_version(content=MODEL))

    def once(at: int) -> Publish:
        failing.begin(at)
        made = make_publish(version)
        jobs.publish(made.pk)
        made.refresh_from_db()
        assert "publish failed" not in caplog.text, "a bug of ours"
        return made

    return once


def each_request(failing: Failing, run: Callable[[int], Publish], step: int) -> Iterator[tuple[int, Publish]]:
    """Every so many requests, other ones for each kind of fault: each costs a whole publish."""
    whole = run(-1)
    assert whole.status == Status.PUBLISHED, whole.error
    total = failing.count
    assert total > 25
    for at in range(step // 2, total, step):
        yield at, run(at)


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        (Fault("", "", status=429), 9),
        (Fault("", "", status=500), 10),
        (Fault("", "", status=503), 3),
        (Fault("", "", drop_after=0), 4),
        (Fault("", "", cut=0), 2),
    ],
    ids=["429", "500", "503", "dropped", "answer cut off"],
)
def test_a_fault_that_passes_at_any_request_is_not_seen(
    failing: Failing, run: Callable[[int], Publish], fault: Fault, step: int
):
    failing.action = lambda method, path: fault
    digests = set()
    for at, made in each_request(failing, run, step):
        assert made.status == Status.PUBLISHED, (at, made.error)
        assert made.notes[1:] == [], at
        assert made.bytes_done == made.bytes_total
        digests.add((made.pipeline_digest, made.chart_digest))
        tags = {tag for _, tag in failing.manifests if ":" not in tag}
        assert len(tags) == 4, (at, tags)  # pipeline, chart, and the .sig of each
    assert len(digests) == 1


def test_tokens_that_lapse_at_any_request_are_renewed(failing: Failing, run: Callable[[int], Publish]):
    def revoke(method: str, path: str) -> None:
        failing.revoke_tokens()

    failing.action = revoke
    for at, made in each_request(failing, run, 4):
        assert (made.status, made.notes[1:]) == (Status.PUBLISHED, []), (at, made.error)


def test_tokens_that_live_shorter_than_a_body_takes_are_renewed_mid_push(
    failing: Failing, run: Callable[[int], Publish], monkeypatch: pytest.MonkeyPatch
):
    """They end after 50 ms although they promise five minutes; the model takes longer than that."""
    failing.token_seconds, failing.told_seconds = 0.05, 300
    gate = threading.Event()
    gate.wait = lambda timeout=None: threading.Event().wait(0.02)  # type: ignore[method-assign,assignment]
    failing.gate = gate
    made = run(-1)
    assert made.status == Status.PUBLISHED, made.error
    assert len(failing.calls("GET", "/token")) > 3


@pytest.mark.parametrize(("status", "step"), [(403, 3), (404, 7), (413, 6)])
def test_a_refusal_at_any_request_ends_in_one_sentence_or_is_of_no_matter(
    failing: Failing, run: Callable[[int], Publish], status: int, step: int
):
    body = b'{"errors":[{"code":"DENIED","message":"not today"}]}'
    failing.action = lambda method, path: Fault("", "", status=status, body=body)
    errors = 0
    for at, made in each_request(failing, run, step):
        if made.status == Status.PUBLISHED:
            continue  # a look-up, a mount, a description (which is noted): not needed, or answered by trying otherwise
        errors += 1
        assert made.error.startswith(failing.host) and made.error.endswith("."), (at, made.error)
        assert f"({status}" in made.error or f"gave {status}" in made.error, (at, made.error)
        assert failing.password not in made.error
    assert errors > 1


def test_an_account_that_is_closed_in_the_middle_is_told_as_that(
    to_registry: Callable[..., RegistrySettings],
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
):
    with Failing(auth="basic") as registry:
        to_registry(registry.host, username=registry.username, password=registry.password)

        def close(method: str, path: str) -> None:
            registry.password = "another"

        registry.action = close
        registry.begin(4)
        made = make_publish(make_pipeline_version(make_model_version(content=MODEL)))
        assert not jobs.publish(made.pk)
    made.refresh_from_db()
    assert "refused the login (401" in made.error and "check the username and the password" in made.error


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_registry_that_sends_us_elsewhere_is_followed(failing: Failing, run: Callable[[int], Publish], status: int):
    """A reverse proxy that moved the API; writes are followed where HTTP says that they keep their body."""

    def moved(method: str, path: str) -> Fault | None:
        has_query = path == "/token" or (method == "PUT" and "/uploads/" in path)
        if not has_query and (method == "HEAD" or status in {307, 308}):
            return Fault("", "", status=status, headers={"Location": path})
        return None

    failing.action = moved
    for at, made in each_request(failing, run, 11):
        assert made.status == Status.PUBLISHED, (at, made.error)


def test_a_registry_that_stores_other_bytes_is_found_out(failing: Failing, run: Callable[[int], Publish]):
    """It answers 201 to the model, with the digest of something else."""
    other = f"sha256:{'0' * 64}"

    failing.fault_for = super(Failing, failing).fault_for  # type: ignore[method-assign]
    failing.fail("PUT", "/uploads/", status=201, headers={"Docker-Content-Digest": other})
    made = run(-1)
    assert made.status == Status.ERROR and "stored other bytes than we sent" in made.error and other in made.error
