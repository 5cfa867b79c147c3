"""The register of runs: what a schedule has made, night by night, and which of it was last good.

Layout below `STORE/.runs`: `SERIES/RUN.json`, one small file an entry, and `SERIES/last-good.json`, the
pointer to the last good run of the series. Every file carries a checksum, appears or is replaced by one
rename, and is data only. Runs that are pinned, and the last good run of each series, are roots of
garbage collection: their artifacts, and all that these were made from, stay.
"""

import fcntl
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tasks.artifact import Artifact
from tasks.errors import UnknownArtifact
from tasks.small_files import read_small, sync_folder, write_small
from tasks.store import Store

logger = logging.getLogger(__name__)

KEPT_RUNS = 365
_POINTER = "last-good.json"
_LOCK = ".lock"
_MAX_BYTES = 16 << 20
_SERIES = r"[a-z0-9][a-z0-9_-]{0,63}"
_RUN = r"[0-9]{8}T[0-9]{9}Z-[0-9a-f]{6}"

SeriesName = Annotated[str, StringConstraints(pattern=rf"^{_SERIES}$")]
RunId = Annotated[str, StringConstraints(pattern=rf"^{_RUN}$")]
_StageName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
_Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class UnknownRun(UnknownArtifact):
    """No run of the store has this id, or more than one begins with it, or the series has no good run."""


def new_run_id(now: datetime | None = None) -> str:
    """An id that sorts by time: UTC to the millisecond, and six hexadecimal digits against collisions."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z-{uuid.uuid4().hex[:6]}"


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class RunEntry(BaseModel):
    """One run of a series, as the register keeps it.

    Attributes:
        series: the series it belongs to: ``nightly``.
        run: its id, which sorts by time; given where none is named.
        finished: when it ended, ISO 8601 in UTC.
        config: its whole configuration.
        preset: name of the preset the configuration rests on.
        seed: its seed.
        keys: key of every stage it ran or took from the store, by stage.
        artifacts: handles of its artifacts, by kind.
        metrics: rows of its metrics table; NaN is kept as null.
        good: whether it passed whatever its flow asks of a run.
        reason: why it is not good.
        pinned: whether it is kept until it is unpinned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    series: SeriesName
    run: RunId = Field(default_factory=new_run_id)
    finished: str = Field(default_factory=_utc_now)
    config: dict[str, Any]
    preset: str | None
    seed: int
    keys: dict[_StageName, _Key]
    artifacts: dict[str, Artifact]
    metrics: list[dict[str, Any]]
    good: bool
    reason: str | None
    pinned: bool = False


class Runs:
    """The register of runs of a store; any number of processes may use it at once.

    Args:
        store: the store the runs were made in.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.root / ".runs"

    def record(self, entry: RunEntry) -> RunEntry:
        """Add a run; returns it as it will be read again.

        Raises:
            ValueError: another run has this id, or a name is not what names must be.
            StoreFull: there is no room.
        """
        kept = _as_written(entry)
        path = self._path(kept.series, kept.run)
        with self._exclusive():
            if os.path.lexists(path) and _load(path) != kept:
                raise ValueError(f"series {kept.series} has another run {kept.run}")
            self._write(kept)
        return kept

    def entries(self, series: str | None = None) -> list[RunEntry]:
        """The runs of a series, or of all, oldest first; a file that is damaged is skipped with a warning.

        Raises:
            ValueError: no series can have this name.
        """
        found: list[RunEntry] = []
        for name in self.series() if series is None else [_checked(series)]:
            for path in sorted((self.folder / name).glob("[0-9]*.json")):
                try:
                    found.append(_load(path))
                except FileNotFoundError:  # forgotten meanwhile
                    continue
                except (OSError, ValueError) as error:
                    logger.warning("run %s/%s skipped: %s", name, path.name, _one_line(error))
        return sorted(found, key=lambda entry: (entry.run, entry.series))

    def series(self) -> list[str]:
        """The names of all series."""
        if not self.folder.is_dir():
            return []
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if re.fullmatch(_SERIES, path.name) and path.is_dir() and not path.is_symlink()
        )

    def verify(self, *, quarantine: bool = True) -> list[str]:
        """What is wrong with entries and pointers of the register; damaged ones are quarantined."""
        damaged = []
        for name in self.series():
            for path in sorted((self.folder / name).glob("[0-9]*.json")):
                if reason := _damage(path, _load):
                    damaged.append(f"run {name}/{path.stem}: {reason}")
                    if quarantine:
                        self.store.quarantine(path, damaged[-1])
            if reason := _damage(self.folder / name / _POINTER, self._named):
                damaged.append(f"last good run of {name}: {reason}")
                if quarantine:  # it is looked up among the entries until a good run comes
                    self.store.quarantine(self.folder / name / _POINTER, damaged[-1])
        return damaged

    def last_good(self, series: str) -> RunEntry | None:
        """The run the series' pointer names; where that is damaged or gone, the newest good run.

        Raises:
            ValueError: no series can have this name.
        """
        pointer = self.folder / _checked(series) / _POINTER
        try:
            entry = self._named(pointer)
            if entry.good:
                return entry
        except (OSError, ValueError, TypeError, KeyError) as error:
            if os.path.lexists(pointer):
                logger.warning("series %s: its last good run is looked up: %s", series, _one_line(error))
        return next((entry for entry in reversed(self.entries(series)) if entry.good), None)

    def advance(self, entry: RunEntry) -> None:
        """Make this run the last good one of its series.

        Raises:
            ValueError: it is not good.
            UnknownRun: it has not been recorded.
        """
        if not entry.good:
            raise ValueError(f"run {entry.run} is not good: {entry.reason}")
        with self._exclusive():
            if not self._path(entry.series, entry.run).is_file():
                raise UnknownRun(f"series {entry.series} has no run {entry.run}")
            write_small(self.store, self.folder / entry.series / _POINTER, {"run": entry.run})

    def accept(self, run: str) -> RunEntry:
        """Make a run the last good one of its series, also one that was recorded as not good.

        Raises:
            UnknownRun: as `find`.
        """
        with self._exclusive():
            entry = self.find(run)
            if not entry.good:
                entry = entry.model_copy(update={"good": True, "reason": f"accepted by hand: {entry.reason}"})
                self._write(entry)
        self.advance(entry)
        return entry

    def find(self, prefix_or_series: str) -> RunEntry:
        """The run whose id begins with this; the name of a series stands for its last good run.

        Raises:
            UnknownRun: there is none, or more than one.
        """
        if prefix_or_series in self.series():
            good = self.last_good(prefix_or_series)
            if good is None:
                raise UnknownRun(f"series {prefix_or_series} has no good run yet")
            return good
        found = [e for e in self.entries() if prefix_or_series and e.run.startswith(prefix_or_series)]
        if len(found) != 1:
            raise UnknownRun(
                f"{len(found)} runs have an id starting with {prefix_or_series!r}, and no series this name"
            )
        return found[0]

    def pin(self, run: str) -> RunEntry:
        """Keep a run, its artifacts and all they were made from until it is unpinned.

        Raises:
            UnknownRun: as `find`.
        """
        return self._set_pinned(run, pinned=True)

    def unpin(self, run: str) -> RunEntry:
        """Let a run go the way of the others.

        Raises:
            UnknownRun: as `find`.
        """
        return self._set_pinned(run, pinned=False)

    def roots(self) -> set[tuple[str, str]]:
        """(stage, key) of all that pinned runs and the last good run of each series consist of."""
        entries = [entry for entry in self.entries() if entry.pinned]
        entries += [good for name in self.series() if (good := self.last_good(name)) is not None]
        addresses = {address for entry in entries for address in entry.keys.items()}
        for entry in entries:
            for artifact in entry.artifacts.values():
                stage, _, rest = artifact.uri.partition("/")
                addresses.add((stage, rest.partition("/")[0]))
        return addresses

    def forget(self, series: str, *, keep: int = KEPT_RUNS, dry_run: bool = False) -> list[str]:
        """Drop the oldest entries beyond the newest `keep`; pinned ones and the last good one stay.

        Args:
            series: name of the series.
            keep: count of entries, 0 or more.
            dry_run: only say which would go.

        Returns:
            Their ids, oldest first.

        Raises:
            ValueError: `keep` is negative, or no series can have this name.
        """
        if keep < 0:
            raise ValueError(f"keep must be 0 or more runs; got {keep}")
        with self._exclusive():
            entries, good = self.entries(series), self.last_good(series)
            surplus = [
                entry.run
                for entry in entries[: max(len(entries) - keep, 0)]
                if not entry.pinned and (good is None or entry.run != good.run)
            ]
            if surplus and not dry_run:
                for run in surplus:
                    self._path(series, run).unlink(missing_ok=True)
                sync_folder(self.folder / series)
        return surplus

    def _set_pinned(self, run: str, *, pinned: bool) -> RunEntry:
        with self._exclusive():
            changed = self.find(run).model_copy(update={"pinned": pinned})
            self._write(changed)
        return changed

    def _write(self, entry: RunEntry) -> None:
        write_small(self.store, self._path(entry.series, entry.run), entry.model_dump(mode="json"))

    def _named(self, pointer: Path) -> RunEntry:
        """The entry that a series' pointer names."""
        run = str(read_small(pointer, max_bytes=_MAX_BYTES)["run"])
        return _load(self._path(pointer.parent.name, run))

    def _path(self, series: str, run: str) -> Path:
        if not re.fullmatch(_RUN, run):
            raise ValueError(f"{run!r} is not the id of a run")
        return self.folder / _checked(series) / f"{run}.json"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One process at a time changes entries: a pin must not be lost to a run that is forgotten."""
        self.folder.mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _as_written(entry: RunEntry) -> RunEntry:
    """The entry after a round trip through JSON, validated again: copies of models are not."""
    return RunEntry.model_validate_json(entry.model_dump_json())


def _load(path: Path) -> RunEntry:
    entry = RunEntry.model_validate(read_small(path, max_bytes=_MAX_BYTES))
    if (entry.series, f"{entry.run}.json") != (path.parent.name, path.name):
        raise ValueError("it belongs to another series or run")
    return entry


def _damage(path: Path, load: Callable[[Path], RunEntry]) -> str | None:
    """Why a file cannot be read; None where it can, or is not there."""
    try:
        load(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        return _one_line(error) if os.path.lexists(path) else None
    return None


def _checked(series: str) -> str:
    if not re.fullmatch(_SERIES, series):
        raise ValueError(
            f"{series!r} is not the name of a series: small letters, digits, - and _, at most 64"
        )
    return series


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
