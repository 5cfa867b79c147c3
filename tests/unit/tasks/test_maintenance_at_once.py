"""Garbage collection while another process removes what it looks at."""

from pathlib import Path

import pytest

from tasks import maintenance
from tasks.artifact import Manifest
from tasks.maintenance import collect_garbage
from tasks.store import Store
from tests.tiny_runs import key_of
from tests.unit.tasks.test_maintenance import add, age, kept


def test_what_vanishes_meanwhile_does_not_stop_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    first, second = add(store, "ingest", "a", days=30), add(store, "ingest", "b", days=30)
    add(store, "ingest", "newest", days=1)
    doomed = [store.stage_folder("ingest", m.key) for m in (first, second)]
    store.remove(doomed[0])
    monkeypatch.setattr("tasks.maintenance._doomed", lambda *_: [("stage folders", path) for path in doomed])
    assert len(collect_garbage(store, keep_days=7).folders) == 1
    assert not doomed[1].exists()


@pytest.mark.parametrize("place", [".quarantine", ".scratch", ".results", ".locks", ".server"])
def test_what_another_collection_removes_at_the_same_time_does_not_stop_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    store = Store(tmp_path / "store")
    (store.root / ".server").mkdir()
    name = "x.log" if place == ".server" else f"ingest-{key_of('x')}"
    (store.root / place / name).write_text("")
    age(store.root / place / name, 90)
    look = maintenance._written_at

    def look_too_late(path: Path, *, inside: bool = False) -> float:
        path.unlink()
        return look(path, inside=inside)

    monkeypatch.setattr(maintenance, "_written_at", look_too_late)
    assert collect_garbage(store, keep_days=30).folders == ()


def test_a_folder_that_vanishes_while_ages_are_read_is_left_alone_with_its_ancestry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    graph = add(store, "ingest", "graph", days=90)
    smoothed = add(store, "smooth", "smoothed", made_from=graph, days=90)
    newest = [add(store, stage, f"newest {stage}", days=80) for stage in ("ingest", "smooth")]
    folder, published_at = store.stage_folder("smooth", smoothed.key), store.published_at

    def away(manifest: Manifest) -> float | None:
        if manifest == smoothed:
            folder.rename(tmp_path / "away")
        try:
            return published_at(manifest)
        finally:
            if manifest == smoothed:
                (tmp_path / "away").rename(folder)

    monkeypatch.setattr(store, "published_at", away)
    collect_garbage(store, keep_days=30)
    assert kept(store) == {graph.key, smoothed.key, *(m.key for m in newest)}
