"""The register of runs of a store on an object store: its files are objects, read and written there."""

import re
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tasks.remote import AT_ONCE, QUARANTINE, RUNS, Stored
from tasks.remote_store import RemoteStore
from tasks.run_files import RUN, SERIES, Quarantined, RunFiles
from tasks.sealed import MAX_BYTES, seal, unseal

_OBJECT = re.compile(rf"{RUNS}/(?P<series>{SERIES})/(?P<name>[A-Za-z0-9_-]+)\.json")
_QUARANTINED = re.compile(
    rf"(?P<note>{QUARANTINE}/runs-(?P<series>{SERIES})-(?P<run>{RUN})-[0-9a-f]{{8}})\.damaged"
)


class RemoteRunFiles(RunFiles):
    """The files of the register as objects; nothing of them is kept in the cache.

    Each object is written whole, and of two machines that write the same one, the later counts. `exclusive`
    holds among the processes of one machine.
    """

    def __init__(self, store: RemoteStore) -> None:
        super().__init__(store)
        self.remote = store.remote
        self._fetched: dict[str, Stored | None] = {}

    def series(self) -> list[str]:
        """See `RunFiles`."""
        return sorted({series for series, _ in self._names("")})

    def runs(self, series: str) -> list[str]:
        """See `RunFiles`. Whoever asks for the names reads the entries next: they are fetched together."""
        names = sorted(name for _, name in self._names(f"{series}/") if name[0].isdigit())
        objects = [_object(series, name) for name in names]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self._fetched = dict(zip(objects, pool.map(self.remote.read, objects), strict=True))
        return names

    def read(self, series: str, name: str) -> Any:
        """See `RunFiles`. What was fetched counts once; the next reading is a new one."""
        wanted = _object(series, name)
        stored = self._fetched.pop(wanted) if wanted in self._fetched else self.remote.read(wanted)
        if stored is None:
            raise FileNotFoundError(f"{series}/{name}")
        return unseal(stored.data)

    def exists(self, series: str, name: str) -> bool:
        """See `RunFiles`."""
        return self.remote.read(_object(series, name)) is not None

    def write(self, series: str, name: str, body: Any) -> None:
        """See `RunFiles`."""
        data = seal(body)
        if len(data) > MAX_BYTES:
            raise ValueError(f"run {series}/{name} takes more than {MAX_BYTES:,} bytes")
        self.remote.put(_object(series, name), data)

    def delete(self, series: str, names: Iterable[str]) -> None:
        """See `RunFiles`."""
        self.remote.delete(_object(series, name) for name in names)

    def quarantine(self, series: str, name: str, reason: str) -> None:
        """Move a damaged object to the quarantine, with a note beside it that says why."""
        stored = self.remote.read(_object(series, name))
        if stored is None:  # another was faster
            return
        kept = f"{QUARANTINE}/runs-{series}-{name}-{uuid.uuid4().hex[:8]}"
        self.remote.put(f"{kept}.damaged", stored.data)
        self.remote.put(f"{kept}.json", seal({"run": f"{series}/{name}", "reason": reason}))
        self.delete(series, [name])

    def quarantined(self) -> list[Quarantined]:
        """See `RunFiles`."""
        listed = self.remote.list(f"{QUARANTINE}/runs-")
        matches = [match for found in listed if (match := _QUARANTINED.fullmatch(found.name))]
        return [Quarantined(m["series"], m["run"], (m[0], f"{m['note']}.json")) for m in matches]

    def _names(self, prefix: str) -> list[tuple[str, str]]:
        matches = (_OBJECT.fullmatch(found.name) for found in self.remote.list(f"{RUNS}/{prefix}"))
        return [(match["series"], match["name"]) for match in matches if match]


def _object(series: str, name: str) -> str:
    return f"{RUNS}/{series}/{name}.json"
