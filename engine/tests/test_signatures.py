"""Signatures of publishes, in both of cosign's layouts; "could not list" and "not signed" are different answers."""

import base64
import hashlib

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.tests.conftest import eventually
from engine.tests.fakes import models
from engine.tests.fakes.http import Reply
from engine.tests.fakes.registry import FakeRegistry, publish
from engine.tests.test_main_job import V1, V2
from opsengine import evidence, signatures
from opsengine.errors import RegistryUnavailable, SettingsError, SignatureError
from opsengine.locations import parse_reference
from opsengine.registry import RegistryClient
from opsengine.settings import RegistrySettings

REPOSITORY = "ml/pipelines/scale"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
PEM = (
    KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
)


def b64(data):
    return base64.b64encode(data).decode()


def sign(message, key=KEY):
    return b64(key.sign(message, ec.ECDSA(hashes.SHA256())))


def sign_by_tag(registry, digest, key=KEY, signed_digest=None):
    """What `cosign sign --key` of version 2 pushes."""
    image = {"docker-manifest-digest": signed_digest or digest}
    payload = orjson.dumps(
        {
            "critical": {
                "identity": {"docker-reference": "r"},
                "image": image,
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )
    layer = {
        "mediaType": signatures.SIMPLE_TYPE,
        "digest": registry.put(payload),
        "size": len(payload),
        "annotations": {signatures.SIMPLE_ANNOTATION: sign(payload, key)},
    }
    registry.push(REPOSITORY, digest.replace(":", "-") + ".sig", {"schemaVersion": 2, "layers": [layer]})


def bundle_of(digest, key=KEY, predicate=evidence.SIGN_PREDICATE):
    """What `cosign sign --key` of version 3 makes."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": predicate,
        "predicate": {},
    }
    payload, kind = orjson.dumps(statement), b"application/vnd.in-toto+json"
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    envelope = {"payload": b64(payload), "payloadType": kind.decode(), "signatures": [{"sig": sign(message, key)}]}
    return orjson.dumps({"mediaType": signatures.BUNDLE_TYPE, "verificationMaterial": {}, "dsseEnvelope": envelope})


def sign_by_bundle(registry, digest, *, by_referrers, **changes):
    bundle = bundle_of(digest, **changes)
    layer = {"mediaType": signatures.BUNDLE_TYPE, "digest": registry.put(bundle), "size": len(bundle)}
    manifest = registry.put(orjson.dumps({"schemaVersion": 2, "subject": {"digest": digest}, "layers": [layer]}))
    # The descriptor's artifact type is wrong on some registries: the manifest decides.
    index = orjson.dumps(
        {"schemaVersion": 2, "manifests": [{"digest": manifest, "artifactType": "application/vnd.oci.empty.v1+json"}]}
    )
    if by_referrers:
        registry.referrers[digest] = index
    else:
        registry.blobs[f"sha256:{hashlib.sha256(index).hexdigest()}"] = index
        registry.tags[f"{REPOSITORY}:{digest.replace(':', '-')}"] = f"sha256:{hashlib.sha256(index).hexdigest()}"


class SigningRegistry(FakeRegistry):
    """With the referrers API, unless `has_referrers` is False."""

    def __init__(self):
        self.referrers, self.has_referrers, self.broken = {}, True, None
        super().__init__()

    def reply(self, method, path, headers, body):
        if self.broken and self.broken in path:
            return Reply(429, b"{}", {"Retry-After": "0"})
        if "/referrers/" in path:
            self.requests.append((method, path, dict(headers)))
            index = self.referrers.get(path.rpartition("/")[2], b'{"manifests":[]}')
            return Reply(200, index) if self.has_referrers else Reply(404, b"{}")
        return super().reply(method, path, headers, body)


@pytest.fixture
def registry():
    server = SigningRegistry()
    yield server
    server.stop()


@pytest.fixture
def find(registry):

    def call(digest, key=KEY):
        reference = parse_reference(f"{registry.host}/{REPOSITORY}:1")
        client = RegistryClient(registry.host, RegistrySettings())
        return signatures.find(client, reference, digest, key.public_key())

    return call


DIGEST = "sha256:" + "ab" * 32


def test_signature_at_the_tag_holds(registry, find):
    sign_by_tag(registry, DIGEST)
    assert evidence.holds(find(DIGEST), DIGEST, KEY.public_key())


@pytest.mark.parametrize("by_referrers", [True, False])
def test_signature_in_a_bundle_holds(registry, find, by_referrers):
    registry.has_referrers = by_referrers
    sign_by_bundle(registry, DIGEST, by_referrers=by_referrers)
    assert evidence.holds(find(DIGEST), DIGEST, KEY.public_key())


def test_unsigned_is_said(registry, find):
    for registry.has_referrers in (True, False):
        with pytest.raises(SignatureError, match="is not signed"):
            find(DIGEST)


@pytest.mark.parametrize("layout", ["tag", "bundle"])
def test_signature_with_another_key_is_said(registry, find, layout):
    if layout == "tag":
        sign_by_tag(registry, DIGEST, OTHER)
    else:
        sign_by_bundle(registry, DIGEST, by_referrers=True, key=OTHER)
    with pytest.raises(SignatureError, match="not with the key in COSIGN_PUBLIC_KEY"):
        find(DIGEST)


def test_signature_of_something_else_is_none_of_this(registry, find):
    sign_by_tag(registry, DIGEST, signed_digest="sha256:" + "cd" * 32)
    with pytest.raises(SignatureError):
        find(DIGEST)


def test_attestation_with_the_same_key_is_no_signature(registry, find):
    sign_by_bundle(registry, DIGEST, by_referrers=True, predicate="https://spdx.dev/Document")
    with pytest.raises(SignatureError):
        find(DIGEST)


def test_other_signatures_beside_ours_do_no_harm(registry, find):
    sign_by_tag(registry, DIGEST, OTHER)
    sign_by_bundle(registry, DIGEST, by_referrers=True)
    assert find(DIGEST)["layout"] == "bundle"


def test_referrers_are_read_page_by_page(registry, find):
    """A registry may list one referrer a page; ours stands on the last, behind a link to a host that is not asked."""
    sign_by_bundle(registry, DIGEST, by_referrers=True)
    last = registry.referrers.pop(DIGEST)
    path = f"/v2/{REPOSITORY}/referrers/{DIGEST}"
    pages = {path: f"{path}?page=1", f"{path}?page=1": f"https://elsewhere.invalid{path}?page=2"}
    plain = registry.reply

    def reply(method, path, headers, body):
        if "/referrers/" not in path:
            return plain(method, path, headers, body)
        if following := pages.get(path.rstrip("?")):
            return Reply(200, b'{"manifests":[]}', {"Link": f'<{following}>; rel="next"'})
        return Reply(200, last)

    registry.reply = reply
    assert evidence.holds(find(DIGEST), DIGEST, KEY.public_key())


def test_referrers_that_are_linked_in_a_circle_end(registry, find):
    plain, asked = registry.reply, []

    def reply(method, path, headers, body):
        if "/referrers/" not in path:
            return plain(method, path, headers, body)
        asked.append(path)
        return Reply(200, b'{"manifests":[]}', {"Link": f'<{path}>; rel="next"'})

    registry.reply = reply
    with pytest.raises(SignatureError):
        find(DIGEST)
    assert len(asked) == 100


@pytest.mark.parametrize("broken", [".sig", "/referrers/"])
def test_signatures_that_could_not_be_listed_are_not_called_unsigned(registry, find, broken, monkeypatch):
    monkeypatch.setattr("opsengine.transport.pause", lambda *_, **__: 0.0)
    registry.broken = broken
    with pytest.raises(RegistryUnavailable):
        find(DIGEST)


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"layers":1}', b'{"layers":[{"mediaType":1,"digest":2}]}'])
def test_junk_in_place_of_a_signature_is_no_signature(registry, find, junk):
    registry.tags[f"{REPOSITORY}:{DIGEST.replace(':', '-')}.sig"] = registry.put(junk)
    registry.referrers[DIGEST] = junk
    with pytest.raises(SignatureError):
        find(DIGEST)


def test_damaged_evidence_does_not_hold():
    public = KEY.public_key()
    for wrong in (
        {},
        {"layout": "tag", "message": "!", "signature": ""},
        {"layout": "bundle", "message": "", "signature": ""},
    ):
        assert not evidence.holds(wrong, DIGEST, public)


@pytest.mark.parametrize("pem", ["", "hello", PEM.replace("BEGIN PUBLIC", "BEGIN PRIVATE")])
def test_wrong_key_is_a_wrong_setting(pem):
    with pytest.raises(SettingsError, match=r"cosign\.pub"):
        evidence.read_key(pem)


def scale(registry, version=V1, factor=2.0):
    return publish(registry, "scale", version, [("m", "m1", models.scale(factor), ["tensor"])])


def test_unsigned_publish_is_not_served_where_a_signature_is_required(start_engine, registry):
    url, digest = scale(registry)
    engine = start_engine(PIPELINE_URL=url, COSIGN_PUBLIC_KEY=PEM)
    assert engine.wait() == 1
    assert f"{digest} is not signed, and a signature is required" in engine.log
    model = orjson.loads(registry.blobs[digest])["layers"][1]["digest"]
    assert not registry.pulled(model)  # refused before anything large is pulled


def test_signed_publish_serves_and_serves_again_offline(start_engine, registry, tmp_path):
    url, digest = scale(registry)
    sign_by_bundle(registry, digest, by_referrers=True)
    (tmp_path / "cosign.pub").write_text(PEM)
    env = {"PIPELINE_URL": url, "COSIGN_PUBLIC_KEY_FILE": tmp_path / "cosign.pub", "REQUIRE_SIGNATURE": "true"}
    start_engine(**env).ready().stop()
    registry.stop()
    again = start_engine(**env).ready()
    assert again.post("/infer", [{"tensor": [1.0, 1.0]}])[0] == 200
    again.stop()
    (again.folder / "persist/store/signatures" / f"{digest[7:]}.json").write_bytes(b"{}")
    third = start_engine(**env)
    eventually(lambda: "has no signature here that holds" in third.log)
    assert third.get("/readyz")[0] == 503


def test_unsigned_update_leaves_the_signed_publish_serving(start_engine, registry, center):
    url, digest = scale(registry)
    sign_by_tag(registry, digest)
    center.wish("scale", V1, url, digest)
    bundle = center.add_edge(pipeline_url=url)
    start_engine(EDGE_BUNDLE=bundle, OCI_REGISTRY=registry.host, COSIGN_PUBLIC_KEY=PEM).ready()
    url, other = scale(registry, V2, 9.0)
    with center.lock:
        center.wish("scale", V2, url, other, publish_id=13)
    told = eventually(lambda: next((c for c in center.checkins if c["update"]["state"] == "failed"), None))
    assert "is not signed" in told["update"]["error"]
    assert told["serving"]["digest"] == digest


def test_requiring_a_signature_without_a_key_stops_the_start(start_engine):
    engine = start_engine(PIPELINE_URL="r/p:1", REQUIRE_SIGNATURE="true")
    assert engine.wait() == 2
    assert engine.log.strip() == (
        "opsengine: REQUIRE_SIGNATURE is true, but there is no key: set COSIGN_PUBLIC_KEY or COSIGN_PUBLIC_KEY_FILE."
    )
