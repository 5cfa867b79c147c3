"""Digests of source files: read once, then known by their status until that changes.

A schedule asks every night whether its sources have changed; reading them whole to find out would cost
more than everything else in a night without news. As version control systems do, a file whose size, times
and inode are those of the last reading is taken to hold the same bytes, unless it had just been written
when it was read: clocks of file systems are coarse, and a second write within one tick leaves no trace.

The register lies in the store (`.sources.json`). It never enters a key; only the digests do.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from gcl.errors import SourceUnreadable
from tasks.errors import StoreFull
from tasks.small_files import read_small, write_small
from tasks.store import Store

logger = logging.getLogger(__name__)

REGISTER = ".sources.json"
MAX_ENTRIES = 10_000
SETTLED_NS = 2_000_000_000
_MAX_BYTES = 64 << 20


class Status(BaseModel):
    """What tells that a file has been written, short of reading it.

    Attributes:
        size: bytes.
        mtime_ns: last change of the content, nanoseconds since 1970.
        ctime_ns: last change of the content or of these fields, which nobody can set back.
        inode: another one when the file was replaced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def is_as_written(self, earlier: "Status") -> bool:
        """Whether the file has not been written since; a new name or other permissions count as nothing."""
        return self.model_copy(update={"ctime_ns": earlier.ctime_ns}) == earlier

    def has_settled(self, at_ns: int) -> bool:
        """Whether a write after the moment `at_ns` would show: the last one lies long enough before it."""
        return max(self.mtime_ns, self.ctime_ns) <= at_ns - SETTLED_NS


class Reading(BaseModel):
    """A file's status and sha256, and when its reading began, in nanoseconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    status: Status
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    taken_ns: int

    def holds_for(self, status: Status) -> bool:
        """Whether a file of this status still has these bytes."""
        return self.status == status and status.has_settled(self.taken_ns)


_READINGS = TypeAdapter(dict[str, Reading])
# What the current flow's key rests on, for the stage that will read the files.
_promised: ContextVar[Mapping[str, Reading]] = ContextVar("promised", default={})  # noqa: B039  never changed


def digest_sources(files: Mapping[str, Path], store: Store | None, *, full: bool = False) -> dict[str, str]:
    """sha256 of every file, by role.

    Args:
        files: path of each, by role.
        store: where readings are remembered; without one, every file is read.
        full: read every file whatever is remembered.

    Raises:
        SourceUnreadable: a file is missing, or changed while it was read.
    """
    known = {} if store is None or full else remembered(store)
    readings = {role: _reading(path, known.get(_name(path))) for role, path in files.items()}
    found = {_name(path): readings[role] for role, path in files.items()}
    fresh = {name: reading for name, reading in found.items() if reading != known.get(name)}
    if store is not None and fresh:
        remember(store, fresh)
    _promised.set(found)
    return {role: reading.sha256 for role, reading in readings.items()}


@contextmanager
def unchanged(files: Iterable[Path]) -> Iterator[None]:
    """Make sure that what is read in the body is what the key of the stage was computed from.

    Raises:
        SourceUnreadable: a file has changed since its digest was taken, or while the body ran.
    """
    before, promised = {path: _status(path) for path in files}, _promised.get()
    yield
    for path, status in before.items():
        after, reading = _status(path), promised.get(_name(path))
        if not after.is_as_written(status):
            raise _changed(path)
        # What was read within a tick of its last write may have been written again: hash it once more.
        if reading is not None and not reading.holds_for(after) and _read(path).sha256 != reading.sha256:
            raise _changed(path)


def remembered(store: Store) -> dict[str, Reading]:
    """The register of readings, by path; empty where it is damaged or absent."""
    path = store.root / REGISTER
    try:
        return _READINGS.validate_python(read_small(path, max_bytes=_MAX_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s is damaged; sources are read again: %s", REGISTER, " ".join(str(error).split()))
        return {}


def remember(store: Store, fresh: Mapping[str, Reading]) -> None:
    """Add readings to the register; the oldest give way. A store that takes none costs time, not the run."""
    settled = {name: reading for name, reading in fresh.items() if reading.holds_for(reading.status)}
    before = remembered(store)
    readings = {name: reading for name, reading in before.items() if name not in fresh} | settled
    if readings == before:
        return
    newest = sorted(readings, key=lambda name: readings[name].taken_ns)[-MAX_ENTRIES:]
    try:
        write_small(store, store.root / REGISTER, {name: readings[name].model_dump() for name in newest})
    except (OSError, ValueError, StoreFull) as error:
        logger.warning("%s was not written: %s", REGISTER, error)


def _reading(path: Path, known: Reading | None) -> Reading:
    if known is not None and known.holds_for(_status(path)):
        return known
    return _read(path)


def _read(path: Path) -> Reading:
    """Hash a file; its status before and after must be the same."""
    taken_ns = time.time_ns()
    try:
        with path.open("rb") as file:
            before = _of(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceUnreadable(f"{path}: {error.strerror or error}") from None
    if not _status(path).is_as_written(before):
        raise _changed(path)
    return Reading(status=before, sha256=digest, taken_ns=taken_ns)


def _status(path: Path) -> Status:
    try:
        return _of(path.stat())
    except OSError as error:
        raise SourceUnreadable(f"{path}: {error.strerror or error}") from None


def _of(status: os.stat_result) -> Status:
    return Status(
        size=status.st_size, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns, inode=status.st_ino
    )


def _name(path: Path) -> str:
    return str(path.resolve())


def _changed(path: Path) -> SourceUnreadable:
    return SourceUnreadable(f"{path} changed while it was read; run again once it is complete")
