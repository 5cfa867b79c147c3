"""Files that say by a kernel lock that whoever wrote them still lives.

A lock dies with its process, and is seen from every container that has the same file system; a pid means
something in one of them only.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


def create_locked(path: Path) -> BinaryIO:
    """Create a file for writing, and hold it until it is closed.

    Where the file system has no locks, the file is merely created; nobody can take it then either.
    """
    while True:
        file = path.open("wb")
        try:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file.fileno(), path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # swept between its creation and the lock


def write_atomically(path: Path, content: bytes) -> None:
    """Write, sync, rename, sync the folder: even after a power cut the file is the old one or the new one.

    Args:
        path: the file, in a folder that exists.
        content: all of it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex}.partial")
    try:
        with create_locked(partial) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)  # while it is held: another run at this folder may sweep
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def taken(path: Path) -> Iterator[bool]:
    """Hold a file that nobody else holds while the body runs; says whether that was possible."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # gone, or a link
        yield False
        return
    try:
        yield _lock_at_once(descriptor) and _is_at(descriptor, path)
    finally:
        os.close(descriptor)


def _lock_at_once(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or the file system has no locks
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether this very file, and no other, still lies at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
