"""What is installed, in short: what began with something else must begin anew."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

_PACKAGES = ("flows", "tasks", "gcl", "data_contracts")
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


def hidden_by(folder: Path) -> list[str]:
    """Files of a folder that Prefect would import in the place of gclflow's packages, when it runs there.

    It looks in the folder of the deployments before it looks among what is installed. A checkout of gclflow
    hides nothing, whichever copy of it is installed.
    """
    if (folder / "flows" / Path(__file__).name).is_file():
        return []
    # A folder of such a name without __init__.py gives way to an installed package.
    places = [place for name in _PACKAGES for place in (f"{name}.py", f"{name}/__init__.py")]
    return [place for place in places if (folder / place).is_file()]
