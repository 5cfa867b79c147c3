"""Keeping a store in a bucket healthy: verify what is published, remove what was uploaded and never was."""

import logging
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from tasks.ancestry import Address, with_ancestry
from tasks.artifact import MANIFEST
from tasks.errors import ArtifactCorrupted
from tasks.in_use import GRACE_SECONDS, is_anything_running
from tasks.remote import AT_ONCE, DATA, QUARANTINE, Listed, data_prefix
from tasks.remote_store import RemoteStore
from tasks.runs import Roots
from tasks.sealed import unseal
from tasks.store import Store

logger = logging.getLogger(__name__)

UPLOAD_SECONDS = 86_400.0
"""How long an upload may go on without any file of it appearing before it counts as given up."""
_FILE = re.compile(rf"(?P<attempt>{DATA}/[^/]+/[^/]+/[^/]+/).+")
_UPLOADS, _NOTES = "uploads that are not published", "items of the bucket's quarantine"
_COPIES = "copies of results that are gone"

Gone = tuple[str, str, int]
"""Kind, name and bytes of what was removed."""


def verify_published(store: RemoteStore, *, quarantine: bool) -> list[str]:
    """Stream every file of the bucket and compare it with its manifest.

    Args:
        store: the store.
        quarantine: take what is damaged out of use; or only say what it is.

    Returns:
        What is damaged, and how, one line each.
    """
    damaged = []
    for stage, key in list(store.publications.addresses()):
        try:
            store.publications.verify(stage, key, quarantine=quarantine)
        except ArtifactCorrupted as error:
            damaged.append(str(error))
    return damaged


def collect_unpublished(store: RemoteStore, *, before: float, roots: Roots, dry_run: bool) -> list[Gone]:
    """Remove uploads that no publication names, old quarantine, and cached copies of what the bucket lacks.

    An upload is left alone for a day after its last file: another machine may be at it. What the quarantine
    speaks of stays as long as the note does.

    Args:
        store: the store.
        before: time (seconds since 1970) before which quarantine and copies are old.
        roots: what the register of runs keeps; while entries of it cannot be read, no copy goes.
        dry_run: only say what would go.
    """
    given_up = time.time() - UPLOAD_SECONDS
    uploads = _by_attempt(store.remote.list(f"{DATA}/"))  # before the publications: of those, none is missed
    notes = [note for note in store.remote.list(f"{QUARANTINE}/") if note.name not in roots.evidence]
    old = [note for note in notes if note.modified < before]
    named = {
        data_prefix(found.manifest.stage, found.manifest.key, found.publication.attempt)
        for found in store.publications.all()
    } | _attempts_of(store, [note for note in notes if note.modified >= before])
    doomed = {
        attempt: files
        for attempt, files in uploads.items()
        if attempt not in named and max(file.modified for file in files) < given_up
    }
    if not dry_run:
        store.remote.delete([file.name for files in doomed.values() for file in files])
        store.remote.delete([note.name for note in old])
        if num_aborted := store.remote.abort_uploads(given_up):
            logger.info("gave up %d unfinished uploads of large files", num_aborted)
    return [
        *(
            (_UPLOADS, attempt.rstrip("/"), sum(file.num_bytes for file in files))
            for attempt, files in doomed.items()
        ),
        *((_NOTES, note.name, note.num_bytes) for note in old),
        *_collect_copies(store, roots, before=min(before, time.time() - GRACE_SECONDS), dry_run=dry_run),
    ]


def _by_attempt(listed: Iterable[Listed]) -> dict[str, list[Listed]]:
    """The files of every attempt at publishing, by what their names begin with."""
    files: dict[str, list[Listed]] = {}
    for found in listed:
        if match := _FILE.fullmatch(found.name):
            files.setdefault(match["attempt"], []).append(found)
    return files


def _attempts_of(store: RemoteStore, notes: Iterable[Listed]) -> set[str]:
    """The attempts that notes of the quarantine speak of."""
    attempts = set()
    names = [note.name for note in notes if note.name.endswith(".json")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        read = list(pool.map(store.remote.read, names))
    for stored in read:
        try:
            body = unseal(b"" if stored is None else stored.data)
            attempts.add(data_prefix(body["stage"], body["key"], body["attempt"]))
        except (ValueError, TypeError, KeyError):  # of a run, or gone, or damaged itself
            continue
    return attempts


def _collect_copies(store: RemoteStore, roots: Roots, *, before: float, dry_run: bool) -> list[Gone]:
    """Remove what the cache has and the bucket no longer: collected from another machine, or damaged there.

    What was never uploaded stays, and so does what runs to be kept consist of: this may be the last copy.
    """
    if is_anything_running(store) or roots.unreadable:  # here, on such a copy perhaps; or nobody knows
        return []
    gone, published = [], set(store.publications.addresses())
    here = list(store.folders_here())
    if not dry_run:  # a machine that died after publishing has not noted it
        for address in published.intersection(here):
            store.mark_uploaded(*address)
    doomed = [address for address in here if address not in published and store.is_uploaded(*address)]
    kept = _of_kept_runs(store, roots) if doomed else set()
    for address in doomed:
        path = store.stage_folder(*address)
        try:
            if address in kept or (path / MANIFEST).stat().st_mtime >= before:
                continue
            num_bytes = store.num_bytes(path)
            if not dry_run:
                store.remove(path)
        except FileNotFoundError:  # removed meanwhile, or damaged, which verification looks after
            continue
        gone.append((_COPIES, path.relative_to(store.root).as_posix(), num_bytes))
    return gone


def _of_kept_runs(store: RemoteStore, roots: Roots) -> set[Address]:
    """What pinned and last good runs consist of and were made from, as far as it is here or in the bucket."""
    manifests = chain(store.manifests(), Store.manifests(store))
    return with_ancestry({(m.stage, m.key): m for m in manifests}, roots.addresses)
