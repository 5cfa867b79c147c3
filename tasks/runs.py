"""The register of runs: what a schedule has made, night by night, and which of it was last good.

Layout below `STORE/.runs`, or `runs/` of a bucket: `SERIES/RUN.json`, one small file an entry, and
`SERIES/last-good.json`, the pointer to the last good run of the series. Every file carries a checksum,
appears or is replaced as a whole, and is data only. Runs that are pinned, and the last good run of each
series, are roots of garbage collection: their artifacts, and all that these were made from, stay.
"""

import logging
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tasks.artifact import Artifact, refuse_newer
from tasks.errors import UnknownArtifact
from tasks.remote_store import RemoteStore
from tasks.run_files import RUN, SERIES, RunFiles
from tasks.store import Store

logger = logging.getLogger(__name__)

KEPT_RUNS = 365
FORMAT = 1
_POINTER = "last-good"

SeriesName = Annotated[str, StringConstraints(pattern=rf"^{SERIES}$")]
RunId = Annotated[str, StringConstraints(pattern=rf"^{RUN}$")]
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
        format: version of what an entry says. A change that older versions of gclflow would misread raises
            it; a field they may ignore does not, and stays where they write the entry again.
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

    model_config = ConfigDict(frozen=True, extra="allow")

    format: int = FORMAT
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

    @model_validator(mode="before")
    @classmethod
    def _refuse_newer(cls, data: Any) -> Any:
        refuse_newer(data, known=FORMAT, named=("series", "run"))
        return data


@dataclass(frozen=True)
class Roots:
    """What the register keeps from garbage collection.

    Attributes:
        addresses: (stage, key) of all that pinned runs and the last good run of each series consist of.
        unreadable: entries that may have been pinned or last good and cannot be read, one line each. While
            there is one, nobody knows what else is a root.
        evidence: names of the files in the quarantine that such entries are now.
    """

    addresses: frozenset[tuple[str, str]]
    unreadable: tuple[str, ...] = ()
    evidence: frozenset[str] = frozenset()


class Runs:
    """The register of runs of a store; any number of processes may use it at once.

    Args:
        store: the store the runs were made in.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.files = _files(store)
        self.folder = self.files.folder

    def record(self, entry: RunEntry) -> RunEntry:
        """Add a run; returns it as it will be read again.

        Raises:
            ValueError: another run has this id, or a name is not what names must be.
            StoreFull: there is no room.
        """
        kept = _as_written(entry)
        with self.files.exclusive():
            if self._exists(kept.series, kept.run) and self._load(kept.series, kept.run) != kept:
                raise ValueError(f"series {kept.series} has another run {kept.run}")
            self._write(kept)
        return kept

    def entries(self, series: str | None = None) -> list[RunEntry]:
        """The runs of a series, or of all, oldest first; a file that is damaged is skipped with a warning.

        Raises:
            ValueError: no series can have this name.
            NewerFormat: a newer gclflow has written one of them.
        """
        return self._survey(self.series() if series is None else [_checked(series)])[0]

    def series(self) -> list[str]:
        """The names of all series."""
        return self.files.series()

    def verify(self, *, quarantine: bool = True) -> list[str]:
        """What is wrong with entries and pointers of the register; damaged ones are quarantined.

        Raises:
            NewerFormat: a newer gclflow has written an entry, which says nothing about its bytes.
        """
        damaged = []
        for series in self.series():
            for name in [*self.files.runs(series), _POINTER]:
                if (reason := self._damage(series, name)) is None:
                    continue
                what = f"last good run of {series}" if name == _POINTER else f"run {series}/{name}"
                damaged.append(f"{what}: {reason}")
                if quarantine:  # without its pointer, the last good run is looked up among the entries
                    self.files.quarantine(series, name, damaged[-1])
        return damaged

    def last_good(self, series: str) -> RunEntry | None:
        """The run the series' pointer names; where that is damaged or gone, the newest good run.

        Raises:
            ValueError: no series can have this name.
        """
        _checked(series)
        try:
            entry = self._named(series)
            if entry.good:
                return entry
        except (OSError, ValueError, TypeError, KeyError) as error:
            if self.files.exists(series, _POINTER):
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
        with self.files.exclusive():
            if not self._exists(entry.series, entry.run):
                raise UnknownRun(f"series {entry.series} has no run {entry.run}")
            self.files.write(entry.series, _POINTER, {"run": entry.run})

    def accept(self, run: str) -> RunEntry:
        """Make a run the last good one of its series, also one that was recorded as not good.

        Raises:
            UnknownRun: as `find`.
        """
        with self.files.exclusive():
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

    def roots(self) -> Roots:
        """What pinned runs and the last good run of each series consist of, and what cannot be read.

        An entry in the quarantine counts as long as none that can be read has taken its place.
        """
        entries, unreadable = self._survey(self.series())
        readable = {(entry.series, entry.run) for entry in entries}
        moved = [found for found in self.files.quarantined() if (found.series, found.run) not in readable]
        unreadable += [
            f"run {found.series}/{found.run}: in the quarantine, {found.files[0]}" for found in moved
        ]
        kept = [entry for entry in entries if entry.pinned]
        for name in {entry.series for entry in entries}:
            kept += self._last_good_among([entry for entry in entries if entry.series == name], name)
        return Roots(
            frozenset(address for entry in kept for address in _addresses(entry)),
            tuple(unreadable),
            frozenset(file for found in moved for file in found.files),
        )

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
        with self.files.exclusive():
            entries, good = self.entries(series), self.last_good(series)
            surplus = [
                entry.run
                for entry in entries[: max(len(entries) - keep, 0)]
                if not entry.pinned and (good is None or entry.run != good.run)
            ]
            if surplus and not dry_run:
                self.files.delete(series, surplus)
        return surplus

    def _survey(self, series: list[str]) -> tuple[list[RunEntry], list[str]]:
        """The entries of some series, oldest first, and a line about each file that cannot be read."""
        found: list[RunEntry] = []
        unreadable: list[str] = []
        for name in series:
            for run in self.files.runs(name):
                try:
                    found.append(self._load(name, run))
                except FileNotFoundError:  # forgotten meanwhile
                    continue
                except (OSError, ValueError) as error:
                    logger.warning("run %s/%s skipped: %s", name, run, _one_line(error))
                    unreadable.append(f"run {name}/{run}: {_one_line(error)}")
        return sorted(found, key=lambda entry: (entry.run, entry.series)), unreadable

    def _last_good_among(self, entries: list[RunEntry], series: str) -> list[RunEntry]:
        """The run a series' pointer names; where nobody can tell which that was, every good one."""
        good = [entry for entry in entries if entry.good]
        try:
            pointed = self._pointed(series)
        except (OSError, ValueError, TypeError, KeyError):
            return good
        return [entry for entry in good if entry.run == pointed] or good

    def _set_pinned(self, run: str, *, pinned: bool) -> RunEntry:
        with self.files.exclusive():
            changed = self.find(run).model_copy(update={"pinned": pinned})
            self._write(changed)
        return changed

    def _write(self, entry: RunEntry) -> None:
        self.files.write(_checked(entry.series), _checked_run(entry.run), entry.model_dump(mode="json"))

    def _exists(self, series: str, run: str) -> bool:
        return self.files.exists(_checked(series), _checked_run(run))

    def _load(self, series: str, run: str) -> RunEntry:
        entry = RunEntry.model_validate(self.files.read(_checked(series), _checked_run(run)))
        if (entry.series, entry.run) != (series, run):
            raise ValueError("it belongs to another series or run")
        return entry

    def _named(self, series: str) -> RunEntry:
        """The entry that a series' pointer names."""
        return self._load(series, self._pointed(series))

    def _pointed(self, series: str) -> str:
        return str(self.files.read(series, _POINTER)["run"])

    def _damage(self, series: str, name: str) -> str | None:
        """Why a file cannot be read; None where it can, or is not there."""
        try:
            self._named(series) if name == _POINTER else self._load(series, name)
        except (OSError, ValueError, TypeError, KeyError) as error:
            return _one_line(error) if self.files.exists(series, name) else None
        return None


def _files(store: Store) -> RunFiles:
    if isinstance(store, RemoteStore):
        from tasks.remote_runs import RemoteRunFiles

        return RemoteRunFiles(store)
    return RunFiles(store)


def _addresses(entry: RunEntry) -> set[tuple[str, str]]:
    """(stage, key) of what a run consists of."""
    addresses = set(entry.keys.items())
    for artifact in entry.artifacts.values():
        stage, _, rest = artifact.uri.partition("/")
        addresses.add((stage, rest.partition("/")[0]))
    return addresses


def _as_written(entry: RunEntry) -> RunEntry:
    """The entry after a round trip through JSON, validated again: copies of models are not."""
    return RunEntry.model_validate_json(entry.model_dump_json())


def _checked(series: str) -> str:
    if not re.fullmatch(SERIES, series):
        raise ValueError(
            f"{series!r} is not the name of a series: small letters, digits, - and _, at most 64"
        )
    return series


def _checked_run(run: str) -> str:
    if not re.fullmatch(RUN, run):
        raise ValueError(f"{run!r} is not the id of a run")
    return run


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
