"""The registry doctor: tries at a registry what publishing needs of it, and says for each fault the one thing to do.

Everything it makes is of fixed content in one repository, `<repository>/doctor`, and deleted again where the registry
allows, so nothing piles up. What it finds out is the plan that pushes follow. Of databases it knows nothing.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from publishing.oci import auth, chunks, content, manifests, uploads
from publishing.oci.client import Answer, Call, Client, Registry, Retries
from publishing.oci.content import Blob
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.manifests import Manifest
from publishing.oci.plan import GHCR_PATCH, MIB, Plan
from publishing.oci.transport import proxy_of
from publishing.oci.uploads import Target

OK, WARN, FAIL = "ok", "warn", "fail"
NAME = "doctor"
CLOCK_SECONDS = 60  # beyond it tokens begin too early or end too soon
ECR_HOURS = 12
_ECR = re.compile(r"\.dkr\.ecr\..*amazonaws\.com(\.cn)?$")
# Larger than GHCR's limit of a PATCH and than nginx's default of a body.
BODY = b"OpsCenter registry doctor.\n".ljust(4096, b".") * (5 * MIB // 4096)
RETRIES = Retries(tries=2, first=0.5, patience=5)
EMPTY = content.of_bytes(b"{}", "application/vnd.oci.empty.v1+json", "the empty config")
SMALL = content.of_bytes(b"OpsCenter registry doctor\n", "application/octet-stream", "a tiny blob")
LARGE = content.of_bytes(BODY, "application/octet-stream", "a blob of 5 MiB")
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
HELM = "application/vnd.cncf.helm.config.v1+json"


@dataclass(frozen=True)
class Check:
    """One thing that was tried. `remedy` is the one thing to do, empty where there is none."""

    name: str
    state: str
    said: str
    remedy: str = ""


@dataclass
class Report:
    """`plan` is None where the registry could not even be asked."""

    checks: list[Check] = field(default_factory=list)
    plan: Plan | None = None

    @property
    def state(self) -> str:
        """The worst of all."""
        states = {check.state for check in self.checks}
        return FAIL if FAIL in states else WARN if WARN in states else OK

    def as_json(self) -> list[dict[str, str]]:
        """The checks."""
        return [asdict(check) for check in self.checks]

    def add(self, name: str, state: str, said: str, remedy: str = "") -> None:
        """One more."""
        self.checks.append(Check(name, state, said, remedy))


def password_age(host: str, saved_at: datetime, now: datetime) -> str:
    """That an ECR token is past its 12 hours; empty for younger ones and other registries."""
    age = now - saved_at
    if not _ECR.search(host) or age < timedelta(hours=ECR_HOURS):
        return ""
    return f"This token was saved {age.total_seconds() / 3600:.0f} h ago; ECR tokens last {ECR_HOURS} h."


def examine(
    registry_of: Callable[[], Registry],
    repository: str,
    *,
    saved_at: datetime | None = None,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Tries everything; takes a few seconds, a minute at a registry that answers nothing. Never raises for a fault.

    `registry_of` may raise `RegistryFault`, as an unreadable Docker configuration does.
    """
    report = Report()
    try:
        registry = registry_of()
        with Client(registry, retries=RETRIES, plan=Plan.of(registry.host)) as client:
            _Examination(client, f"{repository}/{NAME}", report, clock).run(saved_at)
    except (RegistryFault, Unavailable) as fault:
        report.add("settings", FAIL, *_split(fault.message))
    return report


class _Examination:
    def __init__(self, client: Client, repository: str, report: Report, clock: Callable[[], float]) -> None:
        self._client = client
        self._repository = repository
        self._report = report
        self._clock = clock
        self._made: list[str] = []  # manifests, newest first

    def run(self, saved_at: datetime | None) -> None:
        """All checks in order; what depends on a failed one is left out."""
        if not self._tried("connection", self._connection):
            return
        if saved_at:
            self._age(saved_at)
        if not self._tried("login", self._login) or not self._tried("blob", self._blob):
            return
        self._report.plan = self._client.plan
        try:
            for name, check in (
                ("large blob", self._whole),
                ("chunked upload", self._chunked),
                ("mount", self._mount),
                ("tag", self._tag),
                ("pipeline artifact", lambda: self._type("modelpack", _manifest(EMPTY, ARTIFACT))),
                ("Helm chart", lambda: self._type("helm", _manifest(_helm_config()))),
                ("image index", self._index),
                ("referrers", self._referrers),
            ):
                self._tried(name, check)
        finally:
            self._tried("clean-up", self._clean)

    def _tried(self, name: str, check: Callable[[], None]) -> bool:
        try:
            check()
        except (RegistryFault, Unavailable) as fault:
            self._report.add(name, FAIL, *_split(fault.message))
            return False
        return True

    def _connection(self) -> None:
        registry = self._client.registry
        url = f"{registry.base_url}/v2/"
        began = self._clock()
        answer = self._client.retry(self._client.ping)
        if answer.status not in _ANY:
            raise self._client.no_registry(answer)
        proxy = registry.proxy or proxy_of(url)
        way = f" through the proxy {_without_login(proxy)}" if proxy else ""
        if registry.plain_http and not _is_local(registry.host):
            said = f"{registry.host} answers{way}, without TLS: the password travels in the open."
            self._report.add(
                "connection", WARN, said, "Give the registry a certificate, or keep it in a private network."
            )
        else:
            tls = "without TLS, on this machine" if registry.plain_http else "with a trusted certificate"
            self._report.add("connection", OK, f"{registry.host} answers{way}, {tls}.")
        self._clocks(answer, began)

    def _clocks(self, answer: Answer, began: float) -> None:
        try:
            theirs = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
        except (ValueError, TypeError):
            return
        skew = abs(theirs - (began + self._clock()) / 2)
        if skew > CLOCK_SECONDS:
            said = f"The clocks here and at the registry differ by {skew:.0f} s, so tokens may count as expired."
            self._report.add("clock", WARN, said, "Switch on NTP on both machines.")
        else:
            self._report.add("clock", OK, "The clocks agree.")

    def _age(self, saved_at: datetime) -> None:
        now = datetime.fromtimestamp(self._clock(), saved_at.tzinfo)
        if warning := password_age(self._client.registry.host, saved_at, now):
            self._report.add("password", FAIL, warning, "Set a new one: aws ecr get-login-password.")

    def _login(self) -> None:
        self._client.log_in(self._repository)
        who = self._client.registry.username
        name = f"The login as {who}" if who else "A push without login"
        self._report.add("login", OK, f"{name} is accepted, with the right to push to {self._repository}.")

    def _blob(self) -> None:
        for blob in (SMALL, EMPTY):
            target = self._target(blob)
            self._client.retry(
                lambda target=target, blob=blob: uploads.finish(  # type: ignore[misc]
                    target, uploads.begin(target), blob.digest, blob.open, blob.size
                )
            )
        self._report.add("blob", OK, f"A tiny blob was written to {self._repository}.")

    def _whole(self) -> None:
        target = self._target(LARGE)
        try:
            self._client.retry(
                lambda: uploads.finish(target, uploads.begin(target), LARGE.digest, LARGE.open, LARGE.size)
            )
        except RegistryFault as fault:
            if fault.status != 413:
                raise
            self._client.plan.most_body = 0
            said = "A request of 5 MiB is too large for it or for a proxy before it, so pushes go in chunks."
            remedy = "Raise the limit (nginx: client_max_body_size 0): pushes are faster then."
            self._report.add("large blob", WARN, said, remedy)
            return
        self._report.add("large blob", OK, "A blob of 5 MiB was written in one request.")

    def _chunked(self) -> None:
        """Which size of PATCH it takes, and whether it tells how far an upload is."""
        plan = self._client.plan
        sizes = [size for size in (LARGE.size, GHCR_PATCH, MIB, MIB // 4) if size <= max(plan.chunk_bytes, LARGE.size)]
        for size in sizes:
            if self._patched(size):
                if size < LARGE.size:
                    plan.chunk_bytes = size
                self._report.add("chunked upload", OK, f"Chunks are taken, {plan.chunk_bytes // 1024} KiB at a time.")
                return
        plan.chunked = False
        if plan.most_body is None:
            self._report.add("chunked upload", OK, "It takes no chunks, so every blob goes in one request.")
        else:
            self._report.add("chunked upload", FAIL, "It takes neither large requests nor chunks.", _RAISE)

    def _patched(self, size: int) -> bool:
        """One chunk to a session that is given up then: nothing stays."""
        target = self._target(LARGE)
        location = self._client.retry(lambda: uploads.begin(target))
        call = target.call(
            "PATCH",
            location,
            {202},
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
                "Content-Range": f"0-{size - 1}",
            },
            body=lambda: BODY[:size],
        )
        try:
            answer = self._client.exchange(call)
        except (RegistryFault, Unavailable):
            return False
        kept = chunks.kept(answer)
        uploads.cancel(target, answer.headers.get("Location") or location)
        return kept is None or kept == size

    def _mount(self) -> None:
        path = f"/v2/{self._repository}/blobs/uploads/?mount={SMALL.digest}&from={quote(self._repository, safe='/')}"
        target = self._target(SMALL)
        try:
            answer = self._client.exchange(target.call("POST", path, {201, 202}))
        except RegistryFault:
            self._client.plan.mounts = False
            self._report.add("mount", OK, "It does not mount blobs between repositories: they are sent again.")
            return
        if answer.status == 202:
            uploads.cancel(target, uploads.location_of(target, answer))
            self._report.add("mount", OK, "It did not mount a blob just now: where it will not, blobs are sent again.")
        else:
            self._report.add("mount", OK, "Blobs are mounted between repositories without sending them again.")

    def _tag(self) -> None:
        manifest = _manifest(EMPTY, "application/vnd.opscenter.doctor.v1+json")
        self._put(NAME, manifest)
        if manifests.get(self._client, self._repository, NAME).digest != manifest.digest:
            self._report.add("tag", FAIL, "A tag leads to another manifest than was just put there.", _PROXY)
            return
        call = Call("GET", f"/v2/{self._repository}/tags/list", "the list of tags", self._repository, self._pull)
        try:
            listed = json.loads(self._client.exchange(call).content).get("tags") or []
        except (RegistryFault, ValueError, AttributeError):
            listed = []
        if NAME not in listed:
            self._report.add("tag", WARN, "Tags work, but the list of tags does not show them.", _PROXY)
        else:
            self._report.add("tag", OK, "A tag was written, read back and listed.")

    def _type(self, kind: str, manifest: Manifest) -> None:
        what = {"modelpack": "pipeline artifact", "helm": "Helm chart", "index": "image index"}[kind]
        taken = self._client.plan.media_types
        try:
            self._put(f"{NAME}-{kind}", manifest)
        except RegistryFault as fault:
            taken[kind] = False
            # Without an index an engine image of several platforms cannot come along; all else works.
            self._report.add(what, WARN if kind == "index" else FAIL, *_split(fault.message))
            return
        taken[kind] = True
        self._report.add(what, OK, f"Its type of manifest is taken ({what}).")

    def _index(self) -> None:
        manifest = _manifest(EMPTY, "application/vnd.opscenter.doctor.v1+json")
        entry = {"mediaType": manifests.IMAGE, "digest": manifest.digest, "size": len(manifest.content)}
        told = {"schemaVersion": 2, "mediaType": manifests.INDEX, "manifests": [entry]}
        self._type("index", Manifest(json.dumps(told, sort_keys=True).encode(), manifests.INDEX))

    def _referrers(self) -> None:
        subject = _manifest(EMPTY, "application/vnd.opscenter.doctor.v1+json")
        entry = {"mediaType": manifests.IMAGE, "digest": subject.digest, "size": len(subject.content)}
        referrer = _manifest(EMPTY, "application/vnd.opscenter.doctor.note.v1+json", entry)
        told = self._put(f"{NAME}-referrer", referrer)
        path = f"/v2/{self._repository}/referrers/{subject.digest}"
        call = Call("GET", path, "the referrers", self._repository, self._pull, expected=_ANY)
        answer = self._client.retry(lambda: self._client.exchange(call))
        has_api = answer.status == 200 and bool(told.headers.get("OCI-Subject"))
        self._client.plan.referrers_tag = not has_api
        said = "It lists what refers to a digest." if has_api else "It has no referrers API: a fallback tag is kept."
        self._report.add("referrers", OK, said)

    def _put(self, tag: str, manifest: Manifest) -> Answer:
        call = Call(
            "PUT",
            f"/v2/{self._repository}/manifests/{tag}",
            f"the write of the manifest {self._repository}:{tag}",
            self._repository,
            (auth.push_scope(self._repository),),
            headers={"Content-Type": manifest.media_type},
            body=lambda: manifest.content,
            expected=frozenset({201}),
        )
        answer = self._client.retry(lambda: self._client.exchange(call))
        self._made = [digest for digest in self._made if digest != manifest.digest]
        self._made.insert(0, manifest.digest)  # what refers to another goes first
        return answer

    def _clean(self) -> None:
        """Manifests, newest first, then blobs."""
        left = [f"manifests/{digest}" for digest in self._made] + [
            f"blobs/{blob.digest}" for blob in (LARGE, SMALL, EMPTY)
        ]
        stays = [path for path in left if not self._deleted(path)]
        if stays:
            said = (
                f"{len(stays)} small objects of fixed content stay in {self._repository}: the registry refuses DELETE."
            )
            self._report.add("clean-up", OK, said)
        else:
            self._report.add("clean-up", OK, "Everything that was written is deleted again.")

    def _deleted(self, path: str) -> bool:
        scopes = (f"repository:{self._repository}:pull,push,delete",)
        call = Call(
            "DELETE", f"/v2/{self._repository}/{path}", "the clean-up", self._repository, scopes, expected=_GONE
        )
        try:
            self._client.exchange(call)
        except (RegistryFault, Unavailable):
            return False
        return True

    def _target(self, blob: Blob) -> Target:
        return Target(self._client, self._repository, blob.title)

    @property
    def _pull(self) -> tuple[str, ...]:
        return (auth.pull_scope(self._repository),)


_ANY = frozenset({200, 401, 403, 404})
_GONE = frozenset({200, 202, 204, 404})
_RAISE = "Raise the limit of the registry or the proxy before it (nginx: client_max_body_size 0)."
_PROXY = "Switch off caching in the proxy before the registry."


def _manifest(config: Blob, artifact_type: str = "", subject: dict[str, Any] | None = None) -> Manifest:
    told: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": manifests.IMAGE,
        "config": config.descriptor(),
        "layers": [SMALL.descriptor()],
    }
    told |= {"artifactType": artifact_type} if artifact_type else {}
    told |= {"subject": subject} if subject else {}
    return Manifest(json.dumps(told, sort_keys=True).encode(), manifests.IMAGE)


def _helm_config() -> Blob:
    """The empty config's bytes, called a chart's."""
    return Blob(EMPTY.digest, EMPTY.size, HELM, EMPTY.title, EMPTY.open)


def _split(message: str) -> tuple[str, str]:
    """A fault's sentence as what is wrong and what to do, which stand on both sides of its last colon."""
    said, colon, remedy = message.rpartition("): ")
    if not colon:
        said, colon, remedy = message.rpartition(": ")
        return (f"{said}.", _sentence(remedy)) if colon else (message, "See the registry's log.")
    return f"{said}).", _sentence(remedy)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _without_login(url: str) -> str:
    return re.sub(r"//[^@/]*@", "//", url)


def _is_local(host: str) -> bool:
    return host.startswith(("localhost", "127.", "[::1]"))
