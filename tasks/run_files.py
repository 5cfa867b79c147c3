"""Where the register of runs lies: the files of a series, in the store's folder."""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tasks.sealed import MAX_BYTES
from tasks.small_files import read_small, sync_folder, write_small
from tasks.store import Store

SERIES = r"[a-z0-9][a-z0-9_-]{0,63}"
RUN = r"[0-9]{8}T[0-9]{9}Z-[0-9a-f]{6}"
_FOLDER, _LOCK = ".runs", ".lock"
_QUARANTINED = re.compile(rf"(?P<series>{SERIES})-(?P<run>{RUN})\.json-[0-9a-f]{{8}}")


class Quarantined(NamedTuple):
    """An entry of the register in the quarantine: what it was, and the files it is now, its note last."""

    series: str
    run: str
    files: tuple[str, str]


class RunFiles:
    """The files of the register, ``SERIES/NAME.json``: small, sealed, replaced by one rename.

    Args:
        store: the store they are of.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.root / _FOLDER

    def series(self) -> list[str]:
        """The names of all series."""
        if not self.folder.is_dir():
            return []
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if re.fullmatch(SERIES, path.name) and path.is_dir() and not path.is_symlink()
        )

    def runs(self, series: str) -> list[str]:
        """The names of a series' entries, oldest first."""
        return sorted(path.stem for path in (self.folder / series).glob("[0-9]*.json"))

    def read(self, series: str, name: str) -> Any:
        """What a file holds.

        Raises:
            OSError: it is not there (FileNotFoundError) or cannot be read.
            ValueError: it does not hold what was written.
        """
        return read_small(self.folder / series / f"{name}.json", max_bytes=MAX_BYTES)

    def exists(self, series: str, name: str) -> bool:
        """Whether there is such a file, damaged or not."""
        return os.path.lexists(self.folder / series / f"{name}.json")

    def write(self, series: str, name: str, body: Any) -> None:
        """Write a file, over whatever is there.

        Raises:
            StoreFull: there is no room.
        """
        write_small(self.store, self.folder / series / f"{name}.json", body)

    def delete(self, series: str, names: Iterable[str]) -> None:
        """Delete files, those that are there."""
        for name in names:
            (self.folder / series / f"{name}.json").unlink(missing_ok=True)
        sync_folder(self.folder / series)

    def quarantine(self, series: str, name: str, reason: str) -> None:
        """Move a damaged file out of the way."""
        self.store.quarantine(self.folder / series / f"{name}.json", reason)

    def quarantined(self) -> list[Quarantined]:
        """The entries that lie in the quarantine."""
        names = sorted(path.name for path in (self.store.root / ".quarantine").iterdir())
        matches = [match for name in names if (match := _QUARANTINED.fullmatch(name))]
        return [Quarantined(m["series"], m["run"], (m[0], f"{m[0]}.json")) for m in matches]

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One process of this machine at a time changes entries."""
        self.folder.mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
