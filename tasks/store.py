"""The store: stage folders published atomically, verified on every open, damaged ones quarantined.

Layout below the root: `STAGE/KEY/` committed stage folders; `.tmp/` folders being written, named after
their owner's pid; `.quarantine/` what failed a contract or a verification; `.scratch/` checkpoints of
unfinished stages; `.index/DIGEST` the folders that hold an artifact; `.results/` and `.locks/` Prefect's
cache records and locks. Everything lies inside the root and every URI is relative to it, so a store can
be moved and two stores never mix.
"""

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.artifact import FORMAT, MANIFEST, Artifact, FileEntry, Manifest, files_below, hash_file
from tasks.errors import ArtifactCorrupted, StoreFull, StoreUnusable, UnknownArtifact

logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_verified: dict[tuple[str, int, int, int], str] = {}


class Store:
    """A directory of artifacts.

    Args:
        root: the store's directory; made (mode 0700) where it does not exist.

    Raises:
        StoreUnusable: it cannot be made or written, belongs to another user, or has another format.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = _local_path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in (".tmp", ".quarantine", ".scratch", ".index", ".results", ".locks"):
                (self.root / name).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreUnusable(f"store {self.root}: {error.strerror or error}") from error
        if self.root.stat().st_uid != os.geteuid():
            raise StoreUnusable(f"store {self.root} belongs to another user; it must not be shared")
        self._check_format()
        self._sweep()

    def stage_folder(self, stage: str, key: str) -> Path:
        """Where the stage folder of `key` lies, committed or not."""
        return self.root / stage / key

    def path(self, artifact: Artifact) -> Path:
        """The folder of an artifact.

        Raises:
            ArtifactCorrupted: its URI leads out of the store.
        """
        parts = Path(artifact.uri).parts
        if len(parts) != 3 or any(part.startswith(".") for part in parts):
            raise ArtifactCorrupted(artifact.uri, "is not the address of an artifact")
        return self.root.joinpath(*parts)

    def scratch(self, stage: str, key: str) -> Path:
        """A folder for the unfinished work of a stage; it outlives a crash, not the publication."""
        folder = self.root / ".scratch" / f"{stage}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def find(self, stage: str, key: str, *, full: bool = False) -> Manifest | None:
        """The verified manifest of a stage folder, or None where there is none.

        A damaged folder is moved to the quarantine and counts as absent.

        Args:
            stage: stage name.
            key: cache key.
            full: hash every file, also those this process has seen unchanged before.
        """
        folder = self.stage_folder(stage, key)
        if not folder.exists():
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
        """
        folder, uri = self.stage_folder(stage, key), f"{stage}/{key}"
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
        stage, key, _ = Path(artifact.uri).parts
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
        folder = self.root / ".tmp" / f"{os.getpid()}-{stage}-{key[:12]}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        except OSError as error:
            if error.errno in _FULL:
                free = shutil.disk_usage(self.root).free
                raise StoreFull(str(self.root), _size_below(folder), free) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

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
        while True:
            try:
                folder.rename(target)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            winner = self.find(manifest.stage, manifest.key)
            if winner is not None and (winner.artifacts == manifest.artifacts or not replace):
                return winner
            if winner is not None:
                self.quarantine(target, "replaced by a forced re-run with other bytes")
        _sync(target.parent)
        self._index(manifest)
        shutil.rmtree(self.root / ".scratch" / f"{manifest.stage}-{manifest.key}", ignore_errors=True)
        return manifest

    def quarantine(self, folder: Path, reason: str) -> Path:
        """Move a folder out of the way, keep it for inspection, and write down why."""
        target = self.root / ".quarantine" / f"{folder.parent.name}-{folder.name[:40]}-{uuid.uuid4().hex[:8]}"
        logger.warning("quarantined %s: %s", folder.relative_to(self.root), reason)
        try:
            folder.rename(target)
        except FileNotFoundError:  # another process was faster
            return target
        target.with_suffix(".json").write_text(json.dumps({"folder": target.name, "reason": reason}))
        return target

    def manifests(self) -> Iterator[Manifest]:
        """Every committed manifest that parses, unverified, by stage and key."""
        for path in sorted(self.root.glob(f"[!.]*/*/{MANIFEST}")):
            try:
                yield Manifest.load(path.read_bytes())
            except (OSError, ValueError) as error:
                logger.warning("%s: %s", path.relative_to(self.root), error)

    def latest(self, stage: str) -> Manifest | None:
        """The manifest of a stage that was published last, or None."""
        paths = sorted((self.root / stage).glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns)
        for path in reversed(paths):
            try:
                return Manifest.load(path.read_bytes())
            except (OSError, ValueError):
                continue
        return None

    def locate(self, prefix: str) -> tuple[Manifest, Artifact]:
        """The artifact whose digest (or stage key) starts with `prefix`.

        Raises:
            UnknownArtifact: there is none, or more than one.
        """
        found = {
            artifact.digest: (manifest, artifact)
            for manifest in self.manifests()
            for artifact in manifest.artifacts.values()
            if artifact.digest.startswith(prefix) or manifest.key.startswith(prefix)
        }
        if len(found) != 1 and not any(manifest.key.startswith(prefix) for manifest, _ in found.values()):
            raise UnknownArtifact(f"{len(found)} artifacts have a digest starting with {prefix!r}")
        return next(iter(found.values()))

    def _check_format(self) -> None:
        marker = self.root / "store.json"
        if not marker.exists():
            temporary = marker.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps({"format": FORMAT}) + "\n")
            temporary.rename(marker)
            return
        try:
            found = json.loads(marker.read_text()).get("format")
        except (ValueError, AttributeError, OSError) as error:
            raise StoreUnusable(f"{marker} is not a store marker: {error}") from error
        if found != FORMAT:
            raise StoreUnusable(f"store {self.root} has format {found}; this version reads format {FORMAT}")

    def _sweep(self) -> None:
        """Remove the folders of writers that are no longer alive."""
        for folder in (self.root / ".tmp").iterdir():
            pid = folder.name.partition("-")[0]
            if pid.isdigit() and not Path("/proc", pid).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _index(self, manifest: Manifest) -> None:
        for artifact in manifest.artifacts.values():
            entry = self.root / ".index" / artifact.digest
            with entry.open("a") as file:
                file.write(artifact.uri + "\n")


def _local_path(root: Path | str) -> Path:
    text = str(root)
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme != "file":
            raise StoreUnusable(f"store {scheme}://: only local directories are supported")
        text = rest
    return Path(text).expanduser().resolve()


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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
