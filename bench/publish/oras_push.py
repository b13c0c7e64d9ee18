"""The same push by the Python package `oras`: `oras_push.py HOST REPOSITORY FOLDER`."""

import json
import os
import sys
from pathlib import Path

import oras.client


def main(host: str, repository: str, folder: str) -> None:
    """Pushes every file of the folder as one artifact."""
    os.chdir(folder)
    names = sorted(json.loads(Path("digests.json").read_text()))
    client = oras.client.OrasClient(hostname=host, insecure=True)
    client.push(target=f"{host}/{repository}:bench", files=names, disable_path_validation=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
