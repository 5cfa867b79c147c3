"""Work: what a stage's body sees. Input folders (verified), output folders, facts for the contracts."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gcl.workspace import Workspace
from tasks.artifact import METADATA, VOLATILE, Artifact, canonical_json
from tasks.progress import Progress, report
from tasks.store import Store

logger = logging.getLogger(__name__)

INPUTS = "inputs.json"


class Work:
    """One execution of a stage.

    Args:
        stage: stage name.
        key: cache key.
        store: where inputs are read from.
        folder: where outputs are written; becomes the stage folder when it is published.
        inputs: input artifacts by kind.
        facts: what joins the key beside configuration and inputs: ``seed``, ``device``, ...
        memory_limit: bytes of memory it may take; None: what there is.
    """

    def __init__(
        self,
        *,
        stage: str,
        key: str,
        store: Store,
        folder: Path,
        inputs: Mapping[str, Artifact],
        facts: Mapping[str, Any],
        memory_limit: int | None = None,
    ) -> None:
        self.stage, self.key, self.folder, self.inputs, self.facts = (
            stage,
            key,
            folder,
            dict(inputs),
            dict(facts),
        )
        self.memory_limit = memory_limit
        self.expectations: dict[str, dict[str, Any]] = {}
        self._store = store
        self._current: dict[str, Path] = {}
        # For garbage collection in another process: what is being read now must stay.
        opened = {kind: artifact.digest for kind, artifact in self.inputs.items()}
        self.volatile(INPUTS).write_bytes(canonical_json(opened))

    @property
    def seed(self) -> int:
        """The run's seed, for stages that draw random numbers."""
        return int(self.facts.get("seed", 0))

    @property
    def device(self) -> str:
        """The resolved device: ``cpu`` or ``cuda``."""
        return str(self.facts.get("device", "cpu"))

    def input(self, kind: str) -> Path:
        """The folder of an input artifact, every byte of it verified, its tables of the current version.

        Where a table was written under an older version of its contract, the folder is one of links in
        this stage's scratch, with that table migrated.

        Raises:
            ArtifactCorrupted: it is gone or damaged.
            ContractIncompatible: a table has a version that no migration leads from.
        """
        folder = self._store.open(self.inputs[kind])
        if kind not in self._current:
            self._current[kind] = self._migrated(kind, folder)
        return self._current[kind]

    def _migrated(self, kind: str, folder: Path) -> Path:
        from data_contracts.migrations import migrations_to_current, open_as_current
        from data_contracts.reading import read_schema
        from data_contracts.tables import TABLES

        tables = {path: f"{kind}.{path.stem}" for path in sorted(folder.glob("*.parquet"))}
        older = {
            path: table
            for path, table in tables.items()
            if table in TABLES and migrations_to_current(read_schema(path, table), table)
        }
        if not older:
            return folder
        # By digest: what an earlier attempt has migrated serves again, for the same bytes only.
        target = self.scratch() / "migrated" / f"{kind}-{self.inputs[kind].digest[:16]}"
        for path, table in older.items():
            logger.info("%s was written under an older version of its contract and is migrated", table)
            open_as_current(path, table, scratch=target)
        for path in folder.iterdir():
            link = target / path.name
            if not link.exists():
                link.unlink(missing_ok=True)  # of a store that has been moved
                link.symlink_to(path)
        return target

    def metadata(self, kind: str) -> dict[str, Any]:
        """What the stage that made an input wrote about it with `describe`."""
        return read_metadata(self.input(kind))

    def output(self, kind: str) -> Path:
        """The folder to write an output artifact into."""
        folder = self.folder / kind
        folder.mkdir(exist_ok=True)
        return folder

    def describe(self, kind: str, metadata: Mapping[str, Any]) -> None:
        """Write facts about an output beside its tables; they are data, and part of its digest."""
        (self.output(kind) / METADATA).write_bytes(canonical_json(dict(metadata)) + b"\n")

    def volatile(self, name: str) -> Path:
        """Where to write what may change from run to run, outside every digest."""
        folder = self.folder / VOLATILE
        folder.mkdir(exist_ok=True)
        return folder / name

    def scratch(self) -> Path:
        """A folder for unfinished work under this key; survives a crash, removed on publication."""
        return self._store.scratch(self.stage, self.key)

    def workspace(self) -> Workspace:
        """Where this execution puts large arrays: unnamed files, so attempts at one key share nothing."""
        return Workspace(self.scratch())

    def expect(self, table: str, **facts: Any) -> None:
        """Facts about an output table that its contract is checked against: ``num_nodes=2708``."""
        self.expectations.setdefault(table, {}).update(facts)

    def progress(self, done: int, total: int, detail: str = "") -> None:
        """Report how far the stage is."""
        report(Progress(self.stage, done, total, detail))


def read_metadata(folder: Path) -> dict[str, Any]:
    """What `Work.describe` wrote about an artifact; empty where it wrote nothing."""
    path = folder / METADATA
    return dict(json.loads(path.read_bytes())) if path.exists() else {}
