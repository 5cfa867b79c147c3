"""What an artifact was made from, and of that, what there is."""

from pathlib import Path

from tasks.ancestry import with_ancestry
from tasks.artifact import Manifest
from tasks.store import Store
from tests.tiny_runs import key_of, publish


def test_roots_and_all_they_were_made_from_are_found_among_what_there_is(tmp_path: Path) -> None:
    store, made = Store(tmp_path), {}

    def make(stage: str, name: str, *made_from: Manifest) -> Manifest:
        inputs = {f"{m.stage}-{m.key}": a.digest for m in made_from for a in m.artifacts.values()}
        made[name] = publish(store, stage, key_of(name), {f"{stage}/data": name.encode()}, inputs=inputs)
        return made[name]

    graph, other = make("ingest", "graph"), make("ingest", "other")
    smoothed = make("smooth", "smoothed", graph)
    model = make("train", "model", graph, smoothed)
    make("smooth", "apart", other)
    folders = {(m.stage, m.key): m for m in made.values()}
    chain = {(m.stage, m.key) for m in (graph, smoothed, model)}
    assert with_ancestry(folders, [("train", model.key)]) == chain
    assert with_ancestry(folders, [("train", key_of("absent"))]) == set()
    del folders["smooth", smoothed.key]
    assert with_ancestry(folders, [("train", model.key)]) == chain - {("smooth", smoothed.key)}
