"""A client of OCI registries (distribution-spec 1.1): auth, blobs and manifests apart. It knows nothing of our models.

Why not the `oras` package: it holds whole blobs in memory, sends each twice under Basic auth, fails on token servers
that grant exactly the asked scope, and neither renews tokens nor mounts blobs.
"""
