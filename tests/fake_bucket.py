"""An object store in memory, and several stores in one bucket of it, each with a cache of its own."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tasks.remote import Listed, RemoteUnreachable, Stored
from tasks.remote_store import RemoteStore
from tasks.sealed import MAX_BYTES, unseal

ADDRESS = "s3://bucket/prefix"
OpenStore = Callable[[str], RemoteStore]


class FakeBucket:
    """What `tasks.remote.Remote` asks for, on a dictionary; `before` sees every call and may raise."""

    def __init__(self, address: str = ADDRESS) -> None:
        self.address = address
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, float] = {}
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda call, name: None
        self.num_unfinished_uploads = 0
        self._lock = threading.RLock()

    def list(self, prefix: str) -> Iterator[Listed]:
        self._note("list", prefix)
        with self._lock:
            found = [self._listed(name) for name in sorted(self.objects) if name.startswith(prefix)]
        yield from found

    def read(self, name: str) -> Stored | None:
        self._note("read", name)
        with self._lock:
            if name not in self.objects:
                return None
            listed = self._listed(name)
            return Stored(self.objects[name][: MAX_BYTES + 1], listed.modified, listed.tag)

    def stream(self, name: str) -> Iterator[bytes]:
        self._note("stream", name)
        if name not in self.objects:
            raise FileNotFoundError(name)
        data = self.objects[name]
        for start in range(0, len(data), 7):
            yield data[start : start + 7]

    def upload(self, path: Path, name: str) -> None:
        self._note("upload", name)
        self._write(name, path.read_bytes())

    def put(self, name: str, data: bytes) -> None:
        self._note("put", name)
        self._write(name, data)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        self._note("put_if_absent", name)
        with self._lock:
            if name in self.objects:
                return False
            self._write(name, data)
            return True

    def put_if_unchanged(self, name: str, data: bytes, tag: str) -> bool:
        self._note("put_if_unchanged", name)
        with self._lock:
            if name not in self.objects or self._listed(name).tag != tag:
                return False
            self._write(name, data)
            return True

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._note("delete", name)
            self.objects.pop(name, None)

    def abort_uploads(self, before: float) -> int:
        aborted, self.num_unfinished_uploads = self.num_unfinished_uploads, 0
        return aborted

    def below(self, prefix: str) -> "list[str]":
        """Names of the objects that begin so."""
        return sorted(name for name in self.objects if name.startswith(prefix))

    def age(self, prefix: str, days: float) -> None:
        """Have objects be so many days old."""
        for name in self.below(prefix):
            self.modified[name] = time.time() - days * 86_400

    def unreachable(self, call: str, prefix: str = "") -> None:
        """Break the connection at this call, on objects that begin so; `reachable` mends it."""

        def fail(made: str, name: str) -> None:
            if made == call and name.startswith(prefix):
                raise RemoteUnreachable(f"store {self.address} cannot be reached")

        self.before = fail

    def reachable(self) -> None:
        self.before = lambda call, name: None

    def _note(self, call: str, name: str) -> None:
        self.calls.append((call, name))
        self.before(call, name)

    def _write(self, name: str, data: bytes) -> None:
        with self._lock:
            self.objects[name] = data
            self.modified[name] = time.time()

    def _listed(self, name: str) -> Listed:
        data = self.objects[name]
        return Listed(name, len(data), self.modified[name], hashlib.sha256(data).hexdigest())


def notes(bucket: FakeBucket) -> list[str]:
    """Why things are in the bucket's quarantine."""
    return [unseal(bucket.objects[name])["reason"] for name in bucket.below("quarantine/")]
