"""Verification of a whole store, and garbage collection that keeps roots and what they were made from."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.artifact import Manifest
from tasks.locks import FlockLockManager
from tasks.maintenance import collect_garbage, verify_store
from tasks.runs import RunEntry, Runs
from tasks.store import Store
from tasks.work import Work
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


def train_lock(store: Store, key: str) -> Path:
    """The lock file Prefect's task holds while it computes this key."""
    manager = FlockLockManager(store.root / ".locks")
    assert manager.acquire_lock(f"train-{key}", "me", acquire_timeout=0)
    manager.release_lock(f"train-{key}", "me")
    (path,) = (store.root / ".locks").iterdir()
    return path


def unfinished(store: Store, name: str, *, days: float) -> Path:
    folder = store.scratch("train", key_of(name))
    (folder / "checkpoint.json").write_text("{}")
    for path in (folder / "checkpoint.json", folder):
        age(path, days)
    return folder


def entry_of(series: str, *manifests: Manifest, good: bool = True) -> RunEntry:
    return RunEntry(
        series=series,
        config={},
        preset=None,
        seed=0,
        keys={m.stage: m.key for m in manifests},
        artifacts={kind: a for m in manifests for kind, a in m.artifacts.items()},
        metrics=[],
        good=good,
        reason=None if good else "bad",
    )


def test_pinned_and_last_good_runs_are_kept_with_what_they_were_made_from(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    graphs = [add(store, "ingest", f"graph {n}", days=400 - n) for n in range(4)]
    smoothed = [
        add(store, "smooth", f"smoothed {n}", made_from=graph, days=300 - n) for n, graph in enumerate(graphs)
    ]
    runs = Runs(store)
    pinned, good, bad = (runs.record(entry_of("nightly", m, good=m is not smoothed[2])) for m in smoothed[:3])
    runs.pin(pinned.run)
    runs.advance(good)
    collect_garbage(store, keep_days=7)
    assert kept(store) == {m.key for n in (0, 1, 3) for m in (graphs[n], smoothed[n])}
    assert {e.run: e for e in runs.entries()} == {
        pinned.run: pinned.model_copy(update={"pinned": True}),
        good.run: good,
        bad.run: bad,
    }
    runs.unpin(pinned.run)
    collect_garbage(store, keep_days=7)
    assert kept(store) == {m.key for n in (1, 3) for m in (graphs[n], smoothed[n])}


@pytest.mark.parametrize("verified", [False, True])
def test_a_flipped_bit_in_an_entry_costs_no_pinned_run(tmp_path: Path, verified: bool) -> None:
    store = Store(tmp_path / "store")
    paper, other = add(store, "train", "paper", days=200), add(store, "train", "other", days=100)
    tonight = add(store, "train", "tonight", days=0)
    runs = Runs(store)
    pinned = runs.record(entry_of("nightly", paper))
    runs.pin(pinned.run)
    runs.advance(runs.record(entry_of("nightly", tonight)))
    path = runs.folder / "nightly" / f"{pinned.run}.json"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    work = unfinished(store, "x", days=90)
    record = store.record_path("train", other.key)
    record.write_text("{}")
    if verified:
        assert len(verify_store(store)) == 1
        for item in (store.root / ".quarantine").iterdir():
            age(item, 90)
    said = collect_garbage(store, keep_days=30, dry_run=True)
    collected = collect_garbage(store, keep_days=30)
    assert collected == said and kept(store) == {paper.key, other.key, tonight.key}
    assert pinned.run in collected.blocked[0] and record.exists()
    assert collected.folders == (work.relative_to(store.root).as_posix(),), "the rest goes as ever"
    assert collect_garbage(store, keep_days=30).blocked == collected.blocked
    if verified:
        for item in (store.root / ".quarantine").iterdir():
            item.unlink()
    else:
        path.unlink()
    assert collect_garbage(store, keep_days=30).blocked == () and kept(store) == {tonight.key}


def test_a_run_whose_artifacts_are_gone_does_not_stop_the_collection(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    gone, _ = add(store, "ingest", "gone", days=30), add(store, "ingest", "newest", days=1)
    Runs(store).pin(Runs(store).record(entry_of("nightly", gone)).run)
    store.remove(store.stage_folder("ingest", gone.key))
    assert collect_garbage(store, keep_days=7).folders == ()


def test_a_training_that_holds_its_lock_is_kept_at_any_age(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = unfinished(store, "x", days=30)
    lock = train_lock(store, key_of("x"))
    age(lock, 30)
    code = f"import fcntl; f = open({str(lock)!r}); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    held = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert held.stdout is not None
    held.stdout.readline()
    try:
        assert collect_garbage(store, keep_days=0, dry_run=True).folders == ()
        assert collect_garbage(store, keep_days=0).folders == ()
        assert folder.exists() and lock.exists()
    finally:
        held.communicate(b"\n")
    assert {kind.kind: kind.num_paths for kind in collect_garbage(store, keep_days=0).kinds} == {
        "folders of unfinished work": 1,
        "lock files": 1,
    }
    assert not folder.exists() and not lock.exists()


def test_a_training_that_is_being_written_is_kept_at_any_age(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = unfinished(store, "x", days=30)
    other = unfinished(store, "y", days=30)
    with store.writing("train", key_of("x")):
        collect_garbage(store, keep_days=0)
        assert folder.exists() and not other.exists()
    collect_garbage(store, keep_days=0)
    assert not folder.exists()


def test_unfinished_work_written_lately_is_kept_whatever_the_age_of_its_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = unfinished(store, "x", days=30)
    (folder / "checks").mkdir()
    (folder / "checks" / "epoch-1").write_bytes(b"")
    for path in (folder / "checks", folder):
        age(path, 30)
    collect_garbage(store, keep_days=0)
    assert folder.exists()
    age(folder / "checks" / "epoch-1", 30)
    collect_garbage(store, keep_days=0)
    assert not folder.exists()


def test_work_resumed_after_it_was_listed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    folder = unfinished(store, "x", days=30)
    answers = iter([False, True])
    monkeypatch.setattr("tasks.maintenance.is_running", lambda *_: next(answers))
    assert collect_garbage(store, keep_days=0).folders == ()
    assert folder.exists()


def test_inputs_of_a_running_stage_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    used = add(store, "ingest", "used", days=30)
    add(store, "ingest", "newest", days=1)
    with store.writing("smooth", key_of("s")) as folder:
        Work(stage="smooth", key=key_of("s"), store=store, folder=folder, inputs=used.artifacts, facts={})
        collect_garbage(store, keep_days=0)
        assert used.key in kept(store)
    collect_garbage(store, keep_days=0)
    assert used.key not in kept(store)


def test_what_a_run_under_way_has_just_published_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fresh, _ = add(store, "ingest", "fresh", days=0.001), add(store, "ingest", "newest", days=0)
    with store.writing("smooth", key_of("another")):
        collect_garbage(store, keep_days=0)
    assert fresh.key in kept(store)
    collect_garbage(store, keep_days=0)
    assert fresh.key not in kept(store)


def record_of(store: Store, key: str, *, days: float) -> Path:
    path = store.record_path("ingest", key)
    path.write_text("{}")
    age(path, days)
    return path


def test_records_go_when_their_results_are_gone(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    old, new = add(store, "ingest", "old", days=30), add(store, "ingest", "new", days=10)
    collected_now = record_of(store, old.key, days=1)
    intact = record_of(store, new.key, days=10)
    long_gone = record_of(store, key_of("gone"), days=10)
    lately_gone = record_of(store, key_of("gone lately"), days=1)
    foreign = store.root / ".results" / "notes"
    foreign.write_text("")
    age(foreign, 30)
    said = collect_garbage(store, keep_days=7, dry_run=True)
    assert collect_garbage(store, keep_days=7) == said
    left = set((store.root / ".results").iterdir())
    assert left == {intact, lately_gone, foreign} and not {collected_now, long_gone} & left


def test_locks_that_are_old_and_free_go(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    old, young = store.root / ".locks" / "old", store.root / ".locks" / "young"
    for path, days in ((old, 8), (young, 1)):
        path.write_bytes(b"")
        age(path, days)
    collect_garbage(store, keep_days=7)
    assert (old.exists(), young.exists()) == (False, True)
    age(young, 0.001)
    collect_garbage(store, keep_days=0)
    assert young.exists(), "a process may be about to lock what it has just made"


def test_old_server_logs_go_but_not_the_one_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    home = store.root / ".server"
    home.mkdir()
    for name in ("server.log", "server.log.1", "prefect.db", "lock"):
        (home / name).write_bytes(b"x")
        age(home / name, 8)
    with (home / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        collect_garbage(store, keep_days=7)
        assert sorted(path.name for path in home.iterdir()) == ["lock", "prefect.db", "server.log"]
    collect_garbage(store, keep_days=7)
    assert sorted(path.name for path in home.iterdir()) == ["lock", "prefect.db"]


def test_what_went_is_summed_up_by_kind(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    add(store, "ingest", "old", days=9)
    add(store, "ingest", "new", days=1)
    unfinished(store, "x", days=9)
    said = collect_garbage(store, keep_days=7)
    assert [(kind.kind, kind.num_paths) for kind in said.kinds] == [
        ("stage folders", 1),
        ("folders of unfinished work", 1),
    ]
    assert sum(kind.num_bytes for kind in said.kinds) == said.num_bytes
    assert said.kinds[1].num_bytes == 2


@pytest.mark.parametrize("days", [-1.0, float("nan")])
def test_an_age_that_is_none_is_refused(tmp_path: Path, days: float) -> None:
    with pytest.raises(ValueError, match="keep_days"):
        collect_garbage(Store(tmp_path / "store"), keep_days=days)
