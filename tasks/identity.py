"""The cache key of a stage: a hash of everything that can change its result, and of nothing else."""

import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gcl.config import result_fields
from tasks.artifact import Artifact, hash_json
from tasks.closure import closure_digest

_MAX_TOLD = 8


def stage_identity(
    *,
    stage: str,
    version: int,
    config: BaseModel,
    inputs: Mapping[str, Artifact | str],
    modules: Iterable[str],
    libraries: Iterable[str],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """What the key is a hash of, in the clear, so that a miss can be explained.

    Args:
        stage: stage name.
        version: raised when a stage's output changes for a reason its sources do not show.
        config: its configuration; operational fields are left out.
        inputs: artifacts (by digest) or digests of source files, by role.
        modules: where the stage's code starts; their import closure is hashed.
        libraries: distributions whose versions can change a result.
        facts: whatever else matters: seed, resolved device, number of clusters.
    """
    return {
        "stage": stage,
        "version": version,
        "config": result_fields(config),
        "inputs": {
            role: item.digest if isinstance(item, Artifact) else item for role, item in inputs.items()
        },
        "code": closure_digest(modules),
        "libraries": library_versions(libraries),
        "facts": dict(facts),
    }


def stage_key(identity: Mapping[str, Any]) -> str:
    """The key: sha256 of the identity in canonical JSON."""
    return hash_json(dict(identity))


def explain_change(identity: Mapping[str, Any], previous: Mapping[str, Any]) -> str:
    """What differs between two identities of a stage, in one line.

    Settings come with their old and new value; inputs and code, whose digests say nothing to a reader,
    by name. Of many settings the first few are told.
    """
    old, new = _flatten(previous), _flatten(identity)
    changed = _changed(old, new)
    inputs = [name.partition(".")[2] for name in changed if name.startswith("inputs.")]
    settings = [
        f"{name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in changed
        if name != "code" and not name.startswith("inputs.")
    ]
    if (num_more := len(settings) - _MAX_TOLD) > 1:
        settings = [*settings[:_MAX_TOLD], f"{num_more} more settings"]
    parts = [*settings, *(["code"] if "code" in changed else [])]
    if inputs:
        parts.append(f"inputs {', '.join(inputs)}")
    return "; ".join(parts) or "nothing"


def most_similar(identity: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> int | None:
    """Which of some identities of a stage differs in the fewest entries, the first of equals; None of none.

    A store may hold many data sets and methods: the last run in it need not be one to compare with.
    """
    new = _flatten(identity)
    counts = [len(_changed(_flatten(other), new)) for other in others]
    return counts.index(min(counts)) if counts else None


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]


@cache
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution, and Python's."""
    return {"python": platform.python_version()} | {name: _version(name) for name in sorted(libraries)}


def resolve_device(device: str) -> str:
    """The device `auto` stands for here; anything else is returned as it is.

    Looks for a driver before it asks torch, whose import costs seconds.
    """
    if device != "auto":
        return device
    if not any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        merged: dict[str, str] = {}
        for key, item in value.items():
            merged |= _flatten(item, f"{prefix}.{key}" if prefix else str(key))
        return merged
    return {prefix: str(value)}
