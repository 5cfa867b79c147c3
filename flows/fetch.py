"""Downloading public data sets, every file against a pinned sha256."""

import contextlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from flows.config import ConfigurationError
from gcl.errors import SourceUnreadable


@dataclass(frozen=True)
class PublicFile:
    """One file: its name below the data set's folder, where it is, what it must hash to."""

    name: str
    url: str
    sha256: str


@dataclass(frozen=True)
class PublicDataset:
    """A public data set: the format it is read with, the repository it comes from, its files."""

    format: str
    source: str
    files: tuple[PublicFile, ...]


def _read_registry() -> dict[str, PublicDataset]:
    document = tomllib.loads((resources.files("flows") / "public_datasets.toml").read_text("utf-8"))
    return {
        name: PublicDataset(
            entry["format"], entry["source"], tuple(PublicFile(**file) for file in entry["files"])
        )
        for name, entry in document.items()
    }


PUBLIC = _read_registry()


def fetch_dataset(name: str, folder: Path) -> Path:
    """Download a data set into `folder`/NAME; files already there with the right hash are kept.

    Raises:
        ConfigurationError: there is no such data set, or the folder cannot be written.
        SourceUnreadable: no network, a file that is gone, or one with another hash; it is not kept.
    """
    if name not in PUBLIC:
        raise ConfigurationError(f"there is no public data set {name!r}; there are: {', '.join(PUBLIC)}")
    import pooch
    import requests

    target = folder / name
    for file in PUBLIC[name].files:
        place = target / file.name
        missing = [path for path in (place.parent, *place.parent.parents) if not path.exists()]
        try:
            pooch.retrieve(
                file.url,
                known_hash=f"sha256:{file.sha256}",
                fname=place.name,
                path=place.parent,
                progressbar=False,
            )
        except requests.exceptions.RequestException as error:
            _remove_empty(missing)
            raise SourceUnreadable(
                f"{file.url} could not be downloaded ({type(error).__name__}); is this machine offline? "
                f"Put the file at {place} by hand: its sha256 must be {file.sha256}"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"--to {folder}: {place} cannot be written: {error.strerror}") from None
        except ValueError as error:
            _remove_empty(missing)
            raise SourceUnreadable(f"{file.url}: {error}") from None
    return target


def _remove_empty(folders: Sequence[Path]) -> None:
    """Take back folders that were made for a file that did not come, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
