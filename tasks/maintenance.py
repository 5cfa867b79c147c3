"""Keeping a store healthy: verify every byte, remove what nothing recent was made from."""

import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tasks.ancestry import Address, makers_of, with_ancestry
from tasks.artifact import Manifest
from tasks.errors import ArtifactCorrupted, StoreUnusable
from tasks.in_use import (
    GRACE_SECONDS,
    inputs_in_use,
    is_anything_running,
    is_held,
    is_running,
    last_written,
    remove_lock,
)
from tasks.remote_maintenance import collect_unpublished, verify_published
from tasks.remote_store import RemoteStore, is_made
from tasks.runs import Roots, Runs
from tasks.store import MARKER, Store, local_path
from tasks.store_address import remote_address

_SECONDS_A_DAY = 86_400.0
_ADDRESS = re.compile(r"(?P<stage>[a-z][a-z0-9_]*)-(?P<key>[0-9a-f]{64})")
_FOLDERS, _QUARANTINED, _UNFINISHED = "stage folders", "quarantined items", "folders of unfinished work"
_RECORDS, _LOCKS, _LOGS = "records of results that are gone", "lock files", "server logs"


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
        blocked: why no stage folder was removed, a line for each entry of the register that cannot be read.
    """

    folders: tuple[str, ...]
    num_bytes: int
    kinds: tuple[Removed, ...] = ()
    blocked: tuple[str, ...] = ()


def open_store(root: Path | str) -> Store:
    """A store that exists: looking after one must not make one.

    Raises:
        StoreUnusable: there is none at this place, or it cannot be used.
    """
    # os.path, since pathlib raises for a name that is too long to exist
    is_local = remote_address(root) is None
    if not (os.path.isfile(local_path(root) / MARKER) if is_local else is_made(root)):  # noqa: PTH113
        raise StoreUnusable(f"there is no store at {root}")
    return Store(root)


def verify_store(store: Store, *, quarantine: bool = True) -> list[str]:
    """Hash every file of every stage folder, and read every entry of the register of runs.

    Of a store in a bucket, both every file of the cache and, streamed, every file of the bucket.

    Args:
        store: the store.
        quarantine: move what is damaged out of the way; or only say what it is.

    Returns:
        What is damaged, and how, one line each.

    Raises:
        NewerFormat: a newer gclflow has written something of it; nothing was moved.
    """
    _refuse_newer(store)
    damaged = []
    for stage, key in list(store.folders_here()):
        try:
            store.verify(stage, key, full=True)
        except ArtifactCorrupted as error:
            if not os.path.lexists(store.stage_folder(stage, key)):  # collected or replaced meanwhile
                continue
            if quarantine:
                store.quarantine(store.stage_folder(stage, key), str(error))
            damaged.append(str(error))
    if isinstance(store, RemoteStore):
        damaged += verify_published(store, quarantine=quarantine)
    return damaged + Runs(store).verify(quarantine=quarantine)


def collect_garbage(store: Store, *, keep_days: float, dry_run: bool = False) -> Collected:
    """Remove stage folders that no kept result was made from, and what else has served its time.

    Roots, always kept: folders published in the last `keep_days`, the newest of each stage, pinned runs, the
    last good run of each series, and the inputs of stages that are running. Everything that roots were made
    from, by digest, is kept with them. While anything runs, what was published in the last hour is a root
    too, since the stages to come of that run will open it.

    Work under way is never touched: a stage whose lock is held or which is being written, and unfinished
    work of which anything was written in the last hour. The register of runs is left alone.

    Entries of the register that cannot be read, there or in the quarantine, may be of pinned runs. While
    there are any, no stage folder goes, nor those entries.

    What other machines are doing with a store in a bucket cannot be seen: there, what was published in the
    last hour is a root always, and unpublished uploads stay for a day.

    Args:
        store: the store.
        keep_days: age in days below which a folder is a root; quarantine, unfinished work, records of results
            that are gone, locks and server logs older than that go too.
        dry_run: only say what would go.

    Raises:
        ValueError: `keep_days` is not a number of days, 0 or more.
        NewerFormat: a newer gclflow has written something of the store; nothing was removed.
    """
    if not keep_days >= 0:  # nor nan, which is older than nothing
        raise ValueError(f"keep_days must be 0 days or more; got {keep_days}")
    before = time.time() - keep_days * _SECONDS_A_DAY
    roots = Runs(store).roots()
    gone: list[tuple[str, str, int]] = []
    for kind, path in list(_doomed(store, before, roots)):
        try:
            size = store.num_bytes(path)
            if dry_run or _remove(store, kind, path):
                gone.append((kind, path.relative_to(store.root).as_posix(), size))
        except FileNotFoundError:  # its owner, or another collection, was faster
            continue
    if isinstance(store, RemoteStore):
        gone += collect_unpublished(store, before=before, roots=roots, dry_run=dry_run)
    return Collected(
        tuple(sorted(name for _, name, _ in gone)),
        sum(size for _, _, size in gone),
        tuple(_summed(kind, gone) for kind in dict.fromkeys(kind for kind, _, _ in gone)),
        roots.unreadable,
    )


def _refuse_newer(store: Store) -> None:
    """Read all that says its format, before anything is moved."""
    Runs(store).entries()
    for _ in chain(store.manifests(), Store.manifests(store)):
        pass


def _doomed(store: Store, before: float, roots: Roots) -> Iterator[tuple[str, Path]]:
    """Kind and path of all that is to go."""
    folders = {(m.stage, m.key): m for m in store.manifests()}
    kept = with_ancestry(folders, _roots(store, folders, before) | roots.addresses)
    unkept = set() if roots.unreadable else folders.keys() - kept
    for address in sorted(unkept):
        yield _FOLDERS, store.stage_folder(*address)
    for path in sorted((store.root / ".quarantine").iterdir()):
        if path.name not in roots.evidence and _written_at(path) < before:
            yield _QUARANTINED, path
    written_before = min(before, time.time() - GRACE_SECONDS)
    for path in sorted((store.root / ".scratch").iterdir()):
        if _written_at(path, inside=True) < written_before and not _is_worked_on(store, path.name):
            yield _UNFINISHED, path
    for path in sorted((store.root / ".results").iterdir()):
        if _is_stale_record(store, path, unkept, before):
            yield _RECORDS, path
    yield from _locks_and_logs(store, before, written_before)


def _locks_and_logs(store: Store, before: float, written_before: float) -> Iterator[tuple[str, Path]]:
    for path in sorted((store.root / ".locks").iterdir()):
        if _written_at(path) < written_before and not is_held(path):
            yield _LOCKS, path
    for path in sorted((store.root / ".server").glob("*.log*")):
        is_open = path.suffix == ".log" and is_held(store.root / ".server" / "lock")
        if _written_at(path) < before and not is_open:
            yield _LOGS, path


def _roots(store: Store, folders: dict[Address, Manifest], before: float) -> set[Address]:
    times = {address: store.published_at(manifest) for address, manifest in folders.items()}
    ages = {address: age for address, age in times.items() if age is not None}
    newest = {stage: (stage, key) for stage, key in sorted(ages, key=lambda address: ages[address])}
    if store.is_shared or is_anything_running(store):
        before = min(before, time.time() - GRACE_SECONDS)
    # What has vanished since it was listed is being replaced, or collected by another process.
    recent = {address for address in folders if ages.get(address, math.inf) >= before}
    in_use = {a for digest in inputs_in_use(store) for a in makers_of(folders).get(digest, ())}
    return recent | set(newest.values()) | in_use


def _written_at(path: Path, *, inside: bool = False) -> float:
    """When a path was last written, or anything inside of it; never long ago for one that has vanished."""
    try:
        return last_written(path) if inside else path.lstat().st_mtime
    except FileNotFoundError:  # another collection, or its owner, was faster
        return math.inf


def _is_worked_on(store: Store, name: str) -> bool:
    match = _ADDRESS.fullmatch(name)
    return match is not None and is_running(store, match["stage"], match["key"])


def _is_stale_record(store: Store, path: Path, unkept: set[Address], before: float) -> bool:
    match = _ADDRESS.fullmatch(path.name)
    if match is None:
        return False
    address = (match["stage"], match["key"])
    is_gone = not store.stage_folder(*address).exists()
    return address in unkept or (is_gone and _written_at(path) < before)


def _remove(store: Store, kind: str, path: Path) -> bool:
    if kind == _LOCKS:
        return remove_lock(path)
    if kind == _UNFINISHED and _is_worked_on(store, path.name):  # resumed since it was listed
        return False
    store.remove(path)
    return True


def _summed(kind: str, gone: list[tuple[str, str, int]]) -> Removed:
    sizes = [size for found, _, size in gone if found == kind]
    return Removed(kind, len(sizes), sum(sizes))
