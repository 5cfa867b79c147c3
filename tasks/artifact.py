"""Artifacts: what a stage publishes, how it is identified, and how its bytes are checked.

A stage publishes all its artifacts in one folder, `STORE/STAGE/KEY`, by one rename. The folder holds
one sub-folder an artifact (`graph/`, `labels/`), a `volatile/` folder with whatever changes from run
to run (times, memory, validation results, Data Docs), and `manifest.json`, which lists every file.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.errors import NewerFormat

MANIFEST = "manifest.json"
METADATA = "metadata.json"
VOLATILE = "volatile"
FORMAT = 1
_MAX_FORMAT = 9999
_CHUNK_BYTES = 1 << 20


class Artifact(BaseModel):
    """A handle to one committed artifact: all that tasks hand each other.

    Attributes:
        kind: what it is: ``graph``, ``labels``, ``smoothed``, ...
        uri: its folder, relative to the store: ``smooth/KEY/smoothed``.
        digest: sha256 over its data files; equal digests mean equal bytes.
        num_bytes: size of its data files.
        num_rows: rows of its tables, by table name.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    uri: str
    digest: str
    num_bytes: int
    num_rows: dict[str, int]


class FileEntry(BaseModel):
    """Size in bytes and sha256 of one file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_bytes: int
    sha256: str


class ContractSummary(BaseModel):
    """How many rules of the data contracts were checked, and how many failed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    passed: int = 0
    failed: int = 0


class Manifest(BaseModel):
    """What a stage folder holds and what it was made from.

    Attributes:
        format: layout version of the stage folder. A change that older versions of gclflow would misread
            raises it; a field they may ignore does not.
        stage: stage name.
        key: the cache key the folder lies under.
        identity: everything the key is a hash of: versions, configuration, input digests, code.
        artifacts: handles by kind.
        files: every file of the folder but the manifest, by path relative to the folder.
        contracts: rules checked on the way in and out.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    stage: str
    key: str
    identity: dict[str, Any]
    artifacts: dict[str, Artifact]
    files: dict[str, FileEntry]
    contracts: ContractSummary = Field(default_factory=ContractSummary)

    @model_validator(mode="before")
    @classmethod
    def _refuse_newer(cls, data: Any) -> Any:
        refuse_newer(data, known=FORMAT, named=("stage", "key"))
        return data

    def dump(self) -> bytes:
        """The manifest as JSON with a checksum of its own."""
        body = self.model_dump(mode="json")
        return canonical_json({"manifest": body, "checksum": hash_json(body)}) + b"\n"

    @classmethod
    def load(cls, data: bytes) -> "Manifest":
        """Parse a manifest.

        Raises:
            ValueError: it is not JSON, its checksum is wrong, or a field is missing.
            NewerFormat: a newer gclflow has written it.
        """
        try:
            document = json.loads(data)
        except RecursionError as error:
            raise ValueError("manifest is nested too deeply") from error
        if not isinstance(document, dict) or set(document) != {"manifest", "checksum"}:
            raise ValueError("manifest has not the expected form")
        if data != canonical_json(document) + b"\n":
            raise ValueError("manifest is not in canonical form")
        if hash_json(document["manifest"]) != document["checksum"]:
            raise ValueError("manifest checksum does not match")
        return cls.model_validate(document["manifest"])


def refuse_newer(data: Any, *, known: int, named: tuple[str, str]) -> None:
    """Look at the format of what was read before anything else of it; where it has none, it is the first.

    Args:
        data: fields by name.
        known: the newest format this version reads.
        named: the fields that say what it is.

    Raises:
        NewerFormat: its format is a newer one.
        ValueError: that is no format.
    """
    if not isinstance(data, dict):
        return
    found = data.get("format", 1)
    if type(found) is not int or not 1 <= found <= _MAX_FORMAT:
        raise ValueError(f"{found!r:.40} is no format")
    if found > known:
        name = "/".join(str(data.get(field))[:64] for field in named)
        raise NewerFormat(
            f"{name} has format {found}, written by a newer gclflow; this version reads format {known}: "
            "use that version, or another store"
        )


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8: equal values give equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def hash_json(value: Any) -> str:
    """sha256 of a JSON value in canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def hash_file(path: Path) -> FileEntry:
    """Size and sha256 of a file, read once in chunks."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(num_bytes=size, sha256=digest.hexdigest())


def artifact_digest(files: Mapping[str, FileEntry]) -> str:
    """Digest of an artifact: sha256 over the names and hashes of its data files, order-free."""
    return hash_json({name: entry.sha256 for name, entry in files.items()})


def files_below(folder: Path) -> Iterable[Path]:
    """Every regular file below a folder, sorted, manifest excluded; anything else is refused.

    Raises:
        ValueError: a link, socket or device lies in the folder.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ValueError(f"{path.relative_to(folder)} is not a regular file")
        if path.is_file() and path.relative_to(folder).as_posix() != MANIFEST:
            yield path
