"""Which manifests the registry takes, whether it lists what refers to them, and whether it deletes them again."""

import json

from publishing.doctor import samples
from publishing.doctor.access import ANSWERS
from publishing.doctor.place import Place
from publishing.doctor.report import FAIL, OK, WARN, split
from publishing.doctor.samples import EMPTY, LARGE, NAME, SMALL
from publishing.oci import auth, manifests
from publishing.oci.client import Answer, Call
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.manifests import Manifest

_GONE = frozenset({200, 202, 204, 404})
_PROXY = "Switch off caching in the proxy before the registry."


def tag(at: Place) -> None:
    """Written, read back and listed. Raises `RegistryFault`, `Unavailable`."""
    manifest = samples.manifest(EMPTY, samples.PLAIN)
    _put(at, NAME, manifest)
    if manifests.get(at.client, at.repository, NAME).digest != manifest.digest:
        at.report.add("tag", FAIL, "A tag leads to another manifest than was just put there.", _PROXY)
        return
    call = Call("GET", f"/v2/{at.repository}/tags/list", "the list of tags", at.repository, at.pull_scopes)
    try:
        listed = json.loads(at.client.exchange(call).content).get("tags") or []
    except (RegistryFault, ValueError, AttributeError):
        listed = []
    if NAME not in listed:
        at.report.add("tag", WARN, "Tags work, but the list of tags does not show them.", _PROXY)
    else:
        at.report.add("tag", OK, "A tag was written, read back and listed.")


def artifact(at: Place) -> None:
    """The type of a published pipeline."""
    _type(at, "modelpack", samples.manifest(EMPTY, samples.ARTIFACT))


def helm(at: Place) -> None:
    """The type of a Helm chart."""
    _type(at, "helm", samples.manifest(samples.HELM_CONFIG))


def index(at: Place) -> None:
    """The type of an image for several platforms."""
    _type(at, "index", samples.index_of(samples.manifest(EMPTY, samples.PLAIN)))


def _type(at: Place, kind: str, manifest: Manifest) -> None:
    what = {"modelpack": "pipeline artifact", "helm": "Helm chart", "index": "image index"}[kind]
    taken = at.client.plan.media_types
    try:
        _put(at, f"{NAME}-{kind}", manifest)
    except RegistryFault as fault:
        taken[kind] = False
        # Without an index an engine image of several platforms cannot come along; all else works.
        at.report.add(what, WARN if kind == "index" else FAIL, *split(fault.message))
        return
    taken[kind] = True
    at.report.add(what, OK, f"Its type of manifest is taken ({what}).")


def referrers(at: Place) -> None:
    """Whether the registry keeps the list itself. Raises `RegistryFault`, `Unavailable`."""
    subject = samples.manifest(EMPTY, samples.PLAIN)
    referrer = samples.manifest(EMPTY, samples.NOTE, samples.descriptor(subject))
    told = _put(at, f"{NAME}-referrer", referrer)
    path = f"/v2/{at.repository}/referrers/{subject.digest}"
    call = Call("GET", path, "the referrers", at.repository, at.pull_scopes, expected=ANSWERS)
    answer = at.client.retry(lambda: at.client.exchange(call))
    has_api = answer.status == 200 and bool(told.headers.get("OCI-Subject"))
    at.client.plan.referrers_tag = not has_api
    said = "It lists what refers to a digest." if has_api else "It has no referrers API: a fallback tag is kept."
    at.report.add("referrers", OK, said)


def _put(at: Place, tag: str, manifest: Manifest) -> Answer:
    call = Call(
        "PUT",
        f"/v2/{at.repository}/manifests/{tag}",
        f"the write of the manifest {at.repository}:{tag}",
        at.repository,
        (auth.push_scope(at.repository),),
        headers={"Content-Type": manifest.media_type},
        body=lambda: manifest.content,
        expected=frozenset({201}),
    )
    answer = at.client.retry(lambda: at.client.exchange(call))
    at.made[:] = [digest for digest in at.made if digest != manifest.digest]
    at.made.insert(0, manifest.digest)  # what refers to another goes first
    return answer


def clean(at: Place) -> None:
    """Deletes what was made: manifests, newest first, then blobs."""
    left = [f"manifests/{digest}" for digest in at.made] + [f"blobs/{blob.digest}" for blob in (LARGE, SMALL, EMPTY)]
    stays = [path for path in left if not _deleted(at, path)]
    if stays:
        said = f"{len(stays)} small objects of fixed content stay in {at.repository}: the registry refuses DELETE."
        at.report.add("clean-up", OK, said)
    else:
        at.report.add("clean-up", OK, "Everything that was written is deleted again.")


def _deleted(at: Place, path: str) -> bool:
    scopes = (f"repository:{at.repository}:pull,push,delete",)
    call = Call("DELETE", f"/v2/{at.repository}/{path}", "the clean-up", at.repository, scopes, expected=_GONE)
    try:
        at.client.exchange(call)
    except (RegistryFault, Unavailable):
        return False
    return True
