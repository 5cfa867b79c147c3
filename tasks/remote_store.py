"""A store in a bucket: published there, worked on in a local folder, its cache.

The cache is a store as any other: stages read and write there, checkpoints, locks and scratch are there. An
artifact counts once the bucket has it. So what is published is committed in the cache, then its files are
uploaded under the name of this attempt, and last comes the publication, by a write that succeeds only where
there is none. Whoever is second takes what the first has published. What is looked up is compared with the
bucket once, and fetched, verified and committed here where the cache has none, or other bytes.

Locks hold among the processes that share a cache. On two machines the same stage may be computed at the
same time; one of the results is published, and both go on with that one.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from tasks.artifact import Artifact, Manifest
from tasks.errors import ArtifactCorrupted, StoreFull, StoreUnusable
from tasks.remote import Remote, RemoteUnreachable
from tasks.remote_publications import MARKER, Publications, Published, open_marker
from tasks.store import Store, address_of
from tasks.store_address import BINDING, CACHE_VARIABLE, local_path, read_binding, remote_address

logger = logging.getLogger(__name__)

_MAX_RACES = 8
_UPLOADED = ".uploaded"


class RemoteStore(Store):
    """A store whose artifacts lie in a bucket; `Store` makes one where it is given such an address.

    Args:
        root: ``s3://BUCKET/PREFIX``, or the cache of one.

    Raises:
        StoreUnusable: the bucket or the cache cannot be used, or does not hold a store of this format.
        RemoteUnreachable: the object store does not answer.
    """

    is_shared = True

    def __init__(self, root: Path | str) -> None:
        self.remote = connect(root)
        self.publications = Publications(self.remote)
        identity = open_marker(self.remote)
        super().__init__(local_path(root))
        self.address = self.remote.address
        self._bind(identity)
        self._settled: set[tuple[str, str]] = set()

    def is_there(self, stage: str, key: str) -> bool:
        """Whether there is anything under this key, intact or not, here or in the bucket."""
        return super().is_there(stage, key) or self.publications.is_there(stage, key)

    def find(self, stage: str, key: str, *, full: bool = False) -> Manifest | None:
        """As of `Store`; a manifest that is returned is in the bucket, and its files are here.

        What is damaged in the bucket is noted in its quarantine and counts as absent.
        """
        manifest = super().find(stage, key, full=full)
        if manifest is None:
            manifest = self._take(stage, key)
        elif (stage, key) not in self._settled:
            manifest = self._settle(manifest)
        if manifest is not None:
            self._settled.add((stage, key))
            self.mark_uploaded(stage, key)
        return manifest

    def open(self, artifact: Artifact) -> Path:
        """As of `Store`; what the cache lacks, or has with other bytes, is fetched."""
        try:
            return super().open(artifact)
        except ArtifactCorrupted:
            stage, key, _ = address_of(artifact)
            self._settled.discard((stage, key))
            if self.find(stage, key) is None:
                raise
        return super().open(artifact)

    def publish(self, folder: Path, manifest: Manifest, *, replace: bool = False) -> Manifest:
        """As of `Store`, and in the bucket; where that fails, the next `find` does it.

        Raises:
            RemoteUnreachable: the result is in the cache, and not yet in the bucket.
        """
        self._mark(manifest.stage, manifest.key).unlink(missing_ok=True)  # it was of an earlier copy
        committed = super().publish(folder, manifest, replace=replace)
        published = self._settle(committed, replace=replace)
        self._settled.add((manifest.stage, manifest.key))
        self.mark_uploaded(manifest.stage, manifest.key)
        return published

    def is_uploaded(self, stage: str, key: str) -> bool:
        """Whether what is committed here is known to have been in the bucket; it may be gone from there."""
        return self._mark(stage, key).exists()

    def mark_uploaded(self, stage: str, key: str) -> None:
        """Note that what is committed here has been in the bucket; without it, the copy is merely kept."""
        mark = self._mark(stage, key)
        try:
            mark.parent.mkdir(exist_ok=True, mode=0o700)
            mark.touch(mode=0o600)
        except OSError as error:
            logger.warning("%s cannot be written: %s", mark, error.strerror)

    def folders(self) -> Iterator[tuple[str, str]]:
        """(stage, key) of everything in the bucket, intact or not."""
        return self.publications.addresses()

    def manifests(self) -> Iterator[Manifest]:
        """Every manifest in the bucket that parses, unverified, by stage and key."""
        return (published.manifest for published in self.publications.all())

    def recent(self, stage: str, count: int) -> Iterator[Manifest]:
        """The manifests of a stage that were published last, at most `count`, the newest first."""
        return (published.manifest for published in self.publications.recent(stage, count))

    def published_at(self, manifest: Manifest) -> float | None:
        """When it was published, by the bucket's clock; of what the bucket lacks, when it came here."""
        published = self.publications.known(manifest.stage, manifest.key)
        return super().published_at(manifest) if published is None else published.modified

    def num_bytes(self, path: Path) -> int:
        """As of `Store`; of a stage folder, what it takes in the bucket."""
        published = self._published(path)
        return super().num_bytes(path) if published is None else published.num_bytes

    def remove(self, path: Path) -> int:
        """As of `Store`; a stage folder goes from the bucket first, and counts as what it took there.

        Raises:
            FileNotFoundError: it is neither here nor in the bucket, or others have published anew.
        """
        published = self._published(path)
        if published is not None and not self.publications.withdraw(published):
            raise FileNotFoundError(path)
        num_bytes = super().remove(path) if published is None or path.exists() else 0
        if (address := self._address(path)) is not None:
            self._mark(*address).unlink(missing_ok=True)
        return num_bytes if published is None else published.num_bytes

    def _settle(self, local: Manifest, *, replace: bool = False) -> Manifest:
        """Have the bucket hold what is committed here; or where it holds other bytes already, take those."""
        stage, key = local.stage, local.key
        for _ in range(_MAX_RACES):
            current = self.publications.current(stage, key)
            if current is not None and current.manifest.artifacts == local.artifacts:
                return local
            if current is not None and not replace:
                taken = self._take(stage, key)
                if taken is not None:
                    return taken
                continue  # it was damaged: what is here takes its place
            logger.info("uploading %s/%s to %s", stage, key[:12], self.address)
            if self.publications.upload(local, self.stage_folder(stage, key), over=current):
                return local
            replace = False  # what others have published since is newer than what this was to replace
        raise RemoteUnreachable(f"store {self.address}: {stage}/{key[:12]} keeps changing; run again")

    def _take(self, stage: str, key: str) -> Manifest | None:
        """Fetch what is published under a key, verify it, and commit it here; None where there is nothing."""
        for _ in range(_MAX_RACES):
            published = self.publications.current(stage, key)
            if published is None:
                return None
            logger.info("fetching %s/%s from %s", stage, key[:12], self.address)
            with self.writing(stage, key) as folder:
                if published.num_bytes > (free := shutil.disk_usage(folder).free):
                    raise StoreFull(str(self.root), published.num_bytes, free)
                try:
                    self.publications.fetch(published.publication, folder)
                except ArtifactCorrupted as error:
                    self.publications.quarantine(published, str(error))
                    continue
                return self._commit_fetched(published, folder)
        raise RemoteUnreachable(f"store {self.address}: {stage}/{key[:12]} keeps changing; run again")

    def _commit_fetched(self, published: Published, folder: Path) -> Manifest:
        manifest = published.manifest
        here = Store.find(self, manifest.stage, manifest.key)
        if here is not None and here.artifacts != manifest.artifacts:
            target = self.stage_folder(manifest.stage, manifest.key)
            self.quarantine(target, f"other bytes are published in {self.address}")
        return Store.publish(self, folder, manifest)

    def _published(self, path: Path) -> Published | None:
        """What is published under the key that a path of the cache is the folder of."""
        address = self._address(path)
        return None if address is None else self.publications.known(*address)

    def _address(self, path: Path) -> tuple[str, str] | None:
        """The stage and key that a path of the cache is the folder of."""
        match path.relative_to(self.root).parts:
            case (stage, key) if not stage.startswith("."):
                return stage, key
        return None

    def _mark(self, stage: str, key: str) -> Path:
        """An empty file that is there once what is committed here has been in the bucket."""
        return self.root / _UPLOADED / f"{stage}-{key}"

    def _bind(self, identity: str) -> None:
        """Have the cache say what it is a copy of; refuse one that is a copy of something else."""
        bound, own = read_binding(self.root), {"address": self.address, "id": identity}
        if not bound:
            with self.writing("binding", "0" * 64) as folder:
                (folder / BINDING).write_text(json.dumps(own) + "\n")
                (folder / BINDING).replace(self.root / BINDING)
        elif bound != own:
            raise StoreUnusable(
                f"{self.root} is the cache of another store, {bound['address']} (the bucket was made "
                f"anew, or lies at another endpoint): delete it, or set {CACHE_VARIABLE} to another folder"
            )


def connect(root: Path | str) -> Remote:
    """The object store behind an address, or behind a cache.

    Raises:
        StoreUnusable: it cannot be used, or this is no such address.
    """
    from tasks.remote_s3 import S3Remote

    address = remote_address(root)
    if address is None:
        raise StoreUnusable(f"{root} is no address of a bucket")
    return S3Remote(address)


def is_made(root: Path | str) -> bool:
    """Whether there is a store at this address of a bucket."""
    return connect(root).read(MARKER) is not None
