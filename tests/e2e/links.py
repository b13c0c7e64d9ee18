"""Links of sites to a center that can be narrow and can be cut: a network namespace a site, with a shaped pair of ends.

Needs root and iproute2; `Link.make` skips the test with the reason where they are not there.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# RFC 5737: addresses that belong to nobody.
NETWORK = "198.51.100"
PROGRAMS = ("ip", "tc", "ss")


def center_address() -> str:
    """Our end of the first link, which every site reaches over its own."""
    return f"{NETWORK}.1"


@dataclass
class Link:
    """A site's way to the center."""

    namespace: str
    device: str
    ours: str
    theirs: str

    @property
    def within(self) -> list[str]:
        """The command that runs another one at the site."""
        return ["ip", "netns", "exec", self.namespace]

    def at_site(self, *command: str) -> str:
        """What a command prints that runs at the site."""
        return _run(*self.within, *command)

    def shape(self, megabits: float) -> None:
        """From the center to the site goes no more than this a second."""
        _run("tc", *f"qdisc replace dev {self.device} root tbf rate {megabits}mbit burst 32kbit latency 200ms".split())

    def connect(self) -> None:
        """Brings the site's end up."""
        self.at_site("ip", "link", "set", "site", "up")
        self.at_site("ip", "route", "replace", "default", "via", self.ours)

    def cut(self) -> None:
        """Takes the site's end down, and with it what went over it: who comes back has a new connection to make."""
        self.at_site("ip", "link", "set", "site", "down")
        self.at_site("ss", "--kill", "--no-header", "dst", f"{NETWORK}.0/24")

    def sent(self) -> int:
        """Bytes that went to the site so far, with their headers."""
        return int(Path(f"/sys/class/net/{self.device}/statistics/tx_bytes").read_text())


@contextmanager
def made(count: int) -> Iterator[list[Link]]:
    """So many links, up and not shaped. Skips where this machine cannot have them."""
    _require()
    name, links = f"oc{secrets.token_hex(2)}", []
    try:
        for number in range(count):
            links.append(_made(name, number))
        yield links
    finally:
        for link in links:
            subprocess.run(["ip", "netns", "delete", link.namespace], check=False, capture_output=True)


def _require() -> None:
    for program in PROGRAMS:
        if not shutil.which(program):
            pytest.skip(f"{program} (iproute2) is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    probe = f"oc{secrets.token_hex(2)}"
    _probed("network namespaces cannot be made here", f"ip netns add {probe}")
    try:
        shape = f"ip netns exec {probe} tc qdisc add dev lo root tbf rate 1mbit burst 32kbit latency 200ms"
        _probed("links cannot be shaped here", shape)
    finally:
        _run("ip", "netns", "delete", probe)


def _probed(lack: str, command: str) -> None:
    done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{lack}: {done.stderr.strip()}")


def _made(name: str, number: int) -> Link:
    link = Link(f"{name}-{number}", f"{name}v{number}", f"{NETWORK}.{4 * number + 1}", f"{NETWORK}.{4 * number + 2}")
    _run("ip", "netns", "add", link.namespace)
    _run(*f"ip link add {link.device} type veth peer name site netns {link.namespace}".split())
    _run(*f"ip address add {link.ours}/30 dev {link.device}".split())
    _run("ip", "link", "set", link.device, "up")
    link.at_site("ip", "link", "set", "lo", "up")
    link.at_site("ip", "address", "add", f"{link.theirs}/30", "dev", "site")
    link.connect()
    return link


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout
