"""What a store needs of an object store, and what it keeps there.

Below the store's prefix lie

    store.json                         the marker: format, and an id of its own
    manifests/STAGE/KEY.json           a publication: the manifest, and which attempt holds its files
    data/STAGE/KEY/ATTEMPT/FILE        the files that one attempt at publishing has uploaded
    runs/SERIES/RUN.json               the register of runs
    quarantine/NAME.json               what was found damaged, and why

A publication is the only thing that anybody competes for, and it is written last. What no publication names
is seen by nobody. Every JSON object carries a checksum.
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, StringConstraints

from tasks.artifact import MANIFEST, Manifest
from tasks.sealed import seal, unseal

MANIFESTS, DATA, RUNS, QUARANTINE = "manifests", "data", "runs", "quarantine"
AT_ONCE = 8
"""Objects read or written at the same time."""
_ATTEMPT = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}"


class RemoteUnreachable(Exception):
    """The object store does not answer, or no longer does; what was finished before is safe."""


class TransferCorrupted(Exception):
    """What was streamed does not match the checksum it was sent with: damaged on the way or at rest."""


@dataclass(frozen=True)
class Listed:
    """An object as a listing has it.

    Attributes:
        name: below the store's prefix.
        num_bytes: its size.
        modified: when it was written, in seconds since 1970, by the object store's clock.
        tag: another one whenever the bytes are others (an ETag).
    """

    name: str
    num_bytes: int
    modified: float
    tag: str


@dataclass(frozen=True)
class Stored:
    """A small object: its bytes, tag and time of writing as in `Listed`."""

    data: bytes
    modified: float
    tag: str


class Remote(Protocol):
    """The object store below one prefix; reads see what was written before them.

    Every method raises RemoteUnreachable where there is no answer within bounds of time and tries, and
    StoreUnusable where the answer is no: no such bucket, no credentials, no permission.
    """

    address: str

    def list(self, prefix: str) -> Iterator[Listed]:
        """All objects whose name starts so, by name."""

    def read(self, name: str) -> Stored | None:
        """A small object, cut once it is larger than any of ours; None where there is none.

        One that is damaged is returned as it is: what was sealed has a checksum of its own.
        """

    def stream(self, name: str) -> Iterator[bytes]:
        """The bytes of an object, in chunks.

        Raises:
            FileNotFoundError: there is none.
            TransferCorrupted: at the end; a new stream may give other bytes.
        """

    def upload(self, path: Path, name: str) -> None:
        """Write a file; it appears whole or not at all."""

    def put(self, name: str, data: bytes) -> None:
        """Write a small object, over whatever is there."""

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write a small object unless there is one; says whether it did. Of any number at once, one does."""

    def put_if_unchanged(self, name: str, data: bytes, tag: str) -> bool:
        """Write over an object that still has this tag; says whether it did."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, those that are there."""

    def abort_uploads(self, before: float) -> int:
        """Give up uploads in parts that were begun before a time (seconds since 1970); says how many."""


class Publication(BaseModel):
    """What lies at a stage and key: the manifest, and the attempt that its files belong to."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    attempt: Annotated[str, StringConstraints(pattern=rf"^{_ATTEMPT}$")]
    manifest: Manifest

    def dump(self) -> bytes:
        """As JSON with a checksum."""
        return seal(self.model_dump(mode="json"))

    @classmethod
    def load(cls, data: bytes, stage: str, key: str) -> "Publication":
        """Parse the publication of a stage and key.

        Raises:
            ValueError: it is damaged, belongs elsewhere, or names files that cannot lie in its folder.
        """
        found = cls.model_validate(unseal(data))
        manifest = found.manifest
        if (manifest.stage, manifest.key) != (stage, key):
            raise ValueError("manifest belongs to another stage or key")
        for name in manifest.files:
            if name == MANIFEST or "\0" in name or {"", ".", ".."} & set(name.split("/")):
                raise ValueError(f"{name!r} is not the name of a file of an artifact")
        return found

    def name_of(self, file: str) -> str:
        """The object that holds a file."""
        return f"{data_prefix(self.manifest.stage, self.manifest.key, self.attempt)}{file}"


def new_attempt() -> str:
    """A name for an attempt at publishing, told apart from every other one; begins with the time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:12]}"


def manifest_name(stage: str, key: str) -> str:
    """The object that holds the publication of a stage and key."""
    return f"{MANIFESTS}/{stage}/{key}.json"


def data_prefix(stage: str, key: str, attempt: str) -> str:
    """What the names of an attempt's files begin with."""
    return f"{DATA}/{stage}/{key}/{attempt}/"
