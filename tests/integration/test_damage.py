"""Damage to a finished store: whatever is hit, just its stage is computed again, to the same bytes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.maintenance import verify_store
from tasks.store import Store
from tests.tiny_runs import PLAIN_STAGES, run_direct, tiny

pytestmark = pytest.mark.slow


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[: len(content) // 2])


def overwrite(path: Path) -> None:
    """Other bytes, the same size."""
    size = path.stat().st_size
    path.chmod(0o600)
    path.write_bytes(b"\xff" * size)


@pytest.mark.parametrize("damage", [delete, truncate, overwrite])
@pytest.mark.parametrize("stage", PLAIN_STAGES)
def test_damage_to_any_file_is_found_and_confined_to_its_stage(
    store_copy: Path, stage: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    store = Store(store_copy)
    ((_, key),) = (address for address in store.folders() if address[0] == stage)
    folder, others = store.stage_folder(stage, key), [a for a in store.folders() if a[0] != stage]
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert "manifest.json" in names
    shutil.copytree(folder, tmp_path / "intact")
    for name in names:
        damage(folder / name)
        assert store.find(stage, key, full=True) is None, f"{name} was not noticed"
        assert not folder.exists(), "it is in the quarantine"
        shutil.copytree(tmp_path / "intact", folder)
        assert store.find(stage, key, full=True) is not None
    assert all(store.find(*other, full=True) for other in others)
    assert len(list((store.root / ".quarantine").glob("*.json"))) == len(names)


@pytest.mark.parametrize("stage", PLAIN_STAGES)
def test_a_lost_stage_is_computed_again_alone_to_the_same_bytes(store_copy: Path, stage: str) -> None:
    before = run_direct(tiny(), store_copy).digests
    shutil.rmtree(store_copy / stage)
    again = run_direct(tiny(), store_copy)
    assert again.ran == [stage]
    assert again.digests == before
    assert verify_store(Store(store_copy)) == []


def test_an_input_damaged_after_it_was_looked_up_is_never_read(store_copy: Path) -> None:
    from flows.wiring import STAGES, PipelineState
    from tasks.errors import ArtifactCorrupted

    state = PipelineState(tiny("smooth.alpha=0.9"), Store(store_copy))
    ingest, make_request = STAGES["ingest"]
    state.artifacts.update(ingest.execute(make_request(state), state.store).artifacts)
    stage, make_request = STAGES["smooth"]
    request = make_request(state)
    overwrite(next((store_copy / "ingest").glob("*/graph/edges.parquet")))
    with pytest.raises(ArtifactCorrupted, match=r"graph/edges\.parquet"):
        stage.execute(request, state.store)
    assert state.store.find("smooth", request.key) is None
    assert run_direct(tiny("smooth.alpha=0.9"), store_copy, until="smooth").ran == ["ingest", "smooth"]
