"""What a stage will take of memory and disk, told before it begins and not by the kernel in the middle.

Memory is anonymous memory: pages of files are the system's to drop. Estimates are of what grows with the
data; what the process holds already when the stage begins is added.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from gcl.errors import UnsuitableSetting
from tasks.memory import anonymous_bytes

LIBRARY_BYTES = 256 << 20
"""What torch and dgl take, where nothing has imported them yet."""
_CGROUP = Path("/sys/fs/cgroup")


class DoesNotFit(UnsuitableSetting):
    """A stage would take more memory or disk than there is; the message says how much, and what to change."""


@dataclass(frozen=True)
class Estimate:
    """What a stage will take at its peak.

    Attributes:
        memory: bytes by what takes them.
        disk: bytes of unfinished work and results, by what takes them.
        advice: what to change where it does not fit.
    """

    memory: Mapping[str, int] = field(default_factory=dict)
    disk: Mapping[str, int] = field(default_factory=dict)
    advice: str = ""


def require_fit(stage: str, estimate: Estimate, *, memory_limit: int | None, folder: Path) -> None:
    """Refuse a stage that cannot be done with what there is.

    Args:
        stage: its name.
        estimate: what it takes.
        memory_limit: bytes that may be taken; None: all the memory of the machine or container.
        folder: where it writes.

    Raises:
        DoesNotFit: it takes more.
    """
    parts = {"what runs already": anonymous_bytes(), **estimate.memory}
    limit = total_memory() if memory_limit is None else memory_limit
    name = "this machine has" if memory_limit is None else "memory_limit allows"
    _require(f"{stage}: memory", parts, limit, name, estimate.advice)
    free = shutil.disk_usage(folder).free
    _require(f"{stage}: disk", estimate.disk, free, f"{folder} has", estimate.advice)


def total_memory() -> int:
    """Bytes of memory of this machine, or of the container it runs in."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int((_CGROUP / "memory.max").read_text()))
    except (OSError, ValueError):  # no such group, or "max"
        return total


def _require(what: str, parts: Mapping[str, int], limit: int, whose: str, advice: str) -> None:
    needed = sum(parts.values())
    if needed <= limit:
        return
    largest = sorted(parts.items(), key=lambda part: -part[1])[:3]
    shares = ", ".join(f"{name} {_gigabytes(size)}" for name, size in largest)
    raise DoesNotFit(
        f"{what} of about {_gigabytes(needed)} is needed ({shares}), and {whose} {_gigabytes(limit)}"
        + (f": {advice}" if advice else "")
    )


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
