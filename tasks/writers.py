"""Who writes below a store, and what they leave: each holds a lock beside its folder as long as it lives."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gcl.locked_files import create_locked, taken

_LOCK = ".lock"


def this_writer() -> str:
    """This process, told apart from an earlier one of the same pid by when it started."""
    return f"{os.getpid()}.{_start_of(str(os.getpid()))}"


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Have a path to oneself while the body runs, whoever sweeps; what then lies there is removed."""
    lock = path.with_name(path.name + _LOCK)
    with create_locked(lock):
        try:
            yield
        finally:
            remove(path)  # before the lock: what lies there without one counts as left by an older gclflow
            lock.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what writers that are no longer alive have left: what is named ``WRITER-...``.

    Only what can be locked goes: a writer in another container has a pid that means nothing here.
    """
    for name in sorted({path.name.removesuffix(_LOCK) for path in folder.iterdir()}):
        path, lock = folder / name, folder / f"{name}{_LOCK}"
        if not os.path.lexists(lock):
            if _is_dead(name.partition("-")[0]):
                remove(path)
            continue
        with taken(lock) as is_left:
            if is_left:
                remove(path)
                lock.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete a folder or file that may be gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_dead(writer: str) -> bool:
    """Whether a writer that holds no lock, of an older gclflow, is known to be gone."""
    pid, _, started = writer.partition(".")
    return pid.isdigit() and _start_of(pid) != started


def _start_of(pid: str) -> str | None:
    """When a process started, in clock ticks since boot; None when there is no such process."""
    try:
        status = Path("/proc", pid, "stat").read_text()
    except OSError:
        return None
    return status.rpartition(")")[2].split()[19]  # the name before it may hold spaces and brackets
