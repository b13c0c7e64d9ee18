"""Logins that `docker login` left: `config.json` in the folder `DOCKER_CONFIG`, also by credential helpers.

Not the `oras` package's reader: it knows no identity tokens.
"""

import base64
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publishing.oci.auth import Login
from publishing.oci.faults import RegistryFault

HELPER_SECONDS = 30.0  # a cloud's helper asks its metadata server
MOST_BYTES = 1024 * 1024
IDENTITY = "<token>"  # the user name by which a helper says that its secret is an identity token
HUB = "https://index.docker.io/v1/"


def login_for(host: str, folder: Path) -> Login | None:
    """The login for a registry, None where the file has none. Raises `RegistryFault` for an unusable file or helper."""
    config = _read(folder / "config.json")
    if config is None:
        return None
    keys = _keys(host)
    helpers = _object(config, "credHelpers")
    helper = next((helpers[key] for key in keys if key in helpers), None) or config.get("credsStore")
    if helper:
        return _ask(str(helper), HUB if HUB in keys else host)
    auths = _object(config, "auths")
    return next((_login(_object(auths, key), host) for key in keys if key in auths), None)


def _keys(host: str) -> list[str]:
    if host in {"docker.io", "index.docker.io", "registry-1.docker.io"}:
        return [HUB, "docker.io", "index.docker.io"]
    return [host, f"https://{host}", f"http://{host}", f"https://{host}/", f"https://{host}/v1/", f"https://{host}/v2/"]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise RegistryFault(f"{path} (DOCKER_CONFIG) cannot be read as a Docker configuration.") from exc
    return found


def _login(entry: Mapping[str, Any], host: str) -> Login | None:
    """`auth` is the user's name and secret in base64, told apart by the first colon: secrets may have more."""
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except ValueError as exc:
            raise RegistryFault(f"The login for {host} in DOCKER_CONFIG cannot be read: docker login again.") from exc
    token = str(entry.get("identitytoken") or "")
    return Login(username, password.rstrip("\0"), token) if username or token else None


def _ask(helper: str, server: str) -> Login | None:
    """`docker-credential-<helper> get`: the server on its input, JSON on its output."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise RegistryFault("DOCKER_CONFIG names a credential helper that is no name of a program.")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, "get"], input=server, capture_output=True, text=True, timeout=HELPER_SECONDS)
        if done.returncode:
            if "not found" in done.stdout:
                return None
            raise ValueError
        told = json.loads(done.stdout)
        username, secret = str(told["Username"]), str(told["Secret"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as exc:
        raise RegistryFault(f"{program} (DOCKER_CONFIG) gave no login for {server}: run it by hand to see.") from exc
    return Login("", "", secret) if username == IDENTITY else Login(username, secret)


def _object(parent: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = parent.get(key)
    return found if isinstance(found, dict) else {}
