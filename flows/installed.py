"""What is installed, in short: what began with something else must begin anew."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

_BY_TASTE = frozenset({"PREFECT_LOGGING_LEVEL"})  # of the shell that `gclflow up` was called from


def made_of(settings: Mapping[str, str]) -> str:
    """A digest of what a service of Prefect is made of: versions, and our settings of it.

    Our own sources are not in it: a service runs none of them, and a run reads them when it begins.
    """
    ours = sorted(item for item in settings.items() if item[0] not in _BY_TASTE)
    return hashlib.sha256(repr((sorted(versions().items()), ours)).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of gclflow, of Prefect, and of what Prefect needs."""
    from packaging.requirements import Requirement

    found = {name: importlib.metadata.version(name) for name in ("gclflow", "prefect")}
    for text in importlib.metadata.requires("prefect") or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            try:
                found[requirement.name] = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                found[requirement.name] = "missing"
    return found


def flow_sources() -> bytes:
    """A digest of the flows: with their code, what their forms ask for may have changed."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()
