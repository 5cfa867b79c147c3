"""What is published in a bucket: looked up, uploaded, fetched and verified, withdrawn."""

import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from data_contracts.errors import one_line
from tasks.artifact import FORMAT, FileEntry, Manifest
from tasks.errors import ArtifactCorrupted, NewerFormat, StoreUnusable
from tasks.remote import (
    AT_ONCE,
    MANIFESTS,
    QUARANTINE,
    Publication,
    Remote,
    TransferCorrupted,
    data_prefix,
    manifest_name,
    new_attempt,
)
from tasks.sealed import seal, unseal

logger = logging.getLogger(__name__)

MARKER = "store.json"
LARGE_BYTES = 8 << 20
"""Files from this size on are transferred one after another."""
_MAX_FETCHES = 3
"""Of a file whose bytes do not match the checksum they were sent with."""
_PROBE = f"{QUARANTINE}/probe-"  # what a machine that dies leaves of one goes with the old quarantine
_MANIFEST = re.compile(rf"{MANIFESTS}/(?P<stage>[a-z][a-z0-9_]*)/(?P<key>[0-9a-f]{{64}})\.json")


@dataclass(frozen=True)
class Published:
    """A publication as it lies in the bucket; `modified` in seconds since 1970, by the bucket's clock."""

    publication: Publication
    modified: float
    tag: str

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        return self.publication.manifest

    @property
    def name(self) -> str:
        """The object it is."""
        return manifest_name(self.manifest.stage, self.manifest.key)

    @property
    def num_bytes(self) -> int:
        """What its files take."""
        return sum(entry.num_bytes for entry in self.manifest.files.values())


class Publications:
    """The publications of a store in a bucket.

    Args:
        remote: the objects below the store's prefix.
    """

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self._known: dict[str, Published] = {}

    def addresses(self) -> Iterator[tuple[str, str]]:
        """(stage, key) of every publication, intact or not."""
        for found in self.remote.list(f"{MANIFESTS}/"):
            if match := _MANIFEST.fullmatch(found.name):
                yield match["stage"], match["key"]

    def all(self) -> Iterator[Published]:
        """Every publication that parses, by stage and key; read once as long as its tag stays."""
        listed = [found for found in self.remote.list(f"{MANIFESTS}/") if _MANIFEST.fullmatch(found.name)]
        new = [
            found.name
            for found in listed
            if found.name not in self._known or self._known[found.name].tag != found.tag
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for name, published in zip(new, pool.map(self._read, new), strict=True):
                self._known.pop(name, None)
                if isinstance(published, Published):
                    self._known[name] = published
                elif published is not None:
                    logger.warning("%s/%s: %s", self.remote.address, name, published.reason)
        yield from [self._known[found.name] for found in listed if found.name in self._known]

    def known(self, stage: str, key: str) -> Published | None:
        """What the last listing has found under a key, or else what is there now, if that parses."""
        found = self._known.get(manifest_name(stage, key)) or self._read(manifest_name(stage, key))
        return found if isinstance(found, Published) else None

    def recent(self, stage: str, count: int) -> Iterator[Published]:
        """What was published last of a stage, at most `count`, the newest first; read one by one."""
        listed = sorted(self.remote.list(f"{MANIFESTS}/{stage}/"), key=lambda found: found.modified)
        names = (found.name for found in reversed(listed) if _MANIFEST.fullmatch(found.name))
        read = (self._read_of_this_format(name) for name in names)
        return islice((published for published in read if isinstance(published, Published)), count)

    def is_there(self, stage: str, key: str) -> bool:
        """Whether there is anything under a key, intact or not."""
        return self.remote.read(manifest_name(stage, key)) is not None

    def current(self, stage: str, key: str) -> Published | None:
        """What is published under a key now; what does not parse goes to the quarantine."""
        name = manifest_name(stage, key)
        found = self._read(name)
        if isinstance(found, _Damaged):
            self._quarantine(stage, key, None, f"{name}: {found.reason}", tag=found.tag)
            return None
        return found

    def upload(self, manifest: Manifest, folder: Path, *, over: Published | None) -> bool:
        """Upload the files of a stage folder as an attempt of its own, then publish it.

        Args:
            manifest: describes the folder.
            folder: where the files lie.
            over: what it takes the place of; None: nothing, it must be the first.

        Returns:
            Whether it is published now; if not, others were faster, and its files are deleted.
        """
        publication = Publication(attempt=new_attempt(), manifest=manifest)
        name = manifest_name(manifest.stage, manifest.key)
        _each_file(manifest, lambda file: self.remote.upload(folder / file, publication.name_of(file)))
        if over is None:
            is_published = self.remote.put_if_absent(name, publication.dump())
        else:
            is_published = self.remote.put_if_unchanged(name, publication.dump(), over.tag)
        if not is_published:  # or it is, and the answer was lost and the request sent again
            winner = self.current(manifest.stage, manifest.key)
            is_published = winner is not None and winner.publication.attempt == publication.attempt
        if not is_published:
            self.delete_attempt(manifest.stage, manifest.key, publication.attempt)
        elif over is not None:  # its files go with the garbage: whoever is reading them can finish
            reason = "replaced by a forced re-run with other bytes"
            self._note(manifest.stage, manifest.key, over.publication.attempt, reason)
        return is_published

    def fetch(self, publication: Publication, folder: Path | None) -> None:
        """Stream every file, into a folder or nowhere, and compare it with the manifest.

        Raises:
            ArtifactCorrupted: a file is missing or holds other bytes.
        """

        def fetch(name: str) -> None:
            for num_left in reversed(range(_MAX_FETCHES)):
                try:
                    self._fetch_into(publication, name, folder)
                except TransferCorrupted:
                    if not num_left:
                        raise self._corrupted(publication.manifest, name) from None
                else:
                    return

        _each_file(publication.manifest, fetch)

    def withdraw(self, published: Published) -> bool:
        """Delete a publication and its files, unless another has taken its place; says whether it did."""
        manifest = published.manifest
        if not self._is_still(published.name, published.tag):
            return False
        self.remote.delete([published.name])
        self.delete_attempt(manifest.stage, manifest.key, published.publication.attempt)
        return True

    def quarantine(self, published: Published, reason: str) -> None:
        """Take a damaged publication out of use, unless another has taken its place.

        Its files stay where they are, for inspection, as long as the note about it.
        """
        manifest, attempt = published.manifest, published.publication.attempt
        self._quarantine(manifest.stage, manifest.key, attempt, reason, tag=published.tag)

    def verify(self, stage: str, key: str, *, quarantine: bool) -> None:
        """Read every file of a publication and compare it with the manifest; nothing is kept.

        Args:
            stage: stage name.
            key: cache key; where nothing is published under it, nothing is wrong.
            quarantine: take it out of use where it is damaged.

        Raises:
            ArtifactCorrupted: a file is missing or holds other bytes, or the manifest does not parse.
        """
        found, attempt = self._read(manifest_name(stage, key)), None
        if found is None:
            return
        try:
            if isinstance(found, _Damaged):
                where = f"in {self.remote.address}"
                raise ArtifactCorrupted(f"{stage}/{key}", f"its manifest {where}: {found.reason}")
            attempt = found.publication.attempt
            self.fetch(found.publication, None)
        except ArtifactCorrupted as error:
            if quarantine:
                self._quarantine(stage, key, attempt, str(error), tag=found.tag)
            raise

    def delete_attempt(self, stage: str, key: str, attempt: str) -> None:
        """Delete the files that an attempt at publishing has uploaded."""
        self.remote.delete([found.name for found in self.remote.list(data_prefix(stage, key, attempt))])

    def _fetch_into(self, publication: Publication, name: str, folder: Path | None) -> None:
        if folder is None:
            self._fetch_file(publication, name, None)
            return
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            self._fetch_file(publication, name, file)

    def _fetch_file(self, publication: Publication, name: str, file: BinaryIO | None) -> None:
        manifest, digest, num_bytes = publication.manifest, hashlib.sha256(), 0
        uri, entry = f"{manifest.stage}/{manifest.key}", manifest.files[name]
        try:
            for chunk in self.remote.stream(publication.name_of(name)):
                num_bytes += len(chunk)
                if num_bytes > entry.num_bytes:
                    break
                digest.update(chunk)
                if file is not None:
                    file.write(chunk)
        except FileNotFoundError:
            raise ArtifactCorrupted(uri, f"file {name} is missing in {self.remote.address}") from None
        if FileEntry(num_bytes=num_bytes, sha256=digest.hexdigest()) != entry:
            raise self._corrupted(manifest, name)

    def _corrupted(self, manifest: Manifest, name: str) -> ArtifactCorrupted:
        reason = f"file {name} does not hold the bytes its manifest says in {self.remote.address}"
        return ArtifactCorrupted(f"{manifest.stage}/{manifest.key}", reason)

    def _read(self, name: str) -> "Published | _Damaged | None":
        match = _MANIFEST.fullmatch(name)
        stored = self.remote.read(name)
        if stored is None or match is None:
            return None
        try:
            publication = Publication.load(stored.data, match["stage"], match["key"])
        except ValueError as error:
            return _Damaged(one_line(error), stored.tag)
        return Published(publication, stored.modified, stored.tag)

    def _read_of_this_format(self, name: str) -> "Published | _Damaged | None":
        try:
            return self._read(name)
        except NewerFormat:
            return None

    def _is_still(self, name: str, tag: str) -> bool:
        stored = self.remote.read(name)
        return stored is not None and stored.tag == tag

    def _quarantine(self, stage: str, key: str, attempt: str | None, reason: str, *, tag: str) -> None:
        """Note what was damaged, then delete the publication; unless it has changed meanwhile.

        Between look and deletion lies a moment; what is published then is gone, and computed once more.
        """
        if self._is_still(manifest_name(stage, key), tag):
            self._note(stage, key, attempt, reason)
            self.remote.delete([manifest_name(stage, key)])

    def _note(self, stage: str, key: str, attempt: str | None, reason: str) -> None:
        """Write down what was taken out of use, and why."""
        logger.warning("quarantined %s/%s of %s: %s", stage, key, self.remote.address, one_line(reason))
        note = {"stage": stage, "key": key, "attempt": attempt, "reason": reason}
        self.remote.put(f"{QUARANTINE}/{stage}-{key[:40]}-{uuid.uuid4().hex[:8]}.json", seal(note))


@dataclass(frozen=True)
class _Damaged:
    """A publication that does not parse."""

    reason: str
    tag: str


def _each_file(manifest: Manifest, transfer: Callable[[str], None]) -> None:
    """Transfer the small files several at once, then the large ones in this thread, which a signal stops."""
    large = [name for name, entry in manifest.files.items() if entry.num_bytes >= LARGE_BYTES]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(transfer, manifest.files.keys() - set(large)):
            pass
    for name in large:
        transfer(name)


def open_marker(remote: Remote) -> str:
    """The id of the store below a prefix; its marker is made where there is none.

    Raises:
        StoreUnusable: something else lies there, or a store of another format, or the service knows no
            conditional writes.
    """
    stored = remote.read(MARKER)
    if stored is None:
        other = next((found for found in remote.list("") if not found.name.startswith(_PROBE)), None)
        if other is not None and remote.read(MARKER) is None:
            raise StoreUnusable(
                f"{remote.address} is no store and not empty: it holds {one_line(other.name)}"
            )
        if (ignored := _ignored_condition(remote)) is not None:
            raise StoreUnusable(
                f"store {remote.address}: the service does not honour {ignored} when it writes; "
                "without that, two runs could overwrite each other's results"
            )
        remote.put_if_absent(MARKER, seal({"format": FORMAT, "id": uuid.uuid4().hex}))
        stored = remote.read(MARKER)
    try:
        found = unseal(b"" if stored is None else stored.data)
        identity, version = str(found["id"]), found["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise StoreUnusable(f"{remote.address}/{MARKER} is not a store marker: {one_line(error)}") from None
    if version != FORMAT:
        raise StoreUnusable(
            f"store {remote.address} has format {version}; this version reads format {FORMAT}"
        )
    return identity


def _ignored_condition(remote: Remote) -> str | None:
    """The condition of writes that the service does not honour, tried on an object of its own.

    What a write says of itself counts only where it must be refused: of one that is let through the answer
    may be lost, and sent again it is refused, by ourselves.
    """
    name = f"{_PROBE}{uuid.uuid4().hex}"
    try:
        remote.put_if_absent(name, b"first")
        if remote.put_if_absent(name, b"second"):
            return "If-None-Match: *"
        first = remote.read(name)
        tag = "" if first is None else first.tag
        remote.put_if_unchanged(name, b"third", tag)
        third = remote.read(name)
        if third is None or third.data != b"third" or remote.put_if_unchanged(name, b"fourth", tag):
            return "If-Match"
        return None
    finally:
        remote.delete([name])
