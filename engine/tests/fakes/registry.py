"""An OCI registry: pull only, with or without login, with the faults that real ones have."""

import base64
import hashlib
import re

import orjson

from .http import LoopbackServer, Reply

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class FakeRegistry(LoopbackServer):
    """`auth` is None, "basic" or "bearer"; `blob_host` sends blobs elsewhere; `cut_after` breaks downloads off."""

    def __init__(self, auth=None, user=("robot$ml+edge", "s3cret:with:colons")):
        self.auth, self.user = auth, user
        self.blobs, self.tags = {}, {}
        self.requests = []
        self.blob_host = None
        self.cut_after = []
        self.statuses = []
        self.tampered = set()
        super().__init__()

    def put(self, data):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def push(self, repository, tag, manifest):
        digest = self.put(orjson.dumps(manifest))
        self.tags[f"{repository}:{tag}"] = digest
        return digest

    def pulled(self, part):
        return [path for method, path, _ in self.requests if part in path and method == "GET"]

    def reply(self, method, path, headers, body):
        self.requests.append((method, path, dict(headers)))
        if path.startswith("/token"):
            return self._token(path, headers)
        if self.statuses:
            return Reply(self.statuses.pop(0), b"{}", {"Retry-After": "0"})
        refused = self._refused(headers)
        if refused:
            return refused
        if path == "/v2/":
            return Reply(200, b"{}")
        return self._content(path, headers)

    def _token(self, path, headers):
        if headers.get("Authorization") != self._basic():
            return Reply(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        assert "scope=repository%3Aml%2Fpipelines%2F" in path and "%3Apull" in path, path
        return Reply(200, b'{"token":"granted","expires_in":300}')

    def _basic(self):
        return "Basic " + base64.b64encode(":".join(self.user).encode()).decode()

    def _refused(self, headers):
        given = headers.get("Authorization")
        if self.auth == "basic" and given != self._basic():
            return Reply(401, b"{}", {"WWW-Authenticate": 'Basic realm="registry"'})
        if self.auth == "bearer" and given != "Bearer granted":
            challenge = f'Bearer realm="http://{self.host}/token",service="reg,istry",scope="a:b:pull,push"'
            return Reply(401, b"{}", {"WWW-Authenticate": challenge})
        return None

    def _content(self, path, headers):
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(.+)", path)
        repository, kind, name = found.groups()
        digest = self.tags.get(f"{repository}:{name}", name)
        data = self.blobs.get(digest)
        if data is None:
            return Reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        if digest in self.tampered:
            data = bytes([data[0] ^ 1]) + data[1:]
        if kind == "manifests":
            return Reply(200, data, {"Content-Type": MANIFEST, "Docker-Content-Digest": digest})
        if self.blob_host:
            return Reply(307, b"", {"Location": f"http://{self.blob_host.host}/v2/{repository}/blobs/{name}"})
        return self._blob(data, headers.get("Range"))

    def _blob(self, data, wanted):
        cut = self.cut_after.pop(0) if self.cut_after else None
        if not wanted:
            return Reply(200, data, cut=cut)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        part = data[start:]
        return Reply(206, part, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, cut=cut)


def publish(registry, name, version, models, steps=None, repository=None, **changes):
    """Push a pipeline artifact (contract/artifact.manifest.json).

    `models`: (name, version, bytes, tensor_fields) and perhaps what else pipeline.json says of the model.
    """
    entries, layers = [], []
    for model, model_version, data, tensor_fields, *more in models:
        digest = registry.put(data)
        entries.append(
            {
                "name": model,
                "version": model_version,
                "sha": digest.removeprefix("sha256:"),
                "size": len(data),
                "file_name": f"{model}.onnx",
                "framework": "onnx",
                "runtime": "onnx",
                "arch": "x86",
                "accel": "none",
                "config": {"tensor_fields": tensor_fields},
                "inputs": [],
                "outputs": [],
                **(more[0] if more else {}),
            }
        )
        path = {"org.cncf.model.filepath": f"models/{model}/{model_version}/{model}.onnx"}
        media = "application/vnd.cncf.model.weight.v1.raw"
        layers.append({"mediaType": media, "digest": digest, "size": len(data), "annotations": path})
    named = [{"name": e["name"], "version": e["version"], "sha": e["sha"]} for e in entries]
    config = orjson.dumps(
        {
            "format": 1,
            "pipeline": {"name": name, "version": version},
            "definition": {"id": name, "steps": steps or [{"ModelInference": {"models": [one]}} for one in named]},
            "models": entries,
            "engine": {"minimum": "0.1.0"},
            **changes,
        }
    )
    layers.insert(
        0,
        {
            "mediaType": "application/vnd.cncf.model.weight.config.v1.raw",
            "digest": registry.put(config),
            "size": len(config),
            "annotations": {"org.cncf.model.filepath": "pipeline.json"},
        },
    )
    descriptor = b"{}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.cncf.model.config.v1+json",
            "digest": registry.put(descriptor),
            "size": len(descriptor),
        },
        "layers": layers,
    }
    repository = repository or f"ml/pipelines/{name}"
    digest = registry.push(repository, version, manifest)
    return f"{registry.host}/{repository}:{version}", digest
