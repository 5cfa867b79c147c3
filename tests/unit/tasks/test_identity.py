"""Keys: what a stage's result depends on, in the clear and hashed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gcl.smoothing import SmoothingConfig
from tasks import identity
from tasks.artifact import Artifact
from tasks.identity import (
    explain_change,
    library_versions,
    most_similar,
    resolve_device,
    stage_identity,
    stage_key,
)

REPOSITORY = Path(__file__).resolve().parents[3]
GRAPH = Artifact(kind="graph", uri="ingest/x/graph", digest="d" * 64, num_bytes=1, num_rows={"nodes": 1})
BASE = {
    "stage": "smooth", "version": 1, "config": SmoothingConfig(), "inputs": {"graph": GRAPH},
    "modules": ["tasks.locks"], "libraries": ["numpy"], "facts": {"seed": 0, "device": "cpu"},
}  # fmt: skip


def key(**changes: object) -> str:
    return stage_key(stage_identity(**(BASE | changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "other"}, {"version": 2}, {"config": SmoothingConfig(alpha=0.2)}, {"inputs": {}},
        {"inputs": {"graph": GRAPH.model_copy(update={"digest": "e" * 64})}}, {"inputs": {"labels": GRAPH}},
        {"inputs": {"graph": GRAPH, "source:x": "1"}}, {"modules": ["tasks.memory"]},
        {"libraries": ["numpy", "scipy"]}, {"facts": {"seed": 1, "device": "cpu"}}, {"facts": {"seed": 0}},
    ],
)  # fmt: skip
def test_whatever_can_change_a_result_changes_the_key(change: dict[str, object]) -> None:
    assert key(**change) != key()


@pytest.mark.parametrize(
    "change",
    [
        {"config": SmoothingConfig(backend="dask", num_workers=7)},
        {"inputs": {"graph": GRAPH.model_copy(update={"uri": "ingest/y/graph", "num_bytes": 2})}},
        {"facts": {"device": "cpu", "seed": 0}},
    ],
)
def test_what_cannot_change_a_result_does_not(change: dict[str, object]) -> None:
    assert key(**change) == key()


def test_the_order_of_inputs_modules_and_libraries_does_not_matter() -> None:
    one = key(
        inputs={"a": "1", "b": "2"}, modules=["tasks.locks", "tasks.memory"], libraries=["numpy", "scipy"]
    )
    assert one == key(
        inputs={"b": "2", "a": "1"}, modules=["tasks.memory", "tasks.locks"], libraries=["scipy", "numpy"]
    )


def test_a_library_of_another_version_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(identity, "_version", lambda library: "0.0.1")
    assert key() != before


def test_a_library_that_is_not_installed_is_absent() -> None:
    versions = library_versions(["surely-not-installed"])
    assert versions["surely-not-installed"] == "absent"
    assert versions["python"].startswith("3.")


def test_the_key_is_the_same_in_other_processes_folders_and_hash_seeds(tmp_path: Path) -> None:
    code = (
        "from gcl.smoothing import SmoothingConfig; from tasks.identity import *;"
        "print(stage_key(stage_identity(stage='smooth', version=1, config=SmoothingConfig(),"
        "inputs={'b': '1', 'a': '2'}, modules=['tasks.smooth'], libraries=['numpy', 'torch'],"
        "facts={'seed': 0})))"
    )
    found = set()
    for seed, folder in (("0", tmp_path), ("1", REPOSITORY), ("random", Path("/"))):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.strip())
    assert len(found) == 1
    assert len(found.pop()) == 64


def test_a_change_is_explained_field_by_field() -> None:
    one = stage_identity(**BASE)  # type: ignore[arg-type]
    other = stage_identity(**(BASE | {"config": SmoothingConfig(alpha=0.2), "facts": {"seed": 3}}))  # type: ignore[arg-type]
    text = explain_change(other, one)
    assert "config.alpha" in text
    assert "0.1 -> 0.2" in text
    assert "facts.seed" in text
    assert "facts.device" in text
    assert "config.time" not in text
    assert "\n" not in text
    json.dumps(one)


@pytest.mark.parametrize(("count", "more"), [(9, None), (10, "2 more settings"), (40, "32 more settings")])
def test_of_many_changes_the_first_are_told(count: int, more: str | None) -> None:
    old, new = ({"config": {f"c{k:02}": v for k in range(count)}} for v in (0, 1))
    parts = explain_change(new, old).split("; ")
    assert parts[0] == "config.c00 0 -> 1"
    assert parts[-1] == (more or f"config.c{count - 1:02} 0 -> 1")
    assert len(parts) == 9


def test_the_most_similar_identity_has_the_fewest_changes_and_of_equals_the_first() -> None:
    base = {"config": {"alpha": 0.1, "name": "a"}, "facts": {"seed": 0}, "inputs": {"graph": "d1"}}
    other_data = {
        "config": {"alpha": 0.1, "name": "b", "more": 1},
        "facts": {"seed": 0},
        "inputs": {"graph": "d2"},
    }
    seeds = [base | {"facts": {"seed": seed}} for seed in (1, 2)]
    assert most_similar(base, []) is None
    assert most_similar(base, [other_data]) == 0
    assert most_similar(base, [other_data, *seeds]) == 1
    assert most_similar(base, [seeds[0], base]) == 1


def test_a_device_is_resolved_before_it_joins_the_key() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("cuda") == "cuda"
    assert resolve_device("auto") in ("cpu", "cuda")


def test_auto_is_cpu_where_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert resolve_device("auto") == "cpu"
