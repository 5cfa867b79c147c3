"""What stages are working on now, as seen from another process: their locks, their writers, their files."""

import fcntl
import hashlib
import json
import logging
import os
import re
import time
from pathlib import Path

from tasks.store import Store
from tasks.work import INPUTS

logger = logging.getLogger(__name__)

GRACE_SECONDS = 3600.0
_WRITER = re.compile(r"[0-9]+\.[0-9]+-(?P<stage>[a-z][a-z0-9_]*)-(?P<key>[0-9a-f]{12})-[0-9a-f]{8}")


def is_running(store: Store, stage: str, key: str) -> bool:
    """Whether a process is computing this stage folder now.

    Two signs, since either may be missing: the lock that a Prefect task holds, and the folder that
    `Store.writing` has made, whose owner is alive (opening a store sweeps what the dead have left).
    """
    lock = store.root / ".locks" / hashlib.sha256(f"{stage}-{key}".encode()).hexdigest()
    return is_held(lock) or any(match == (stage, key[:12]) for match, _ in _writers(store))


def is_anything_running(store: Store) -> bool:
    """Whether any process is computing a stage of this store."""
    return bool(_writers(store)) or any(is_held(lock) for lock in (store.root / ".locks").iterdir())


def inputs_in_use(store: Store) -> set[str]:
    """Digests of the artifacts that running stages were started with; `Work` leaves them for us."""
    digests: set[str] = set()
    for _, folder in _writers(store):
        try:
            digests |= {str(d) for d in json.loads((folder / "volatile" / INPUTS).read_bytes()).values()}
        except (OSError, ValueError, AttributeError) as error:  # not written yet, or the stage has ended
            logger.debug("%s: %s", folder.name, error)
    return digests


def is_held(lock: Path) -> bool:
    """Whether some process holds a `flock` on a file; a file that is not there is held by nobody."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_lock(lock: Path) -> bool:
    """Delete a lock file unless it is held; says whether it did.

    A process that has opened the file and not yet locked it would go on with a lock nobody else sees. It
    costs that the same stage is computed twice at worst: what is published first counts.
    """
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def last_written(path: Path) -> float:
    """When anything in a folder was last written, as a time stamp; of a file, when it was."""
    newest = path.lstat().st_mtime
    for inner in path.rglob("*"):
        try:
            newest = max(newest, inner.lstat().st_mtime)
        except FileNotFoundError:  # checkpoints come and go
            newest = time.time()
    return newest


def _writers(store: Store) -> list[tuple[tuple[str, str], Path]]:
    """(stage, start of the key) and folder of every stage that is being written."""
    found = ((_WRITER.fullmatch(path.name), path) for path in (store.root / ".tmp").iterdir())
    return [((match["stage"], match["key"]), path) for match, path in found if match]
