"""The store: stage folders published atomically, verified on every open, damaged ones quarantined.

This is the store in a local directory, and the local half of one in a bucket (`tasks.remote_store`).

Layout below the root: `STAGE/KEY/` committed stage folders; `.tmp/` folders being written, each beside
a file that its writer holds locked; `.quarantine/` what failed a contract or a verification; `.scratch/`
checkpoints of unfinished stages; `.results/` and `.locks/` Prefect's cache records and locks. Everything
lies inside the root and every URI is relative to it, so a store can be moved and two stores never mix.
"""

import errno
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from data_contracts.errors import one_line
from tasks.artifact import FORMAT, MANIFEST, Artifact, FileEntry, Manifest, files_below, hash_file
from tasks.errors import ArtifactCorrupted, NewerFormat, StoreFull, StoreUnusable, UnknownArtifact
from tasks.store_address import local_path as local_path
from tasks.store_address import remote_address
from tasks.writers import claimed, remove, sweep, this_writer

logger = logging.getLogger(__name__)

MARKER = "store.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Stage names are identifiers, keys hashes; nothing else below the root is the store's to touch.
_STAGE, _KEY = re.compile(r"[a-z][a-z0-9_]*"), re.compile(r"[0-9a-f]{64}")
_verified: dict[tuple[str, int, int, int], str] = {}


class Store:
    """A directory of artifacts.

    Args:
        root: the store's directory; made (mode 0700) where it does not exist. Or ``s3://BUCKET/PREFIX``,
            which gives a `tasks.remote_store.RemoteStore`.

    Attributes:
        root: the directory, of a store in a bucket its cache.
        address: what another process names the store by.
        is_shared: whether other machines may work on it, of which nobody here can see what they do.

    Raises:
        StoreUnusable: it cannot be made or written, belongs to another user, or has another format.
    """

    is_shared = False

    def __new__(cls, root: Path | str) -> "Store":
        """The kind of store that the address asks for, as pathlib.Path gives a PosixPath."""
        if cls is Store and remote_address(root) is not None:
            from tasks.remote_store import RemoteStore

            return super().__new__(RemoteStore)
        return super().__new__(cls)

    def __init__(self, root: Path | str) -> None:
        self.root = local_path(root)
        self.address = str(self.root)
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._check_owner()
            for name in (".tmp", ".quarantine", ".scratch", ".results", ".locks"):
                (self.root / name).mkdir(exist_ok=True, mode=0o700)
            self._check_format()
            sweep(self.root / ".tmp")
        except OSError as error:
            raise StoreUnusable(f"store {self.root}: {error.strerror or error}") from error

    def stage_folder(self, stage: str, key: str) -> Path:
        """Where the stage folder of `key` lies, committed or not."""
        return self.root / stage / key

    def path(self, artifact: Artifact) -> Path:
        """The folder of an artifact.

        Raises:
            ArtifactCorrupted: its URI leads out of the store.
        """
        stage, key, kind = address_of(artifact)
        return self.root / stage / key / kind

    def scratch(self, stage: str, key: str) -> Path:
        """A folder for the unfinished work of a stage; it outlives a crash, not the publication."""
        folder = self.root / ".scratch" / f"{stage}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard_scratch(self, stage: str, key: str) -> None:
        """Forget the unfinished work under a key."""
        shutil.rmtree(self.root / ".scratch" / f"{stage}-{key}", ignore_errors=True)

    def is_there(self, stage: str, key: str) -> bool:
        """Whether there is anything under this key, intact or not."""
        return os.path.lexists(self.stage_folder(stage, key))

    def find(self, stage: str, key: str, *, full: bool = False) -> Manifest | None:
        """The verified manifest of a stage folder, or None where there is none.

        A damaged folder is moved to the quarantine and counts as absent.

        Args:
            stage: stage name.
            key: cache key.
            full: hash every file, also those this process has seen unchanged before.
        """
        folder = self.stage_folder(stage, key)
        if not os.path.lexists(folder):
            return None
        try:
            return self.verify(stage, key, full=full)
        except ArtifactCorrupted as error:
            self.quarantine(folder, str(error))
            return None

    def verify(self, stage: str, key: str, *, full: bool = False) -> Manifest:
        """Check every byte of a stage folder against its manifest.

        Raises:
            ArtifactCorrupted: a file is missing, added or altered, or the manifest does not parse.
            NewerFormat: a newer gclflow has written it.
        """
        folder, uri = self.stage_folder(stage, key), f"{stage}/{key}"
        if folder.is_symlink():
            raise ArtifactCorrupted(uri, "is a link; the store holds folders only")
        try:
            manifest = Manifest.load((folder / MANIFEST).read_bytes())
            present = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
        except (OSError, ValueError) as error:
            raise ArtifactCorrupted(uri, f"{MANIFEST}: {error}") from error
        if (manifest.stage, manifest.key) != (stage, key):
            raise ArtifactCorrupted(uri, "manifest belongs to another stage or key")
        for name in sorted(manifest.files.keys() ^ present.keys()):
            raise ArtifactCorrupted(
                uri, f"file {name} is {'missing' if name in manifest.files else 'unexpected'}"
            )
        for name, entry in manifest.files.items():
            if not _is_intact(present[name], entry, full=full):
                raise ArtifactCorrupted(uri, f"file {name} does not hold the bytes its manifest says")
        return manifest

    def open(self, artifact: Artifact) -> Path:
        """The verified folder of an artifact.

        Raises:
            ArtifactCorrupted: it is gone, damaged, or not the artifact the handle describes.
        """
        stage, key, _ = address_of(artifact)
        folder = self.path(artifact)
        if not folder.exists():
            raise ArtifactCorrupted(artifact.uri, "is not in the store")
        if self.verify(stage, key).artifacts.get(artifact.kind) != artifact:
            raise ArtifactCorrupted(artifact.uri, "is not the artifact its handle describes")
        return folder

    @contextmanager
    def writing(self, stage: str, key: str) -> Iterator[Path]:
        """A folder to write a stage's artifacts into; removed unless it was published.

        Raises:
            StoreFull: the disk, quota or file size limit was exhausted while writing.
        """
        folder = self.root / ".tmp" / f"{this_writer()}-{stage}-{key[:12]}-{uuid.uuid4().hex[:8]}"
        with ExitStack() as stack:
            try:
                stack.enter_context(claimed(folder))
                folder.mkdir(mode=0o700)
                yield folder
            except OSError as error:
                if error.errno in _FULL:
                    free = shutil.disk_usage(self.root).free
                    raise StoreFull(str(self.root), _size_below(folder), free) from error
                raise

    def publish(self, folder: Path, manifest: Manifest, *, replace: bool = False) -> Manifest:
        """Commit a written folder under its key: fsync, write the manifest, rename, fsync the parent.

        Put-if-absent: where another process has published the same key first, its folder is kept and
        its manifest returned, unless `replace` asks for the new bytes and they differ.

        Args:
            folder: what `writing` gave, filled.
            manifest: describes it; written here, last.
            replace: a forced re-run: a folder whose artifacts differ gives way, and goes to the quarantine.
        """
        for path in files_below(folder):
            _sync(path)
            path.chmod(0o444)
        (folder / MANIFEST).write_bytes(manifest.dump())
        _sync(folder / MANIFEST)
        for path in [*sorted(p for p in folder.rglob("*") if p.is_dir()), folder]:
            _sync(path)
        target = self.stage_folder(manifest.stage, manifest.key)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        _sync(self.root)  # whoever made it may have died before this
        published = self._commit(folder, target, manifest, replace=replace)
        _sync(target.parent)
        # Also where another was faster: a later forced re-run must not resume from this one's checkpoints.
        self.discard_scratch(manifest.stage, manifest.key)
        return published

    def _commit(self, folder: Path, target: Path, manifest: Manifest, *, replace: bool) -> Manifest:
        while True:
            try:
                folder.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            else:
                return manifest
            winner = Store.find(self, manifest.stage, manifest.key)  # what is here, whatever is elsewhere
            if winner is not None and (winner.artifacts == manifest.artifacts or not replace):
                return winner
            if winner is not None:
                self.quarantine(target, "replaced by a forced re-run with other bytes")

    def quarantine(self, folder: Path, reason: str) -> Path:
        """Move a folder out of the way, keep it for inspection, and write down why."""
        target = self.root / ".quarantine" / f"{folder.parent.name}-{folder.name[:40]}-{uuid.uuid4().hex[:8]}"
        logger.warning("quarantined %s: %s", folder.relative_to(self.root), one_line(reason))
        try:
            folder.rename(target)
        except FileNotFoundError:  # another process was faster
            return target
        os.utime(target, follow_symlinks=False)  # garbage collection counts its age from here
        target.with_name(f"{target.name}.json").write_text(
            json.dumps({"folder": target.name, "reason": reason})
        )
        return target

    def remove(self, path: Path) -> int:
        """Delete a folder or file of the store, out of every reader's sight first; returns its bytes."""
        doomed = self.root / ".tmp" / f"{this_writer()}-removed-{uuid.uuid4().hex[:8]}"
        num_bytes = Store.num_bytes(self, path)
        path.rename(doomed)
        remove(doomed)  # without a claim, which takes room: a full disk is to be freed
        return num_bytes

    def num_bytes(self, path: Path) -> int:
        """What a folder or file of the store takes."""
        files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
        return sum(file.lstat().st_size for file in files if file.is_file())

    def record_path(self, stage: str, key: str) -> Path:
        """Where Prefect keeps its record that `key` has been computed; the name is Prefect's cache key."""
        return self.root / ".results" / f"{stage}-{key}"

    def folders(self) -> Iterator[tuple[str, str]]:
        """(stage, key) of every stage folder, intact or not."""
        return self.folders_here()

    def folders_here(self) -> Iterator[tuple[str, str]]:
        """(stage, key) of every one below the root; what else lies there is not the store's."""
        for path in sorted(self.root.glob("[!.]*/*")):
            if _STAGE.fullmatch(path.parent.name) and _KEY.fullmatch(path.name):
                yield path.parent.name, path.name

    def manifests(self) -> Iterator[Manifest]:
        """Every committed manifest that parses, unverified, by stage and key.

        Raises:
            NewerFormat: a newer gclflow has written one of them.
        """
        for path in sorted(self.root.glob(f"[!.]*/*/{MANIFEST}")):
            try:
                yield Manifest.load(path.read_bytes())
            except (OSError, ValueError) as error:
                logger.warning("%s: %s", path.relative_to(self.root), error)

    def recent(self, stage: str, count: int) -> Iterator[Manifest]:
        """The manifests of a stage that were published last, at most `count`, the newest first."""
        dated = [(_modified_ns(path), path) for path in (self.root / stage).glob(f"*/{MANIFEST}")]
        for _, path in sorted(dated, reverse=True):
            if count == 0:
                return
            try:
                manifest = Manifest.load(path.read_bytes())
            except (OSError, ValueError, NewerFormat):
                continue
            count -= 1
            yield manifest

    def published_at(self, manifest: Manifest) -> float | None:
        """When it was published, in seconds since 1970; None where it is gone."""
        modified_ns = _modified_ns(self.stage_folder(manifest.stage, manifest.key) / MANIFEST)
        return modified_ns / 1e9 if modified_ns else None

    def locate(self, prefix: str) -> tuple[Manifest, Artifact]:
        """The artifact whose digest (or stage key) starts with `prefix`.

        Raises:
            UnknownArtifact: there is none, or more than one.
        """
        found: dict[str, tuple[Manifest, Artifact]] = {}
        for manifest in self.manifests():
            if manifest.key.startswith(prefix):  # a key stands for the first artifact of its folder
                found[manifest.key] = (manifest, next(iter(manifest.artifacts.values())))
            found |= {
                artifact.digest: (manifest, artifact)
                for artifact in manifest.artifacts.values()
                if artifact.digest.startswith(prefix)
            }
        if len(found) != 1:
            raise UnknownArtifact(f"{len(found)} artifacts have a digest or key starting with {prefix!r}")
        return next(iter(found.values()))

    def _check_format(self) -> None:
        marker = self.root / MARKER
        if not marker.exists():
            temporary = self.root / ".tmp" / f"{this_writer()}-{MARKER}-{uuid.uuid4().hex[:8]}"
            with claimed(temporary):
                temporary.write_text(json.dumps({"format": FORMAT}) + "\n")
                _sync(temporary)
                temporary.rename(marker)
            _sync(self.root)
            return
        try:
            found = json.loads(marker.read_text()).get("format")
        except (ValueError, AttributeError, OSError) as error:
            raise StoreUnusable(f"{marker} is not a store marker: {error}") from error
        if found != FORMAT:
            raise StoreUnusable(f"store {self.root} has format {found}; this version reads format {FORMAT}")

    def _check_owner(self) -> None:
        """Refuse a folder of another user, and one that holds something else than a store."""
        if self.root.stat().st_uid != os.geteuid():
            raise StoreUnusable(f"store {self.root} belongs to another user; it must not be shared")
        if self.root.stat().st_mode & 0o022:
            raise StoreUnusable(f"store {self.root} can be written by other users; chmod go-w {self.root}")
        if not (self.root / MARKER).exists():
            others = sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))
            # Another process may have made the marker meanwhile, and published at once.
            if others and not (self.root / MARKER).exists():
                raise StoreUnusable(f"{self.root} is no store and not empty: it holds {others[0]}")


def _is_intact(path: Path, entry: FileEntry, *, full: bool) -> bool:
    try:
        status = path.stat()
        if status.st_size != entry.num_bytes:
            return False
        seen = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
        if full or seen not in _verified:
            _verified[seen] = hash_file(path).sha256
    except OSError:
        return False
    return _verified[seen] == entry.sha256


def _modified_ns(path: Path) -> int:
    """When a file was written, in nanoseconds since 1970; 0 for one that another process has removed."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def address_of(artifact: Artifact) -> tuple[str, str, str]:
    """Stage, key and kind that an artifact's URI names.

    Raises:
        ArtifactCorrupted: it leads out of the store.
    """
    parts = artifact.uri.split("/")
    if len(parts) != 3 or not _STAGE.fullmatch(parts[0]) or not _KEY.fullmatch(parts[1]):
        raise ArtifactCorrupted(artifact.uri, "is not the address of an artifact")
    if parts[2] != artifact.kind or not _STAGE.fullmatch(artifact.kind):
        raise ArtifactCorrupted(artifact.uri, "is not the address of an artifact")
    return parts[0], parts[1], parts[2]


def _size_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
