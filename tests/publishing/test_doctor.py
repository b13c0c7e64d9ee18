"""The registry doctor: what it finds, what it says to do, what it leaves behind, and the plan that comes of it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from catalog.models import User
from publishing import doctor, jobs
from publishing.doctor import Report, examination, samples
from publishing.models import RegistrySettings
from publishing.oci.client import Registry, Retries
from publishing.oci.plan import MIB
from tests.fakes.oci import FakeRegistry
from tests.publishing.conftest import RealRegistry

TEST_URL = "/admin/publishing/registrysettings/1/test-connection/"


def examined(fake: FakeRegistry, **changes: Any) -> Report:
    fields = {"username": fake.username, "password": fake.password, "plain_http": True}
    return doctor.examine(lambda: Registry(fake.host, **(fields | changes)), "ml")


def states(report: Report) -> dict[str, str]:
    return {check.name: check.state for check in report.checks}


def check(report: Report, name: str) -> doctor.Check:
    return next(check for check in report.checks if check.name == name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "RETRIES", Retries(tries=2, first=0.001, patience=1))


@pytest.mark.parametrize("auth", ["none", "basic", "bearer"])
def test_a_good_registry_passes_and_is_left_as_it_was(auth: str):
    with FakeRegistry(auth=auth) as fake:
        report = examined(fake)
        assert report.state == "ok", report.checks
        assert set(states(report)) == {
            "connection", "clock", "login", "blob", "large blob", "chunked upload", "mount", "tag",
            "pipeline artifact", "Helm chart", "image index", "referrers", "clean-up",
        }  # fmt: skip
        assert not any(fake.blobs.values()) and not [key for key in fake.manifests if ":" in key[1]]
        assert not fake.uploads
        assert report.plan is not None
        assert (report.plan.most_body, report.plan.chunked, report.plan.referrers_tag) == (None, True, False)
        assert report.plan.media_types == {"modelpack": True, "helm": True, "index": True}


def test_twice_is_the_same_as_once(fake: FakeRegistry):
    fake.deletes = False
    examined(fake)
    kept = {name: set(found) for name, found in fake.blobs.items()}, set(fake.manifests)
    report = examined(fake)
    assert ({name: set(found) for name, found in fake.blobs.items()}, set(fake.manifests)) == kept
    assert set(fake.blobs) == {"ml/doctor"}
    assert "stay in ml/doctor" in check(report, "clean-up").said and report.state == "ok"


def test_a_limit_of_bodies_makes_a_chunked_plan(fake: FakeRegistry):
    fake.most_put = fake.most_patch = MIB
    report = examined(fake)
    assert check(report, "large blob").state == "warn" and "client_max_body_size" in check(report, "large blob").remedy
    assert report.plan is not None
    assert report.plan.is_chunked_for(2 * MIB) and report.plan.chunk_bytes == MIB


def test_neither_large_bodies_nor_chunks_fails(fake: FakeRegistry):
    fake.most_put, fake.most_patch = MIB, 1000
    assert check(examined(fake), "chunked upload").state == "fail"


def test_a_wrong_password_is_one_fault_with_one_thing_to_do(fake: FakeRegistry):
    fake.auth = "bearer"
    report = examined(fake, password="wrong")
    assert states(report)["login"] == "fail" and report.plan is None
    assert "401" in check(report, "login").said
    assert check(report, "login").remedy.startswith("Check the username and the password or token")
    assert "wrong" not in json.dumps(report.as_json())


def test_a_grant_that_is_silently_less_is_told_before_anything_is_sent(fake: FakeRegistry):
    fake.auth, fake.jwt = "bearer", True
    fake.grants = lambda scope: not scope.endswith(":push")
    report = examined(fake)
    assert "did not grant push on ml/doctor" in check(report, "login").said
    assert not fake.calls("POST")


def test_a_registry_that_speaks_tls_is_told_from_one_that_does_not(fake: FakeRegistry):
    report = examined(fake, plain_http=False)
    assert states(report) == {"connection": "fail"}
    assert "speaks plain HTTP, not HTTPS" in check(report, "connection").said
    assert "ick plain HTTP" in check(report, "connection").remedy


def test_nobody_there_is_told(fake: FakeRegistry):
    report = doctor.examine(lambda: Registry("127.0.0.1:1", plain_http=True), "ml")
    assert states(report) == {"connection": "fail"} and "cannot be reached" in check(report, "connection").said


def test_clocks_that_differ_are_told(fake: FakeRegistry):
    fake.date = "Mon, 01 Jan 2024 00:00:00 GMT"
    assert check(examined(fake), "clock").state == "warn" and "NTP" in check(examined(fake), "clock").remedy


def test_refused_types_are_named(fake: FakeRegistry):
    fake.refused_types = {samples.ARTIFACT}
    report = examined(fake)
    assert states(report)["pipeline artifact"] == "fail" and states(report)["Helm chart"] == "ok"
    assert report.plan is not None and report.plan.media_types["modelpack"] is False


def test_without_the_referrers_api_the_fallback_tag_is_planned(fake: FakeRegistry):
    fake.has_referrers = False
    report = examined(fake)
    assert report.state == "ok" and report.plan is not None and report.plan.referrers_tag is True


@pytest.mark.parametrize(
    ("host", "hours", "said"),
    [
        ("1.dkr.ecr.eu-west-1.amazonaws.com", 13, "This token was saved 13 h ago; ECR tokens last 12 h."),
        ("1.dkr.ecr.eu-west-1.amazonaws.com", 11, ""),
        ("ghcr.io", 1300, ""),
    ],
)
def test_the_age_of_an_ecr_token_is_told(host: str, hours: int, said: str):
    now = datetime.now(UTC)
    assert doctor.password_age(host, now - timedelta(hours=hours), now) == said


def test_a_real_registry_passes(real_registry: RealRegistry):
    where = Registry(real_registry.host, real_registry.username, real_registry.password, plain_http=True)
    report = doctor.examine(lambda: where, "ml")
    assert report.state == "ok", report.checks
    assert report.plan is not None and report.plan.referrers_tag is True  # distribution 2.8 has no referrers API


def test_the_result_is_kept_as_the_plan(to_fake: FakeRegistry):
    to_fake.most_put = to_fake.most_patch = MIB
    jobs.check_registry()
    row = RegistrySettings.objects.get()
    assert row.plan["chunk_bytes"] == MIB and row.plan["most_body"] == 0 and row.checked_at is not None
    assert {found["state"] for found in row.checks} == {"ok", "warn"}


@pytest.mark.parametrize(("status", "code"), [(None, 0), (403, 1)])
def test_the_command_ends_with_1_when_something_fails(to_fake: FakeRegistry, status: int | None, code: int):
    if status:
        to_fake.fail("POST", "/uploads/", status=status, times=100)
    out = StringIO()
    if code:
        with pytest.raises(SystemExit) as ended:
            call_command("registry_doctor", "--json", stdout=out)
        assert ended.value.code == code
    else:
        call_command("registry_doctor", "--json", stdout=out)
    assert json.loads(out.getvalue())["state"] == ("fail" if code else "ok")


def test_the_command_prints_a_line_a_check(to_fake: FakeRegistry):
    out = StringIO()
    call_command("registry_doctor", stdout=out)
    assert "ok    login: The login as" in out.getvalue() and to_fake.password not in out.getvalue()


def test_the_command_without_a_registry_says_so(db: None):
    with pytest.raises(CommandError, match="No registry is configured"):
        call_command("registry_doctor")


def test_the_api_answers_the_report_to_an_administrator(
    to_fake: FakeRegistry, api: Callable[..., Any], admin_user: User
):
    answer = api(admin_user).post("/api/v1/registry-settings/check")
    assert answer.status_code == 200 and answer.json()["state"] == "ok"
    assert {"name", "state", "said", "remedy"} == set(answer.json()["checks"][0])


def test_the_api_refuses_others(to_fake: FakeRegistry, api: Callable[..., Any], member: User):
    assert api(member).post("/api/v1/registry-settings/check").status_code == 403
    assert to_fake.seen == []


def test_the_admin_page_has_the_button_and_shows_the_result(to_fake: FakeRegistry, client: Any, admin_user: User):
    client.force_login(admin_user)
    page = reverse("admin:publishing_registrysettings_change", args=[1])
    assert "Test connection" in client.get(page).content.decode()
    answer = client.get(TEST_URL, follow=True)
    text = answer.content.decode()
    assert "The registry passed" in text and "Everything that was written is deleted again" in text
    assert to_fake.password not in text


def test_the_button_is_not_for_others(to_fake: FakeRegistry, client: Any, member: User):
    client.force_login(member)
    assert client.get(TEST_URL).status_code in {302, 403, 404}
    assert to_fake.seen == []
