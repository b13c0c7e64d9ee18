"""`python -m opsengine.health`: exit 0 when the engine on this machine is alive. For the image's HEALTHCHECK.

Only the standard library, so that the check costs a small device next to nothing.
"""

import http.client
import os
import sys

SECONDS = 4.0
EVERYWHERE = ("", "0.0.0.0", "::")


def near(host: str) -> str:
    """Where on this machine an engine is asked that listens on `host`."""
    return "127.0.0.1" if host in EVERYWHERE else host


def main() -> int:
    """0 when `/healthz` answers 200."""
    port = int(os.environ.get("ENGINE_PORT") or 8080)
    host = near(os.environ.get("ENGINE_HOST", "").strip())
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == 200 else 1
    except (OSError, http.client.HTTPException) as error:
        print(f"The engine does not answer on port {port}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
