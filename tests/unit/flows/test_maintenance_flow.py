"""The flow that looks after a store: what it reports, when it fails, and the form it gives the UI."""

from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger
from prefect.utilities.callables import parameter_schema

from flows.maintenance import MaintenanceRecord, StoreDamaged, maintenance, maintenance_markdown
from tasks.errors import StoreUnusable
from tasks.maintenance import Collected, Removed
from tasks.runs import RunEntry, Runs
from tasks.store import Store
from tests.tiny_runs import key_of, publish


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The flow's own function with its tasks as plain calls; what it shows is collected."""
    from flows import maintenance as module

    shown: list[str] = []
    for name in ("_verify", "_collect", "_forget"):
        monkeypatch.setattr(module, name, getattr(module, name).fn)
    monkeypatch.setattr(module, "create_markdown_artifact", lambda **page: shown.append(page["markdown"]))
    return shown


def maintain(store: Store, **parameters: Any) -> MaintenanceRecord:
    with disable_run_logger():
        return maintenance.fn(str(store.root), **parameters)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "store")
    publish(opened, "ingest", key_of("a"), {"graph/x": b"graph"})
    publish(opened, "smooth", key_of("b"), {"smoothed/x": b"smoothed"})
    return opened


def damaged(store: Store) -> None:
    path = store.stage_folder("smooth", key_of("b")) / "smoothed" / "x"
    path.chmod(0o600)
    path.write_bytes(b"SMOOTHED")


def record_runs(store: Store, num: int) -> list[str]:
    runs = Runs(store)
    for _ in range(num):
        entry = {"config": {}, "preset": None, "seed": 0, "keys": {}, "artifacts": {}, "metrics": []}
        runs.record(RunEntry(series="nightly", good=True, reason=None, **entry))
    return [entry.run for entry in runs.entries()]


def test_a_healthy_store_is_left_as_it_is(store: Store, pages: list[str]) -> None:
    record = maintain(store)
    assert (record.num_checked, record.damaged, record.collected.folders) == (2, (), ())
    assert "2 stage folders verified, 0 damaged" in pages[0] and "| nothing | 0 | 0 |" in pages[0]
    assert len(list(store.folders())) == 2


def test_damage_fails_the_flow_after_everything_else_is_done(store: Store, pages: list[str]) -> None:
    damaged(store)
    runs = record_runs(store, 3)
    with pytest.raises(StoreDamaged, match=r"1 damaged in store .* in the quarantine now: artifact smooth/"):
        maintain(store, keep_runs=1)
    assert [entry.run for entry in Runs(store).entries()] == runs[2:]
    assert "entries of series nightly | 2" in pages[0] and "## Damaged" in pages[0]
    assert [stage for stage, _ in store.folders()] == ["ingest"]
    assert maintain(store).damaged == (), "the next run finds a healthy store"


def test_damage_of_the_register_counts(store: Store, pages: list[str]) -> None:
    (run,) = record_runs(store, 1)
    (store.root / ".runs" / "nightly" / f"{run}.json").write_bytes(b"{}")
    with pytest.raises(StoreDamaged, match=f"run nightly/{run}"):
        maintain(store)
    left = [path for path in (store.root / ".quarantine").iterdir() if run in path.name]
    with pytest.raises(StoreDamaged, match=f"no result of store .* was removed.*run nightly/{run}: in the q"):
        maintain(store)
    assert "0 damaged" in pages[1] and f"- `run nightly/{run}: in the quarantine" in pages[1]
    for path in left:
        path.unlink()
    assert maintain(store).damaged == ()


def test_a_dry_run_changes_nothing_and_says_the_same(store: Store, pages: list[str]) -> None:
    damaged(store)
    runs = record_runs(store, 3)
    before = sorted(store.root.rglob("*"))
    with pytest.raises(StoreDamaged, match="left where it is"):
        maintain(store, keep_runs=1, dry_run=True)
    assert sorted(store.root.rglob("*")) == before
    assert [entry.run for entry in Runs(store).entries()] == runs
    assert "would be removed" in pages[0] and "series nightly | 2" in pages[0]


def test_verification_can_be_left_out(store: Store, pages: list[str]) -> None:
    damaged(store)
    record = maintain(store, verify=False)
    assert record.num_checked is None and record.damaged == ()
    assert "not verified" in pages[0]


def test_a_page_that_cannot_be_written_does_not_fail_the_flow(
    store: Store, pages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("flows.maintenance.create_markdown_artifact", refuse)
    assert maintain(store).num_checked == 2


def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path: Path, pages: list[str]) -> None:
    with disable_run_logger(), pytest.raises(StoreUnusable, match="there is no store"):
        maintenance.fn(str(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


def test_the_form_describes_every_parameter_and_bounds_its_numbers() -> None:
    schema = parameter_schema(maintenance.fn).model_dump()["properties"]
    assert list(schema) == ["store", "keep_days", "keep_runs", "verify", "dry_run"]
    assert all(len(field["description"]) > 40 for field in schema.values())
    assert (schema["keep_days"]["minimum"], schema["keep_runs"]["minimum"]) == (0, 0)
    assert (schema["keep_days"]["default"], schema["keep_runs"]["default"]) == (30, 365)


def test_the_page_lists_what_went_by_kind() -> None:
    kinds = (Removed("stage folders", 2, 3 << 20), Removed("lock files", 9, 0))
    page = maintenance_markdown(
        MaintenanceRecord(
            store="s",
            is_dry_run=False,
            num_checked=1,
            damaged=("`x`",) * 25,
            collected=Collected(("a",) * 11, 3 << 20, kinds),
            forgotten={},
            free_bytes=2 << 30,
        )
    )
    assert "| stage folders | 2 | 3.0 |" in page and "| lock files | 9 | 0.0 |" in page
    assert "- and 5 more" in page and "- `'x'`" in page
