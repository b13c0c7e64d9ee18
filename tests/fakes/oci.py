"""An OCI registry inside the test process: a real HTTP server that can be told to fail in the ways registries do."""

import base64
import hashlib
import json
import re
import ssl
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

KEPT = 8 * 1024 * 1024  # larger blobs are hashed, not kept, so that a test can send what memory could not hold


@dataclass
class Seen:
    """One request that arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    authorization: str
    body_bytes: int = 0
    status: int = 0


@dataclass
class Fault:
    """What happens to the next `times` requests of this method whose path matches, instead of an answer."""

    method: str
    pattern: str
    status: int = 500
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop_after: int | None = None  # body bytes to read before the connection is broken without an answer
    cut: int | None = None  # bytes of the true answer's body before the connection is broken


@dataclass
class Token:
    scopes: set[str]
    ends_at: float


class FakeRegistry:
    """`with FakeRegistry() as registry:` serves `registry.host` until the block ends."""

    def __init__(
        self,
        *,
        auth: str = "none",
        username: str = "robot$ml+pusher",
        password: str = "s3cret-pass",
        token_seconds: float = 300,
        told_seconds: float | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.auth, self.username, self.password = auth, username, password
        self.token_seconds, self.told_seconds = token_seconds, told_seconds
        self.grants = lambda scope: True  # what the token server grants of what was asked, exactly
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.tokens: dict[str, Token] = {}
        self.uploads: dict[str, str] = {}
        self.parts: dict[str, bytearray] = {}  # what PATCH brought, by upload
        self.most_put: int | None = None  # larger bodies get 413, as from a proxy
        self.most_patch: int | None = None
        self.chunk_minimum = 0
        self.resumes = True  # whether GET of an upload tells how far it is
        self.deletes = True
        self.has_referrers = True  # it lists what has a subject; else it answers 404, as GHCR does
        self.refused_types: set[str] = set()  # artifact or config types that get MANIFEST_INVALID
        self.jwt = False  # tokens tell what they grant
        self.oauth_only = False  # the token server knows POST only
        self.identity_token = ""
        self.date: str | None = None
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.mounts = True
        self.upload_base = ""  # "http://other:port": where uploads are sent instead of here
        self.storing = threading.Event()  # set when the first body bytes arrive
        self.gate: threading.Event | None = None  # bodies wait for it in the middle
        self.slow_after: int | None = None  # an upload that has so many bytes crawls on
        self.slowed = threading.Event()
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"registry": self})
        self.server = _Server(("127.0.0.1", 0), handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.host = f"127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.gate:
            self.gate.set()
        self.server.shutdown()
        self.server.server_close()

    def fail(self, method: str, pattern: str, **fault: Any) -> None:
        self.faults.append(Fault(method, pattern, **fault))

    def revoke_tokens(self) -> None:
        self.tokens.clear()

    def put_blob(self, repository: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs.setdefault(repository, {})[digest] = content
        return digest

    def calls(self, method: str, pattern: str = "") -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method and re.search(pattern, seen.path)]

    def blob_bytes(self) -> int:
        """Bytes of blob bodies that came over the wire."""
        return sum(seen.body_bytes for seen in self.seen if "/blobs/uploads/" in seen.path)

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer in two writes waits 40 ms for the client's delayed ACK

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.route()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def date_time_string(self, timestamp: float | None = None) -> str:
        return self.registry.date or super().date_time_string(timestamp)

    def route(self) -> None:
        parts = urlsplit(self.path)
        self.seen = Seen(self.command, parts.path, parse_qs(parts.query), self.headers.get("Authorization", ""), 0)
        self.registry.seen.append(self.seen)
        fault = self.registry.fault_for(self.command, parts.path)
        self.cut = fault.cut if fault else None
        if fault and fault.cut is None:
            self.break_(fault)
        elif parts.path == "/token":
            self.token()
        elif self.allowed():
            self.serve(parts.path)

    def break_(self, fault: Fault) -> None:
        if fault.drop_after is not None:
            self.seen.body_bytes = len(self.rfile.read(fault.drop_after))
            self.close_connection = True
            return
        self.read_body()
        self.answer(fault.status, fault.body, fault.headers)

    def allowed(self) -> bool:
        registry, given = self.registry, self.headers.get("Authorization", "")
        if registry.auth == "none":
            return True
        if registry.auth == "basic":
            pair = f"{registry.username}:{registry.password}".encode()
            if given == f"Basic {base64.b64encode(pair).decode()}":
                return True
            return self.challenge('Basic realm="fake, registry"')
        needed = self.needed_scope()
        token = registry.tokens.get(given.removeprefix("Bearer "))
        if token and token.ends_at > time.monotonic() and (not needed or needed in token.scopes):
            return True
        error = ',error="insufficient_scope"' if token and token.ends_at > time.monotonic() else ""
        return self.challenge(f'Bearer realm="http://{registry.host}/token",service="fake",scope="{needed}:x,y"{error}')

    def challenge(self, offer: str) -> bool:
        self.read_body()
        self.problem(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": offer})
        return False

    def needed_scope(self) -> str:
        found = re.match(r"/v2/(.+)/(?:blobs|manifests|referrers)/", self.path)
        if not found:
            return ""
        return f"repository:{found[1]}:{'pull' if self.command in {'GET', 'HEAD'} else 'push'}"

    def token(self) -> None:
        registry = self.registry
        if registry.auth != "bearer":
            return self.answer(404)
        asked = self.asked()
        if asked is None:
            return None
        scopes = set()
        for scope in asked:
            kind, name, actions = scope.split(":")
            scopes |= {
                f"{kind}:{name}:{action}" for action in actions.split(",") if registry.grants(f"{name}:{action}")
            }
        text = _jwt(scopes) if registry.jwt else uuid.uuid4().hex
        registry.tokens[text] = Token(scopes, time.monotonic() + registry.token_seconds)
        told = registry.token_seconds if registry.told_seconds is None else registry.told_seconds
        return self.answer(200, json.dumps({"token": text, "expires_in": told}).encode())

    def asked(self) -> list[str] | None:
        """The scopes that a login with a right password or identity token asks for; None once it was refused."""
        registry = self.registry
        if self.command == "POST":
            form = {key: values[0] for key, values in parse_qs(self.read_body()[0].decode()).items()}
            given = (form.get("username"), form.get("password"))
            is_right = form.get("client_id") and (
                form.get("refresh_token") == registry.identity_token
                if form.get("grant_type") == "refresh_token"
                else form.get("grant_type") == "password" and given == (registry.username, registry.password)
            )
            if is_right:
                return form["scope"].split(" ")
        elif registry.oauth_only:
            self.answer(405)
            return None
        else:
            pair = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
            if self.headers.get("Authorization") == f"Basic {pair}":
                return self.seen.query.get("scope", [])
        self.answer(401, b'{"details":"incorrect username or password"}')
        return None

    def serve(self, path: str) -> None:
        if path == "/v2/":
            return self.answer(200, b"{}")
        for pattern, method in (
            (r"/v2/(?P<name>.+)/blobs/uploads/(?P<upload>[^/]*)", self.upload),
            (r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)", self.blob),
            (r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)", self.manifest),
            (r"/v2/(?P<name>.+)/referrers/(?P<digest>[^/]+)", self.referrers),
            (r"/v2/(?P<name>.+)/tags/list", self.tags),
        ):
            if found := re.fullmatch(pattern, path):
                return method(**found.groupdict())
        return self.problem(404, "NAME_UNKNOWN", "no such page")

    def upload(self, name: str, upload: str) -> None:
        registry = self.registry
        if self.command == "POST":
            self.read_body()
            digest, source = (self.seen.query.get(key, [""])[0] for key in ("mount", "from"))
            if registry.mounts and digest in registry.blobs.get(source, {}):
                registry.blobs.setdefault(name, {})[digest] = registry.blobs[source][digest]
                return self.answer(201, headers={"Docker-Content-Digest": digest})
            upload = uuid.uuid4().hex
            registry.uploads[upload] = name
            place = f"{registry.upload_base}/v2/{name}/blobs/uploads/{upload}?_state=a%2Bb"
            return self.answer(202, headers={"Location": place})
        if self.command == "PATCH":
            return self.patch(name, upload)
        if self.command in {"GET", "DELETE"}:
            return self.upload_state(name, upload)
        if registry.most_put is not None and int(self.headers.get("Content-Length") or 0) > registry.most_put:
            self.close_connection = True
            return self.answer(413, b"<html>Request Entity Too Large</html>")
        if registry.uploads.pop(upload, None) != name or self.seen.query.get("_state") != ["a+b"]:
            self.read_body()
            return self.problem(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        content, digest = self.read_body()
        if parts := registry.parts.pop(upload, None):
            content = bytes(parts) + content
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if self.seen.query.get("digest") != [digest]:
            return self.problem(400, "DIGEST_INVALID", "digest did not match")
        registry.blobs.setdefault(name, {})[digest] = content
        return self.answer(201, headers={"Docker-Content-Digest": digest})

    def place(self, name: str, upload: str) -> dict[str, str]:
        have = len(self.registry.parts.get(upload, b""))
        return {
            "Location": f"/v2/{name}/blobs/uploads/{upload}?_state=a%2Bb",
            "Range": f"0-{max(0, have - 1)}",
            "OCI-Chunk-Min-Length": str(self.registry.chunk_minimum),
        }

    def patch(self, name: str, upload: str) -> None:
        registry = self.registry
        size = int(self.headers.get("Content-Length") or 0)
        if registry.most_patch is not None and size > registry.most_patch:
            self.close_connection = True
            return self.answer(413)
        if registry.uploads.get(upload) != name:
            self.read_body()
            return self.problem(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        have = registry.parts.setdefault(upload, bytearray())
        if self.headers.get("Content-Range") != f"{len(have)}-{len(have) + size - 1}":
            self.read_body()
            return self.answer(416, headers=self.place(name, upload))
        if registry.slow_after is not None and len(have) >= registry.slow_after:
            registry.slowed.set()
            time.sleep(1)
        content, _digest = self.read_body()
        have += content
        return self.answer(202, headers=self.place(name, upload))

    def upload_state(self, name: str, upload: str) -> None:
        registry = self.registry
        if registry.uploads.get(upload) != name or not registry.resumes:
            return self.problem(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if self.command == "DELETE":
            del registry.uploads[upload]
            registry.parts.pop(upload, None)
            return self.answer(204)
        return self.answer(204, headers=self.place(name, upload))

    def tags(self, name: str) -> None:
        found = [tag for repository, tag in self.registry.manifests if repository == name and ":" not in tag]
        self.answer(200, json.dumps({"name": name, "tags": found}).encode())

    def delete(self, kept: dict[Any, Any], key: Any) -> None:
        if not self.registry.deletes:
            return self.problem(405, "UNSUPPORTED", "the operation is unsupported")
        if kept.pop(key, None) is None:
            return self.answer(404)
        return self.answer(202)

    def blob(self, name: str, digest: str) -> None:
        if self.command == "DELETE":
            return self.delete(self.registry.blobs.get(name, {}), digest)
        content = self.registry.blobs.get(name, {}).get(digest)
        if content is None:
            return self.problem(404, "BLOB_UNKNOWN", "blob unknown")
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if found:
            first = int(found[1])
            place = f"bytes {first}-{len(content) - 1}/{len(content)}"
            return self.answer(206, content[first:], {"Content-Range": place})
        return self.answer(200, content, {"Docker-Content-Digest": digest})

    def manifest(self, name: str, reference: str) -> None:
        registry = self.registry
        if self.command == "DELETE":
            return self.delete(registry.manifests, (name, reference))
        if self.command == "PUT":
            content, digest = self.read_body()
            told = json.loads(content)
            if registry.refused_types & {told.get("artifactType"), told.get("config", {}).get("mediaType")}:
                return self.problem(400, "MANIFEST_INVALID", "unknown media type")
            missing = [part["digest"] for part in _parts(told) if part["digest"] not in registry.blobs.get(name, {})]
            missing += [
                part["digest"] for part in told.get("manifests", []) if (name, part["digest"]) not in registry.manifests
            ]
            if missing:
                return self.problem(404, "MANIFEST_BLOB_UNKNOWN", f"blob unknown: {missing[0]}")
            for key in (reference, digest):
                registry.manifests[(name, key)] = content, self.headers["Content-Type"]
            headers = {"Docker-Content-Digest": digest}
            if registry.has_referrers and "subject" in told:
                headers["OCI-Subject"] = told["subject"]["digest"]
            return self.answer(201, headers=headers)
        found = registry.manifests.get((name, reference))
        if found is None:
            return self.problem(404, "MANIFEST_UNKNOWN", "manifest unknown")
        digest = f"sha256:{hashlib.sha256(found[0]).hexdigest()}"
        return self.answer(200, found[0], {"Content-Type": found[1], "Docker-Content-Digest": digest})

    def referrers(self, name: str, digest: str) -> None:
        """One page each, so that clients must follow the links."""
        if not self.registry.has_referrers:
            return self.problem(404, "NOT_FOUND", "no referrers API")
        found = []
        for (repository, reference), (content, media_type) in self.registry.manifests.items():
            manifest = json.loads(content)
            if repository == name and ":" in reference and manifest.get("subject", {}).get("digest") == digest:
                entry = {"mediaType": media_type, "digest": reference, "size": len(content)}
                kept = {key: manifest[key] for key in ("artifactType", "annotations") if key in manifest}
                found.append(entry | kept)
        page = int(self.seen.query.get("page", ["0"])[0])
        link = {"Link": f'</v2/{name}/referrers/{digest}?page={page + 1}>; rel="next"'} if page + 1 < len(found) else {}
        index = {"schemaVersion": 2, "manifests": found[page : page + 1]}
        return self.answer(200, json.dumps(index).encode(), link)

    def read_body(self) -> tuple[bytes, str]:
        left, found, kept = int(self.headers.get("Content-Length") or 0), hashlib.sha256(), bytearray()
        size = left
        while left:
            piece = self.rfile.read(min(left, 65536))
            if not piece:
                raise ConnectionError("the client went away")
            found.update(piece)
            left -= len(piece)
            self.seen.body_bytes += len(piece)
            if size <= KEPT:
                kept += piece
            if "/uploads/" in self.path:
                self.registry.storing.set()
                if self.registry.gate:
                    self.registry.gate.wait(30)
        return bytes(kept), f"sha256:{found.hexdigest()}"

    def problem(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.answer(status, body, headers)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.seen.status = status
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: self.cut])
            self.close_connection |= self.cut is not None


def _parts(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [manifest["config"], *manifest["layers"]] if "config" in manifest else []


def _jwt(scopes: set[str]) -> str:
    access = [
        {"type": kind, "name": name, "actions": [action]}
        for kind, name, action in (scope.split(":") for scope in sorted(scopes))
    ]
    claims = json.dumps({"access": access, "jti": uuid.uuid4().hex}).encode()
    return f"eyJhbGciOiJub25lIn0.{base64.urlsafe_b64encode(claims).rstrip(b'=').decode()}.c2ln"
