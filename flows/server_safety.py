"""What is unsafe about the Prefect server that the settings name; pure checks, no network, no Prefect.

A Prefect server starts with neither authentication nor CSRF protection, and whoever reaches its API can start
flows. That is bearable on loopback and nowhere else.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

_AUTH = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")


def server_warnings(settings: Mapping[str, str]) -> list[str]:
    """One sentence for each unsafe setting, none for a server on loopback.

    Args:
        settings: Prefect's settings under their names as environment variables: ``os.environ``, or what
            Prefect has resolved from its profiles.
    """
    return [*_about_client(settings), *_about_server(settings)]


def _about_client(settings: Mapping[str, str]) -> list[str]:
    url = settings.get("PREFECT_API_URL", "").strip()
    if not url:
        return []
    shown, warnings = without_userinfo(url), []
    if shown != url:
        warnings.append(
            "PREFECT_API_URL holds a user name or password; put them in PREFECT_API_AUTH_STRING, "
            "URLs end up in logs"
        )
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host:
        return [*warnings, f"PREFECT_API_URL is not a URL: {shown}"]
    if is_loopback(host):
        return warnings
    if not any(settings.get(name) for name in _AUTH):
        warnings.append(
            f"the Prefect API at {shown} is not on this machine and no authentication is set: whoever "
            f"reaches it can start runs; set PREFECT_SERVER_API_AUTH_STRING there and {_AUTH[0]} here"
        )
    if parts.scheme != "https":
        warnings.append(f"{shown} is not https: what is sent there, secrets too, can be read on the way")
    return warnings


def _about_server(settings: Mapping[str, str]) -> list[str]:
    host = settings.get("PREFECT_SERVER_API_HOST", "").strip()
    if not host or is_loopback(host) or settings.get("PREFECT_SERVER_API_AUTH_STRING"):
        return []
    return [
        f"a Prefect server started here listens on {host} without authentication; set "
        "PREFECT_SERVER_API_HOST=127.0.0.1, or PREFECT_SERVER_API_AUTH_STRING"
    ]


def is_loopback(host: str) -> bool:
    """Whether a host name or address can mean this machine only.

    Names are not looked up: of all names only ``localhost`` is believed.
    """
    bare = host.strip().strip("[]").rstrip(".").lower()
    if bare == "localhost":
        return True
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def without_userinfo(url: str) -> str:
    """A URL as it may be shown: without user name and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        scheme, mark, rest = url.partition("://")
        return scheme + mark + rest.rpartition("@")[2]
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
