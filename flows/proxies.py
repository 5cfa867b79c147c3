"""Connections to this machine never go through a web proxy, which would be handed the server's login."""

import os
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from flows.server_safety import is_loopback

_HERE = ("127.0.0.1", "localhost")


def without_proxy(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that keep a process from using a proxy for this machine; what was excepted already stays.

    Args:
        environment: that it would have otherwise; none is ours.
    """
    found = os.environ if environment is None else environment
    # Some read the one, some the other; where both are set, most prefer the small letters.
    known = found.get("no_proxy") or found.get("NO_PROXY") or ""
    names = [name.strip() for name in known.split(",") if name.strip()]
    if "*" not in names:
        names += [name for name in _HERE if name not in names]
    return dict.fromkeys(("NO_PROXY", "no_proxy"), "*" if "*" in names else ",".join(names))


def opener(url: str) -> urllib.request.OpenerDirector:
    """What opens a URL: straight where it is on this machine, else as the environment says."""
    if is_on_loopback(url):
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def client_settings(url: str) -> dict[str, Any]:
    """The like for httpx."""
    return {"trust_env": False} if is_on_loopback(url) else {}


def is_on_loopback(url: str) -> bool:
    """Whether a URL names this machine; one that cannot be read does not."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
