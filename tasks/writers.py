"""Who writes below a store, and what they leave: names that tell a living process from one that is gone."""

import os
import shutil
from pathlib import Path


def this_writer() -> str:
    """This process, told apart from an earlier one of the same pid by when it started."""
    return f"{os.getpid()}.{_start_of(str(os.getpid()))}"


def sweep(folder: Path) -> None:
    """Remove what writers that are no longer alive have left: what is named ``WRITER-...``."""
    for path in folder.iterdir():
        owner = path.name.partition("-")[0]
        pid, _, started = owner.partition(".")
        if pid.isdigit() and _start_of(pid) != started:
            remove(path)


def remove(path: Path) -> None:
    """Delete a folder or file that may be gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _start_of(pid: str) -> str | None:
    """When a process started, in clock ticks since boot; None when there is no such process."""
    try:
        status = Path("/proc", pid, "stat").read_text()
    except OSError:
        return None
    return status.rpartition(")")[2].split()[19]  # the name before it may hold spaces and brackets
