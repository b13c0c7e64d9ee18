"""The measurements of `bench.fleet`, once Django is set up on a database of its own."""

import argparse
import os
import random
import time
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.db import connection

from bench.fleet import rollout, wire
from bench.fleet.center import Center
from bench.fleet.engines import Engine

OFFLINE, FAILING = 0.05, 0.02
JOIN_SECONDS, CHECKINS, P99 = 60.0, 700.0, 100.0  # the targets


def _round(engines: Sequence[Engine], count: int) -> list[wire.Work]:
    """So many check-ins, of the engines in turn."""
    return [engines[number % len(engines)].checkin for number in range(count)]


def measure(given: argparse.Namespace, center: Center) -> bool:
    """All measurements; whether every target was met and every edge ended right."""
    port, chance = settings.PORT, random.Random(4)
    old = center.publish()
    begin = time.perf_counter()
    join_tokens = center.bundles(old, given.edges)
    print(f"{given.edges} edges added by bulk and fleet tokens in {time.perf_counter() - begin:.1f} s", flush=True)
    engines = [
        Engine(token, ec.generate_private_key(ec.SECP256R1()), kind < OFFLINE, OFFLINE <= kind < OFFLINE + FAILING)
        for token, kind in ((token, chance.random()) for token in join_tokens)
    ]
    joins = center.measured("joins", lambda: wire.each(port, [engine.join for engine in engines]))
    center.measured("first check-ins", lambda: wire.each(port, [engine.checkin for engine in engines]))
    chance.shuffle(engines)
    count = int(given.rate * given.seconds)
    paced = center.measured(
        f"check-ins at {given.rate}/s", lambda: wire.each(port, _round(engines, count), rate=given.rate)
    )
    center.measured("check-ins, as many as go", lambda: wire.each(port, _round(engines, count)))
    right = rollout.replaced(center, old, engines, given.rate)
    goals = {
        f"{given.edges} joins in under {JOIN_SECONDS * given.edges / 10_000:.0f} s": joins.wall
        < JOIN_SECONDS * given.edges / 10_000
        and not joins.refused,
        f"{min(CHECKINS, given.rate):.0f} check-ins/s with p99 under {P99:.0f} ms": paced.per_second
        >= min(CHECKINS, given.rate) * 0.98
        and paced.percentile(0.99) < P99
        and not paced.refused,
        "every edge ended in the right state": right,
    }
    for goal, is_met in goals.items():
        print(f"{'met   ' if is_met else 'MISSED'}  {goal}")
    return all(goals.values())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--edges", type=int)
    parser.add_argument("--database")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    print(f"{connection.vendor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    center = Center(given.workers)
    try:
        return 0 if measure(given, center) else 1
    finally:
        center.web.terminate()
        center.web.wait()
