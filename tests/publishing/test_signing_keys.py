"""Signing keys: made or brought, kept encrypted, used one at a time, their public halves for everybody."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.core.management import CommandError, call_command
from django.db import connection

from catalog.models import User
from publishing import operations, signing
from publishing.errors import UnusableSigningKey
from publishing.models import SigningKey

Api = Callable[..., Any]


def pem_of(key: Any, password: bytes | None = None) -> bytes:
    protection: Any = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


@pytest.fixture
def administrator(db: None) -> User:
    return User.objects.create_superuser("root@example.com", "root-password-1")


def test_one_is_made_and_used(api: Api, administrator: User):
    made = api(administrator).post("/api/v1/signing-keys", {"name": "site"})
    assert made.status_code == 201
    assert made.json()["active"] is True
    assert made.json()["public_key"].startswith("-----BEGIN PUBLIC KEY-----")
    assert set(made.json()) == {"id", "name", "public_key", "fingerprint", "active", "created_at"}


def test_the_private_half_is_encrypted_in_the_database(db: None):
    made = operations.create_signing_key(actor=None, name="site")
    with connection.cursor() as cursor:
        cursor.execute("SELECT private_key FROM publishing_signingkey")
        assert "PRIVATE KEY" not in cursor.fetchone()[0]
    assert "PRIVATE KEY" in SigningKey.objects.get(pk=made.pk).private_key


def test_a_later_one_retires_the_first(api: Api, administrator: User):
    for name in ("first", "second"):
        api(administrator).post("/api/v1/signing-keys", {"name": name})
    found = api(administrator).get("/api/v1/signing-keys").json()["results"]
    assert {row["name"]: row["active"] for row in found} == {"first": False, "second": True}


def test_a_retired_one_can_be_used_again_and_none_can(api: Api, administrator: User):
    first = operations.create_signing_key(actor=None, name="first")
    operations.create_signing_key(actor=None, name="second")
    url = f"/api/v1/signing-keys/{first.pk}"
    assert api(administrator).patch(url, {"active": True}).json()["active"] is True
    assert SigningKey.objects.get(active=True) == first
    assert api(administrator).patch(url, {"active": False}).status_code == 200
    assert not SigningKey.objects.filter(active=True).exists()


def test_a_member_reads_public_keys_and_makes_none(api: Api, member: User):
    made = operations.create_signing_key(actor=None, name="site")
    answer = api(member).get(f"/api/v1/signing-keys/{made.pk}/public.pem")
    assert answer.content.decode() == made.public_key
    assert answer["Content-Disposition"] == 'attachment; filename="site.pub"'
    assert api(member).post("/api/v1/signing-keys", {"name": "mine"}).status_code == 403
    assert api(member).patch(f"/api/v1/signing-keys/{made.pk}", {"active": False}).status_code == 403


def test_nobody_gets_401(client: Any, db: None):
    assert client.get("/api/v1/signing-keys").status_code == 401


@pytest.mark.parametrize("password", [b"", b"open sesame"])
def test_one_is_imported(db: None, password: bytes):
    key = ec.generate_private_key(ec.SECP256R1())
    made = operations.create_signing_key(actor=None, name="k", pem=pem_of(key, password), password=password.decode())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert made.public_key == public.decode()


@pytest.mark.parametrize(
    ("pem", "password", "words"),
    [
        (pem_of(rsa.generate_private_key(65537, 2048)), "", "curve P-256"),
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "", "curve P-256"),
        (pem_of(ec.generate_private_key(ec.SECP256R1()), b"x"), "", "has a password"),
        (pem_of(ec.generate_private_key(ec.SECP256R1()), b"x"), "y", "password is another"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", "", "cosign's own"),
        (b"hello", "", "PEM format"),
        (b"x" * 20000, "", "at most"),
    ],
)
def test_what_cosign_could_not_verify_with_is_refused(db: None, pem: bytes, password: str, words: str):
    with pytest.raises(UnusableSigningKey, match=words):
        operations.create_signing_key(actor=None, name="k", pem=pem, password=password)
    assert not SigningKey.objects.exists()


def test_a_name_or_key_that_is_here_is_refused(db: None):
    pem = signing.generate().encode()
    operations.create_signing_key(actor=None, name="k", pem=pem)
    with pytest.raises(UnusableSigningKey, match="give another name"):
        operations.create_signing_key(actor=None, name="k")
    with pytest.raises(UnusableSigningKey, match="here already, as k"):
        operations.create_signing_key(actor=None, name="other", pem=pem)


def test_the_command_prints_and_writes_the_public_half(db: None, tmp_path: Path):
    out, err = StringIO(), StringIO()
    call_command("create_signing_key", "site", output=tmp_path / "site.pub", stdout=out, stderr=err)
    assert out.getvalue() == (tmp_path / "site.pub").read_text() == SigningKey.objects.get().public_key
    assert "PRIVATE" not in out.getvalue() + err.getvalue()


def test_the_command_imports_and_refuses(db: None, tmp_path: Path):
    path = tmp_path / "key.pem"
    path.write_text(signing.generate())
    call_command("create_signing_key", "site", file=path, stdout=StringIO(), stderr=StringIO())
    assert SigningKey.objects.get().public_key == signing.public_pem(path.read_text())
    with pytest.raises(CommandError, match="here already"):
        call_command("create_signing_key", "again", file=path)


def test_the_admin_makes_one_and_never_shows_the_private_half(client: Any, administrator: User):
    client.force_login(administrator)
    added = client.post("/admin/publishing/signingkey/add/", {"name": "site", "private_key_pem": "", "password": ""})
    assert added.status_code == 302, added.content
    made = SigningKey.objects.get()
    page = client.get(f"/admin/publishing/signingkey/{made.pk}/change/").content.decode()
    assert made.fingerprint in page and "PRIVATE KEY" not in page and "public.pem" in page
    refused = client.post("/admin/publishing/signingkey/add/", {"name": "x", "private_key_pem": "no key"})
    assert "not a private key in PEM" in refused.content.decode()


def test_the_admin_rotates_after_it_asked(client: Any, administrator: User):
    client.force_login(administrator)
    client.post("/admin/publishing/signingkey/add/", {"name": "site", "private_key_pem": "", "password": ""})
    asked = client.get("/admin/publishing/signingkey/rotate/").content.decode()
    assert "No, go back" in asked and SigningKey.objects.count() == 1
    assert client.post("/admin/publishing/signingkey/rotate/").status_code == 302
    new, old = SigningKey.objects.all()
    assert (old.name, old.active, new.active) == ("site", False, True)
    page = client.get("/admin/publishing/signingkey/").content.decode()
    assert old.fingerprint in page and new.fingerprint in page and "PRIVATE KEY" not in page
    told = client.get("/admin/admin/logentry/").content.decode()
    assert new.name in told and administrator.email in told


def test_signing_is_deterministic_and_verifies():
    key = signing.signer(signing.generate())
    content = signing.statement("reg/x", f"sha256:{'a' * 64}", signing.COSIGN_SIGN, {})
    assert signing.bundle(key, content) == signing.bundle(key, content)


def test_only_its_own_public_key_opens_a_bundle():
    private, other = signing.generate(), signing.generate()
    content = signing.statement("reg/x", f"sha256:{'a' * 64}", signing.COSIGN_SIGN, {})
    packed = signing.bundle(signing.signer(private), content)
    assert signing.verified_statement(packed, signing.public_pem(private)) == content
    with pytest.raises(ValueError, match="no signature"):
        signing.verified_statement(packed, signing.public_pem(other))
