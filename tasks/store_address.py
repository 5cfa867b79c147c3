"""Where a store lies: a local directory, or a bucket behind one.

A store on an object store is worked on through a local folder, its cache: artifacts are copied there and
read from there. The cache says in `.remote.json` what it is a copy of, so its path is an address of that
store, too.
"""

import hashlib
import json
import os
import re
from pathlib import Path

from tasks.errors import StoreUnusable

CACHE_VARIABLE = "GCLFLOW_STORE_CACHE"
BINDING = ".remote.json"
_SCHEME = "s3://"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_SEGMENT = r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*"
_ADDRESS = re.compile(rf"s3://{_BUCKET}(?:/{_SEGMENT})*")
_MAX_ADDRESS = 512


def local_path(root: Path | str) -> Path:
    """The directory a store's address means: a path, `file://` and a path, or the cache of a bucket.

    Raises:
        StoreUnusable: another scheme, or a path that cannot be resolved.
    """
    text = str(root)
    if text.startswith(_SCHEME):
        return _cache_of(_normalised(text))
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme != "file":
            raise StoreUnusable(f"store {scheme}://: only local directories and s3://BUCKET/PREFIX")
        text = rest
    try:
        return Path(text).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, a user that does not exist
        raise StoreUnusable(f"store {text}: {error}") from error


def remote_address(root: Path | str) -> str | None:
    """The bucket and prefix behind a store, as ``s3://BUCKET/PREFIX``; None where it is a directory alone.

    Raises:
        StoreUnusable: as `local_path`, or the cache does not say what it is a copy of.
    """
    text = str(root)
    return _normalised(text) if text.startswith(_SCHEME) else read_binding(local_path(text)).get("address")


def read_binding(cache: Path) -> dict[str, str]:
    """What a cache says it is a copy of: ``address`` and ``id``; empty where the folder is no cache.

    Raises:
        StoreUnusable: it says something else.
    """
    file = cache / BINDING
    if not os.path.lexists(file):
        return {}
    try:
        found = json.loads(file.read_bytes())
        return {"address": _normalised(str(found["address"])), "id": str(found["id"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreUnusable(f"{file} does not say what this folder is a copy of: {error}") from None


def _normalised(address: str) -> str:
    """The address, checked. One that is not as it must be is not repeated: it may hold a secret."""
    stripped = address.rstrip("/")
    if len(stripped) > _MAX_ADDRESS or not _ADDRESS.fullmatch(stripped):
        raise StoreUnusable(
            "store s3://: not of the form s3://BUCKET/PREFIX, of letters, digits, -, _, = and .; "
            "credentials come from the environment or the AWS configuration, never from the address"
        )
    return stripped


def _cache_of(address: str) -> Path:
    """The folder below the user's cache directory (or the one the environment names) for one address."""
    given = os.environ.get(CACHE_VARIABLE)
    above = Path(given) if given else _user_cache() / "gclflow" / "stores"
    name = re.sub(r"[^a-z0-9.]+", "-", address.removeprefix(_SCHEME).lower())[:60].strip("-")
    try:
        return (above / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:8]}").expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise StoreUnusable(f"{CACHE_VARIABLE}={given}: {error}") from error


def _user_cache() -> Path:
    """``XDG_CACHE_HOME``, which must be absolute to count, or ``~/.cache``."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else Path("~/.cache")
