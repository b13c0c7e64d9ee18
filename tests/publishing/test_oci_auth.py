"""Logging in: challenges, tokens for exact scopes, renewal, and the ways that credentials are written."""

import base64
from collections.abc import Callable

import pytest

from publishing.oci import auth, blobs
from publishing.oci.blobs import Blob
from publishing.oci.client import Client, Registry
from publishing.oci.faults import RegistryFault
from tests.fakes.oci import FakeRegistry


def test_challenges_with_commas_in_quotes_and_several_in_one_header_are_told_apart() -> None:
    found = auth.challenges(
        [
            'Bearer realm="https://a.example/token",service="s",scope="repository:x:pull,push", '
            'Basic realm="a \\"b\\", c"'
        ]
    )
    assert [offer.scheme for offer in found] == ["bearer", "basic"]
    assert found[0].params == {"realm": "https://a.example/token", "service": "s", "scope": "repository:x:pull,push"}
    assert found[1].params == {"realm": 'a "b", c'}


def test_challenges_may_come_in_several_headers() -> None:
    assert [offer.scheme for offer in auth.challenges(["Negotiate", "Bearer realm=x"])] == ["negotiate", "bearer"]


def test_basic_is_sent_with_every_call_once_asked_for(connect: Callable[..., Client], make_blob: Callable[..., Blob]):
    with FakeRegistry(auth="basic") as fake:
        client = connect(fake)
        client.log_in("ml/a")
        blobs.push(client, "ml/a", make_blob(), lambda more: None)
        refused = [seen for seen in fake.seen if seen.status == 401]
    assert [seen.path for seen in refused] == ["/v2/"]
    assert fake.blob_bytes() == len(b"weights")


def test_bearer_asks_for_pull_and_push_at_once_so_an_exact_token_server_is_enough(
    connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    with FakeRegistry(auth="bearer") as fake:
        client = connect(fake)
        client.log_in("ml/a")
        blobs.push(client, "ml/a", make_blob(), lambda more: None)
        assert len(fake.calls("GET", "/token")) == 1
        assert fake.calls("GET", "/token")[0].query["scope"] == ["repository:ml/a:pull,push"]
        assert not [seen for seen in fake.calls("POST") + fake.calls("PUT") if seen.status == 401]


def test_a_mount_asks_for_both_repositories_as_two_scopes(
    connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    with FakeRegistry(auth="bearer") as fake:
        client = connect(fake)
        fake.put_blob("ml/old", b"weights")
        blobs.push(client, "ml/new", make_blob(), lambda more: None, "ml/old")
        assert fake.calls("GET", "/token")[-1].query["scope"] == [
            "repository:ml/new:pull,push",
            "repository:ml/old:pull",
        ]
        assert fake.blob_bytes() == 0


def test_a_token_is_renewed_before_it_ends(connect: Callable[..., Client], make_blob: Callable[..., Blob]):
    with FakeRegistry(auth="bearer") as fake:
        client = connect(fake)
        now = [0.0]
        client._auth._clock = lambda: now[0]
        client.log_in("ml/a")
        now[0] = 269.0
        blobs.exists(client, "ml/a", make_blob())
        assert len(fake.calls("GET", "/token")) == 1
        now[0] = 271.0
        blobs.exists(client, "ml/a", make_blob())
        assert len(fake.calls("GET", "/token")) == 2
        assert not [seen for seen in fake.calls("HEAD") if seen.status == 401]


def test_a_token_that_lapses_in_the_middle_of_a_push_is_renewed_once_and_nothing_fails(
    connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    with FakeRegistry(auth="bearer") as fake:
        client = connect(fake)
        client.log_in("ml/a")
        for number in range(3):
            fake.revoke_tokens()
            blobs.push(client, "ml/a", make_blob(b"part %d" % number), lambda more: None)
        assert len(fake.blobs["ml/a"]) == 3
        assert len(fake.calls("GET", "/token")) == 4


def test_a_token_that_lapses_before_the_body_is_renewed_and_the_body_sent_again(
    connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    with FakeRegistry(auth="bearer") as fake:
        client = connect(fake)
        counted: list[int] = []
        offer = f'Bearer realm="http://{fake.host}/token",service="fake"'
        fake.fail("PUT", "/uploads/", status=401, headers={"WWW-Authenticate": offer})
        blobs.push(client, "ml/a", make_blob(), counted.append)
        assert sum(counted) == len(b"weights")
        assert len(fake.blobs["ml/a"]) == 1


def test_a_wrong_password_is_refused_once_with_the_remedy(connect: Callable[..., Client]):
    for kind in ("basic", "bearer"):
        with FakeRegistry(auth=kind) as fake:
            client = connect(fake, password="wrong one")
            with pytest.raises(RegistryFault, match=r"refused the login \(401.*check the username and the password"):
                client.log_in("ml/a")
                blobs.exists(client, "ml/a", blobs.of_bytes(b"x", "y", "z"))
            assert len(fake.seen) <= 3


def test_a_registry_that_wants_a_login_says_so_when_none_is_set(connect: Callable[..., Client]):
    with FakeRegistry(auth="basic") as fake, pytest.raises(RegistryFault, match="no username is set"):
        connect(fake, username="", password="").log_in("ml/a")


def test_a_login_that_we_do_not_know_is_named(connect: Callable[..., Client], fake: FakeRegistry):
    fake.fail("GET", "/v2/$", status=401, headers={"WWW-Authenticate": "Negotiate"})
    with pytest.raises(RegistryFault, match=r"kind of login that OpsCenter does not know .negotiate."):
        connect(fake).log_in("ml/a")


def test_a_token_server_that_grants_less_leads_to_the_missing_right(
    connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    with FakeRegistry(auth="bearer") as fake:
        fake.grants = lambda scope: scope.endswith(":pull")
        with pytest.raises(RegistryFault, match=r"refused the write of model.onnx \(401 .*give it push rights to ml/a"):
            blobs.push(connect(fake), "ml/a", make_blob(), lambda more: None)


def test_a_token_server_without_tls_gets_no_password_from_a_registry_with_tls() -> None:
    authorizer = auth.Authorizer("r.example", auth.Login("u", "p"), lambda url, headers, form: pytest.fail("asked"))
    with pytest.raises(RegistryFault, match="without TLS, so the password is not sent"):
        authorizer.challenged(auth.challenges(['Bearer realm="http://r.example/token"']), ("s",), None)


def test_a_token_server_that_answers_nonsense_is_named() -> None:
    authorizer = auth.Authorizer("r.example", auth.Login("u", "p"), lambda url, headers, form: (200, b"[]"))
    authorizer.challenged(auth.challenges(['Bearer realm="https://r.example/token"']), ("s",), None)
    with pytest.raises(RegistryFault, match=r"token server of r\.example answered without a token"):
        authorizer.header(("s",))


@pytest.mark.parametrize(
    ("username", "given", "sent"),
    [
        ("_json_key_base64", "eyJh\nbGci\r\nOiJ9\n", "eyJhbGciOiJ9"),
        ("_json_key", '{\n "a": 1\n}\n', '{\n "a": 1\n}'),
        ("robot$ml+pusher", "pa$$ word: x", "pa$$ word: x"),
        ("AWS", "token-from-a-file\n", "token-from-a-file"),
    ],
)
def test_credentials_are_sent_as_registries_expect_them(username: str, given: str, sent: str) -> None:
    authorizer = auth.Authorizer("r.example", auth.Login(username, given), lambda url, headers, form: (200, b""))
    authorizer.challenged(auth.challenges(["Basic realm=x"]), (), None)
    assert authorizer.header(()) == "Basic " + base64.b64encode(f"{username}:{sent}".encode()).decode()


def test_the_password_is_in_no_repr() -> None:
    assert "s3cret" not in repr(Registry("r.example", "u", "s3cret-pass"))
