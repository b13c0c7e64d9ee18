"""Signatures and descriptions on their way to the registry: what is attached to each published manifest.

Whatever is attached already is left as it is, so publishing again adds nothing.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publishing import signing
from publishing.descriptions import CYCLONEDX, PROVENANCE, SBOM_TYPE
from publishing.oci import blobs, manifests, referrers
from publishing.oci.client import Client
from publishing.oci.content import Blob, Progress, of_bytes
from publishing.oci.faults import RegistryFault
from publishing.oci.manifests import Manifest
from publishing.oci.referrers import Referrers, Subject
from publishing.signing import Signer

KIND = "io.opscenter.attachment"  # of a referrer: bill-of-materials, provenance or signature
KEY = "io.opscenter.signing-key"  # fingerprint of the key that signed it
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MOST_SIGNATURES = 100  # of one manifest, by everyone; more is somebody's mistake
MOST_REPORTED = 300

REFUSED = "The registry does not take {what} as a referrer, so it is missing there: {reason}"
SIGNED_OLD_WAY = "The registry does not take signatures as referrers; they are in the .sig tag only: {reason}"


@dataclass(frozen=True)
class Told:
    """A published manifest with what is said about it. `reference` is its repository with the registry's host.

    The documents are empty where nothing is said.
    """

    subject: Subject
    reference: str
    bill_of_materials: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def attach_all(client: Client, told: Told, key: Signer | None, progress: Progress) -> list[str]:
    """Signs and describes one manifest; answers what the registry would not take, for people to read.

    A key's signature is promised, so a registry that refuses it in the old layout too fails the publish: raises
    `RegistryFault`, `Unavailable` and what `progress` raises.
    """
    refused: list[str] = []
    if key:
        _sign_in_tag(client, told, key, progress)
    try:
        known = referrers.listed(client, told.subject)
    except RegistryFault as fault:
        return [REFUSED.format(what="anything", reason=_short(fault))]
    for what, artifact_type, content, annotations in _artifacts(told, key):
        if _is_told(known, annotations):
            continue
        layer = of_bytes(content, artifact_type, f"the {what}")
        manifest, parts = referrers.build(told.subject, artifact_type, layer, annotations)
        try:
            referrers.attach(client, told.subject, known, manifest, parts, progress)
        except RegistryFault as fault:
            words = SIGNED_OLD_WAY if what == "signature" else REFUSED
            refused.append(words.format(what=f"the {what}", reason=_short(fault)))
    return refused


def _artifacts(told: Told, key: Signer | None) -> list[tuple[str, str, bytes, dict[str, str]]]:
    """(what, type, content, annotations) of each referrer."""
    found: list[tuple[str, str, bytes, dict[str, str]]] = []
    digest = told.subject.digest
    if told.bill_of_materials:
        found.append(("bill of materials", SBOM_TYPE, _json(told.bill_of_materials), {KIND: "bill-of-materials"}))
    if told.provenance:
        statement = signing.statement(told.reference, digest, PROVENANCE, dict(told.provenance))
        noted = {KIND: "provenance", "in-toto.io/predicate-type": PROVENANCE}
        found.append(("provenance", signing.STATEMENT_TYPE, _json(statement), noted))
    if key:
        for what, predicate_type, predicate in (
            ("signature", signing.COSIGN_SIGN, {}),
            ("signed bill of materials", CYCLONEDX, told.bill_of_materials),
            ("signed provenance", PROVENANCE, told.provenance),
        ):
            if predicate or what == "signature":
                content = signing.statement(told.reference, digest, predicate_type, dict(predicate))
                found.append(
                    (what, signing.BUNDLE_TYPE, signing.bundle(key, content), _bundle_notes(what, predicate_type, key))
                )
    return found


def _bundle_notes(what: str, predicate_type: str, key: Signer) -> dict[str, str]:
    return {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": predicate_type,
        KIND: what.replace(" ", "-"),
        KEY: key.fingerprint,
    }


def _is_told(known: Referrers, annotations: Mapping[str, str]) -> bool:
    """Provenance is told once by one key: who first brought this digest here. A later publish changes nothing in it."""
    if not annotations[KIND].endswith("provenance"):
        return False
    wanted = (annotations[KIND], annotations.get(KEY))
    for entry in known.found:
        noted = entry.get("annotations") or {}
        if isinstance(noted, dict) and (noted.get(KIND), noted.get(KEY)) == wanted:
            return True
    return False


def _sign_in_tag(client: Client, told: Told, key: Signer, progress: Progress) -> None:
    """The legacy layout: one layer a signature, beside those of other keys."""
    subject = told.subject
    payload = signing.simple_payload(told.reference, subject.digest)
    signature = base64.b64encode(key.sign(payload)).decode()
    layer = of_bytes(
        payload, signing.SIMPLE_TYPE, "the signature", {signing.SIMPLE_SIGNATURE: signature, KEY: key.fingerprint}
    )
    tag = signing.legacy_tag(subject.digest)
    layers = _signatures(client, subject, tag)
    if layer.descriptor() in layers:
        return
    if len(layers) >= MOST_SIGNATURES:
        raise RegistryFault(
            f"{told.reference}:{tag} has {len(layers)} signatures already, which is more than makes sense."
        )
    manifest, config = _signature_manifest([*layers, layer.descriptor()])
    blobs.push_all(client, subject.repository, (config, layer), progress)
    manifests.put(client, subject.repository, tag, manifest)


def _signatures(client: Client, subject: Subject, tag: str) -> list[dict[str, object]]:
    """Layers of the signatures that are there."""
    if manifests.head(client, subject.repository, tag) is None:
        return []
    try:
        found = json.loads(manifests.get(client, subject.repository, tag).content)["layers"]
    except (ValueError, KeyError, TypeError) as exc:
        raise RegistryFault(f"{client.registry.host} has something under {tag} that is no signature.") from exc
    return [layer for layer in found if isinstance(layer, dict) and "digest" in layer]


def _signature_manifest(layers: list[dict[str, object]]) -> tuple[Manifest, Blob]:
    config = {
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "history": [{"created": "0001-01-01T00:00:00Z"} for _ in layers],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    blob = of_bytes(_json(config), CONFIG_TYPE, "the signature's config")
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifests.IMAGE,
        "config": blob.descriptor(),
        "layers": layers,
    }
    return Manifest(_json(manifest), manifests.IMAGE), blob


def _short(fault: RegistryFault) -> str:
    return str(fault)[:MOST_REPORTED]


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
