"""No test may use the network: whatever reaches beyond this machine is refused, and fails the test."""

import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

_own_names = {"localhost", socket.gethostname(), "", None}
_attempts: list[str] = []
_is_on = False


class NetworkUsed(OSError):
    """A test tried to reach another machine."""


def is_local(host: object) -> bool:
    """Whether a host is this machine: loopback, its own name, or the wildcard address."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in _own_names:
        return True
    try:
        address = ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _host_of(event: str, arguments: tuple[Any, ...]) -> object:
    """The host an event is about; None where nothing leaves the machine."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        return arguments[0]
    opened, address = arguments[:2]
    is_inet = opened.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple)
    if not is_inet or (event == "socket.connect" and opened.type == socket.SOCK_DGRAM):
        return None  # a unix socket; or a datagram socket, whose connect sends nothing
    return address[0]


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _is_on or not event.startswith("socket."):
        return
    if event not in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        return
    host = _host_of(event, arguments)
    if not is_local(host):
        _attempts.append(f"{event} {host!r}")
        raise NetworkUsed(f"tests use no network: {event} {host!r}")


@pytest.fixture(scope="session", autouse=True)
def _network_refused() -> Iterator[None]:
    """For the whole session, by an audit hook: also what C code and threads of libraries open."""
    global _is_on
    sys.addaudithook(_refuse)
    _is_on = True
    yield
    _is_on = False


@pytest.fixture(autouse=True)
def network_attempts() -> Iterator[list[str]]:
    """What this test tried to reach; anything left in it fails the test, even if the error was swallowed."""
    yield _attempts
    tried = _attempts.copy()
    _attempts.clear()
    assert not tried, f"tests use no network: {tried}"
