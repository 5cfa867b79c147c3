"""Verification of a whole store, and garbage collection that keeps roots and what they were made from."""

import os
import time
from pathlib import Path

import pytest

from tasks.artifact import Manifest
from tasks.maintenance import collect_garbage, verify_store
from tasks.store import Store
from tests.tiny_runs import key_of, publish

DAY = 86_400


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def add(store: Store, stage: str, name: str, *, made_from: Manifest | None = None, days: float) -> Manifest:
    inputs = {} if made_from is None else {k: a.digest for k, a in made_from.artifacts.items()}
    manifest = publish(store, stage, key_of(name), {f"{stage}/data": name.encode()}, inputs=inputs)
    age(store.stage_folder(stage, manifest.key) / "manifest.json", days)
    return manifest


def kept(store: Store) -> set[str]:
    return {manifest.key for manifest in store.manifests()}


def test_roots_and_their_ancestry_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    old_graph = add(store, "ingest", "old graph", days=30)
    used_graph = add(store, "ingest", "used graph", days=20)
    new_graph = add(store, "ingest", "newest graph", days=10)
    old = add(store, "smooth", "old", made_from=old_graph, days=30)
    recent = add(store, "smooth", "recent", made_from=used_graph, days=1)
    collected = collect_garbage(store, keep_days=7)
    assert kept(store) == {used_graph.key, new_graph.key, recent.key}
    assert set(collected.folders) == {f"ingest/{old_graph.key}", f"smooth/{old.key}"}
    assert collected.num_bytes > 0
    assert not list((store.root / ".tmp").iterdir())


def test_the_newest_of_each_stage_is_kept_at_any_age(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    graph = add(store, "ingest", "graph", days=300)
    smoothed = add(store, "smooth", "smoothed", made_from=graph, days=200)
    assert collect_garbage(store, keep_days=0).folders == ()
    assert kept(store) == {graph.key, smoothed.key}


def test_a_dry_run_says_the_same_and_removes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    add(store, "ingest", "old", days=9)
    add(store, "ingest", "new", days=1)
    said = collect_garbage(store, keep_days=7, dry_run=True)
    assert len(kept(store)) == 2
    assert collect_garbage(store, keep_days=7) == said


def test_quarantine_counts_its_age_from_the_quarantine(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    old = add(store, "ingest", "damaged", days=90)
    age(store.stage_folder("ingest", old.key), 90)
    place = store.quarantine(store.stage_folder("ingest", old.key), "test")
    collect_garbage(store, keep_days=7)
    assert place.exists()
    for path in (place, place.with_suffix(".json")):
        age(path, 8)
    age(store.scratch("train", key_of("x")), 8)
    store.scratch("train", key_of("y"))
    collect_garbage(store, keep_days=7)
    assert not list((store.root / ".quarantine").iterdir())
    assert [path.name for path in (store.root / ".scratch").iterdir()] == [f"train-{key_of('y')}"]


def test_verify_quarantines_the_damaged_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    good = add(store, "ingest", "good", days=1)
    bad = add(store, "smooth", "bad", days=1)
    path = store.stage_folder("smooth", bad.key) / "smooth" / "data"
    path.chmod(0o600)
    path.write_bytes(b"xad")
    (store.root / "notes" / "mine").mkdir(parents=True)
    (message,) = verify_store(store)
    assert "smooth/data does not hold the bytes" in message
    assert kept(store) == {good.key}
    assert (store.root / "notes" / "mine").is_dir(), "what is not a stage folder is not the store's"
    assert verify_store(store) == []


@pytest.mark.parametrize("damage", ["unlink", "garbage"])
def test_a_folder_without_a_readable_manifest_is_damaged(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path / "store")
    bad = add(store, "ingest", "bad", days=1)
    manifest = store.stage_folder("ingest", bad.key) / "manifest.json"
    manifest.unlink()
    if damage == "garbage":
        manifest.write_bytes(b"{")
    assert "manifest.json" in verify_store(store)[0]
