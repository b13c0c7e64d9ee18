"""Whether a role of this container is healthy: `python -m opscenter.health web`. Exits with 0 when it is."""

import socket
import sys
import time
import urllib.request

from django.conf import settings

from opscenter import celery_app

BEAT_SILENCE_SECONDS = 600  # beat writes its schedule down every three minutes


def web() -> bool:
    """The server answers, and the database answers it."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://127.0.0.1:{settings.PORT}/readyz", timeout=4) as answer:
        return bool(answer.status == 200)


def worker() -> bool:
    """The worker of this host answers through the broker."""
    return bool(celery_app.control.ping(destination=[f"celery@{socket.gethostname()}"], timeout=10, limit=1))


def beat() -> bool:
    """The schedule was written lately."""
    files = settings.DATA.glob("run/beat-schedule*")
    newest = max((file.stat().st_mtime for file in files), default=0.0)
    return time.time() - newest < BEAT_SILENCE_SECONDS


def main() -> int:
    """0 when healthy, 1 with the reason when not."""
    checks = {"web": web, "worker": worker, "beat": beat}
    role = sys.argv[1] if len(sys.argv) == 2 else ""
    if role not in checks:
        sys.exit(f"usage: python -m opscenter.health {'|'.join(checks)}")
    try:
        healthy = checks[role]()
    except OSError as exc:
        print(f"{role}: {exc}", file=sys.stderr)
        return 1
    print(f"{role}: {'healthy' if healthy else 'not healthy'}")
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
