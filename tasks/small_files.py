"""Small JSON files of a store that are replaced while others read them: always whole, never executed."""

import os
from pathlib import Path
from typing import Any

from tasks.sealed import seal, unseal
from tasks.store import Store

_NO_KEY = "0" * 64


def write_small(store: Store, path: Path, body: Any) -> None:
    """Write a JSON value with its checksum: the old file or the new one is there, never half of one.

    Args:
        store: the store the file lies in; what a crash leaves of the writing is swept when it is next opened.
        path: where to; its folder is made (mode 0700) where it does not exist.
        body: JSON types only.

    Raises:
        StoreFull: there is no room.
        ValueError: the body holds NaN or infinity.
    """
    data = seal(body)
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        sync_folder(path.parent.parent)
    with store.writing("small", _NO_KEY) as folder:
        temporary = folder / "file.json"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o600)
        temporary.replace(path)
        sync_folder(path.parent)


def read_small(path: Path, *, max_bytes: int) -> Any:
    """The JSON value of a file that `write_small` wrote.

    Raises:
        ValueError: it is a link, too large, or does not hold what was written.
        OSError: it is not there or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(max_bytes + 1)
    return unseal(data, max_bytes=max_bytes)


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk: what was renamed into it or removed from it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
