"""Keeping a store healthy: verify every byte, remove what nothing recent was made from."""

import time
from dataclasses import dataclass
from pathlib import Path

from tasks.artifact import MANIFEST, Manifest
from tasks.errors import ArtifactCorrupted
from tasks.store import Store

_SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True)
class Removed:
    """What garbage collection removed of one kind: how many paths, and their size in bytes."""

    kind: str
    num_paths: int
    num_bytes: int


@dataclass(frozen=True)
class Collected:
    """What garbage collection removed.

    Attributes:
        folders: paths relative to the store.
        num_bytes: what they took.
        kinds: the same, summed up by kind.
    """

    folders: tuple[str, ...]
    num_bytes: int
    kinds: tuple[Removed, ...] = ()


def verify_store(store: Store) -> list[str]:
    """Hash every file of every stage folder; quarantine the damaged ones and say what was wrong."""
    damaged = []
    for stage, key in list(store.folders()):
        try:
            store.verify(stage, key, full=True)
        except ArtifactCorrupted as error:
            store.quarantine(store.stage_folder(stage, key), str(error))
            damaged.append(str(error))
    return damaged


def collect_garbage(store: Store, *, keep_days: float, dry_run: bool = False) -> Collected:
    """Remove stage folders that no kept result was made from.

    Roots, always kept: folders published in the last `keep_days`, and the newest of each stage.
    Everything that roots were made from, by digest, is kept with them.

    Args:
        store: the store.
        keep_days: age in days below which a folder is a root; quarantine and scratch older than that go too.
        dry_run: only say what would go.
    """
    before = time.time() - keep_days * _SECONDS_A_DAY
    folders = {(m.stage, m.key): m for m in store.manifests()}
    ages = {address: _published(store, manifest) for address, manifest in folders.items()}
    newest = {stage: (stage, key) for stage, key in sorted(ages, key=lambda address: ages[address])}
    kept = _ancestry(folders, {a for a in folders if ages[a] >= before} | set(newest.values()))
    doomed = [store.stage_folder(*address) for address in folders if address not in kept]
    for name in (".quarantine", ".scratch"):
        doomed += [path for path in (store.root / name).iterdir() if path.stat().st_mtime < before]
    collected = Collected(
        tuple(sorted(path.relative_to(store.root).as_posix() for path in doomed)), sum(map(_size, doomed))
    )
    if not dry_run:
        for path in doomed:
            store.remove(path)
    return collected


def _published(store: Store, manifest: Manifest) -> float:
    return (store.stage_folder(manifest.stage, manifest.key) / MANIFEST).stat().st_mtime


def _ancestry(folders: dict[tuple[str, str], Manifest], roots: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Roots and all that they were made from, directly or not."""
    makers: dict[str, set[tuple[str, str]]] = {}
    for address, manifest in folders.items():
        for artifact in manifest.artifacts.values():
            makers.setdefault(artifact.digest, set()).add(address)
    kept: set[tuple[str, str]] = set()
    pending = list(roots)
    while pending:
        address = pending.pop()
        if address in kept:
            continue
        kept.add(address)
        for digest in folders[address].identity["inputs"].values():
            pending.extend(makers.get(digest, ()))
    return kept


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
