"""The order of the doctor's checks: what depends on a failed one is left out."""

import time
from collections.abc import Callable
from datetime import datetime

from publishing.doctor import access, documents, writes
from publishing.doctor.place import Place
from publishing.doctor.report import Report
from publishing.doctor.samples import NAME
from publishing.oci.client import Client, Registry, Retries
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.plan import Plan

RETRIES = Retries(tries=2, first=0.5, patience=5)
CHECKS = (
    ("large blob", writes.whole),
    ("chunked upload", writes.chunked),
    ("mount", writes.mount),
    ("tag", documents.tag),
    ("pipeline artifact", documents.artifact),
    ("Helm chart", documents.helm),
    ("image index", documents.index),
    ("referrers", documents.referrers),
)


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
            _run(Place(client, f"{repository}/{NAME}", report, clock), saved_at)
    except (RegistryFault, Unavailable) as fault:
        report.add_fault("settings", fault.message)
    return report


def _run(at: Place, saved_at: datetime | None) -> None:
    if not _tried("connection", access.connection, at):
        return
    if saved_at:
        access.age(at, saved_at)
    if not _tried("login", access.login, at) or not _tried("blob", writes.blob, at):
        return
    at.report.plan = at.client.plan
    try:
        for name, check in CHECKS:
            _tried(name, check, at)
    finally:
        _tried("clean-up", documents.clean, at)


def _tried(name: str, check: Callable[[Place], None], at: Place) -> bool:
    try:
        check(at)
    except (RegistryFault, Unavailable) as fault:
        at.report.add_fault(name, fault.message)
        return False
    return True
