"""R7: whatever is deleted of a finished store is computed again, says why, and leaves the rest cached."""

import json
import shutil
from pathlib import Path

import pytest

from flows.wiring import STAGES, PipelineState
from tasks.store import Store
from tests.tiny_runs import PLAIN_STAGES, run_direct, tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow]
COMPUTED = PLAIN_STAGES[:-1]


def folder_of(store: Path, stage: str) -> Path:
    ((_, key),) = (address for address in Store(store).folders() if address[0] == stage)
    return store / stage / key


@pytest.mark.parametrize("stage", COMPUTED)
def test_a_stage_missing_a_part_is_computed_again_alone(store_copy: Path, stage: str) -> None:
    """Each kind of artifact, one table, the manifest, what is volatile; the whole folder at last."""
    before = run_direct(tiny(), store_copy, until="evaluate").digests
    folder = folder_of(store_copy, stage)
    parts = sorted(path.relative_to(folder) for path in folder.iterdir())
    assert len(parts) >= 3
    for part in [*parts, next(p.relative_to(folder) for p in folder.rglob("*.parquet")), Path()]:
        target = folder / part
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        again = run_direct(tiny(), store_copy, until="evaluate")
        assert again.ran == [stage], f"{part} was lost"
        assert again.digests == before
    reasons = [json.loads(p.read_text())["reason"] for p in (store_copy / ".quarantine").glob("*.json")]
    assert len(reasons) == len(parts) + 1, "a folder that is gone altogether leaves nothing to look at"
    assert all(reason.startswith(f"artifact {stage}/") for reason in reasons)


@pytest.mark.parametrize("name", [".results", ".locks", ".tmp", ".quarantine", ".scratch", "store.json"])
def test_what_is_not_an_artifact_can_be_deleted_without_a_stage_noticing(store_copy: Path, name: str) -> None:
    target = store_copy / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    if name == "store.json":  # a folder of artifacts without the marker might be anything
        from tasks.errors import StoreUnusable

        with pytest.raises(StoreUnusable, match="no store"):
            Store(store_copy)
        return
    assert run_direct(tiny(), store_copy, until="evaluate").ran == []


def test_a_miss_is_logged_with_its_reason(store_copy: Path) -> None:
    """The reason that `Stage.run` logs and writes into run.json, without a Prefect server."""
    state = PipelineState(tiny(), Store(store_copy))
    stage, make_request = STAGES["ingest"]
    request = make_request(state)

    def reason() -> str:
        was_there = stage_folder.exists()
        known = state.store.find("ingest", request.key, full=True)
        return stage._reason(request, state.store, known=known, was_there=was_there)

    stage_folder = folder_of(store_copy, "ingest")
    state.store.record_path("ingest", request.key).write_text("{}")
    assert reason() == f"key {request.key[:12]} is in the store, intact"
    (stage_folder / "graph" / "edges.parquet").unlink()
    assert reason() == "its artifact was damaged; that is in the quarantine now"
    assert reason() == "its artifact was missing"
    state.store.record_path("ingest", request.key).unlink()
    assert reason() == "first run of this stage in this store"
