"""Labels reach nothing but the evaluation and the method that declares them; held-out edges reach nothing."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.config import PipelineConfig, load_config
from flows.wiring import STAGES
from tasks.evaluate import EmbeddingsOfAnotherGraph
from tests.tiny_runs import TINY, run_direct, tiny

pytestmark = pytest.mark.slow
WITHOUT_LABELS = ("smooth", "train", "uncertainty", "cluster")


def masked_graph(folder: Path, *overrides: str, labels_seed: int | None = None) -> PipelineConfig:
    """A graph of 90 nodes in three classes with a public split, and settings that read it."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    y_N = np.arange(90) % 3
    src = np.repeat(np.arange(90), 4)
    dst = (src + 3 * draws.integers(1, 29, len(src))) % 90
    x_NF = draws.normal(size=(90, 6)) + 2 * np.eye(6)[y_N]
    role = np.arange(90) // 30
    if labels_seed is not None:
        y_N = np.random.default_rng(labels_seed).permutation(y_N)
    np.savez(
        folder / "graph.npz", node_features=x_NF.astype(np.float32), node_labels=y_N,
        edges=np.stack([src, dst], 1), train_masks=(role == 0)[None],
        val_masks=(role == 1)[None], test_masks=(role == 2)[None],
    )  # fmt: skip
    source = [
        "dataset.format=heterophilous_npz",
        f"dataset.path={folder / 'graph.npz'}",
        "dataset.name=masked",
    ]
    plain = [item for item in TINY if not item.startswith(("dataset.", "method."))]
    return load_config(preset="none", overrides=["method.embedding_size=8", *plain, *source, *overrides])[0]


def test_permuted_labels_change_the_evaluation_and_nothing_before_it(tmp_path: Path) -> None:
    """Stores of their own, so that nothing is equal because it was cached."""
    one = run_direct(masked_graph(tmp_path / "a"), tmp_path / "one", until="evaluate")
    two = run_direct(masked_graph(tmp_path / "b", labels_seed=1), tmp_path / "two", until="evaluate")
    assert one.ran == two.ran
    differing = {kind for kind in one.digests if one.digests[kind] != two.digests[kind]}
    assert differing == {"labels", "metrics", "predictions"}


@pytest.mark.parametrize("method", ["affinity", "augmentation", "cluster_margin"])
def test_stages_before_the_evaluation_work_without_readable_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The labels are replaced by garbage behind the store's back; only what reads them can notice."""
    config = masked_graph(tmp_path / "a", f"uncertainty.method={method}")
    expected = run_direct(config, tmp_path / "one", until="evaluate").digests
    run_direct(config, tmp_path / "two", until="ingest")
    monkeypatch.setattr("tasks.store._is_intact", lambda path, entry, *, full: True)
    poisoned = [*(tmp_path / "two").glob("ingest/*/labels/*.parquet")]
    assert len(poisoned) == 2
    for path in poisoned:
        path.chmod(0o600)
        path.write_bytes(b"\0" * path.stat().st_size)
    found = run_direct(config, tmp_path / "two", until="cluster")
    assert found.ran == list(WITHOUT_LABELS)
    assert found.digests == {kind: expected[kind] for kind in found.digests}
    with pytest.raises(Exception, match="(?i)parquet|magic|footer"):
        run_direct(config, tmp_path / "two", until="evaluate")


def test_no_stage_before_the_evaluation_is_handed_labels(tmp_path: Path) -> None:
    run = run_direct(masked_graph(tmp_path / "a"), tmp_path / "store", until="evaluate")
    for name in WITHOUT_LABELS:
        assert "labels" not in STAGES[name][1](run.state).inputs  # type: ignore[index]
    assert "labels" in STAGES["evaluate"][1](run.state).inputs


def test_classes_as_number_of_clusters_takes_the_count_alone(tmp_path: Path) -> None:
    one = run_direct(
        masked_graph(tmp_path / "a", "cluster.num_clusters=classes"), tmp_path / "one", until="cluster"
    )
    two = run_direct(
        masked_graph(tmp_path / "b", "cluster.num_clusters=classes", labels_seed=3),
        tmp_path / "two",
        until="cluster",
    )
    assert one.keys["cluster"] == two.keys["cluster"]
    assert one.digests["clusters"] == two.digests["clusters"]
    table = pq.read_table(one.state.store.path(one.state.artifacts["clusters"]) / "clusters.parquet")
    assert len(set(table.column("cluster").to_pylist())) == 3


@pytest.mark.parametrize("uncertainty", ["affinity", "augmentation"])
def test_dmt_declares_labels_and_opens_those_of_training_nodes(tmp_path: Path, uncertainty: str) -> None:
    settings = ("method.name=dmt", f"uncertainty.method={uncertainty}")
    run = run_direct(masked_graph(tmp_path / "a", *settings), tmp_path / "one", until="evaluate")
    assert "labels" in STAGES["train"][1](run.state).inputs
    assert "labels" not in STAGES["uncertainty"][1](run.state).inputs
    folder = tmp_path / "b"
    config = masked_graph(folder, *settings)
    arrays = dict(np.load(folder / "graph.npz"))
    arrays["node_labels"][30:] = (arrays["node_labels"][30:] + 1) % 3  # of validation and test nodes
    np.savez(folder / "graph.npz", **arrays)
    other = run_direct(config, tmp_path / "two", until="train")
    assert other.digests["labels"] != run.digests["labels"]
    assert other.digests["embeddings"] == run.digests["embeddings"]


def test_held_out_edges_are_scored_and_were_never_trained_on(tmp_path: Path) -> None:
    config = tiny("dataset.edge_holdout=0.1")
    run = run_direct(config, tmp_path / "store", until="evaluate")
    path = {kind: run.state.store.path(artifact) for kind, artifact in run.state.artifacts.items()}
    held_out = pq.read_table(path["labels"] / "held_out_edges.parquet").to_pydict()
    edges = pq.read_table(path["graph"] / "edges.parquet").to_pydict()
    known = set(zip(edges["src"], edges["dst"], strict=True))
    pairs = zip(held_out["src"], held_out["dst"], held_out["is_edge"], strict=True)
    asked = {(src, dst) for src, dst, is_edge in pairs if is_edge}
    assert asked
    assert not asked & known
    assert not {(dst, src) for src, dst in asked} & known
    rows = pq.read_table(path["metrics"] / "metrics.parquet").to_pylist()
    scored = {
        row["metric"]: row["value"]
        for row in rows
        if row["protocol"] == "link-10-5" and row["split"] == "test"
    }
    assert {"auc", "average_precision"} <= set(scored)
    assert json.loads((path["graph"] / "metadata.json").read_text())["edge_holdout"] == 0.1


@pytest.mark.parametrize("kind", ["embeddings", "smoothed", "controls"])
def test_embeddings_of_the_full_graph_are_refused_for_held_out_edges(tmp_path: Path, kind: str) -> None:
    full = run_direct(tiny(), tmp_path / "store", until="cluster")
    run = run_direct(tiny("dataset.edge_holdout=0.1"), tmp_path / "store", until="cluster")
    run.state.artifacts[kind] = full.state.artifacts[kind]
    stage, make_request = STAGES["evaluate"]
    with pytest.raises(EmbeddingsOfAnotherGraph, match=f"{kind} were made from graph"):
        stage.execute(make_request(run.state), run.state.store)


def test_smoothing_gives_the_same_bytes_here_and_on_dask_workers(tmp_path: Path) -> None:
    here = run_direct(tiny("smooth.backend=direct"), tmp_path / "one", until="smooth")
    config = tiny("smooth.backend=dask", "smooth.num_workers=1", "smooth.block_columns=3")
    there = run_direct(config, tmp_path / "two", until="smooth")
    assert here.keys == there.keys
    assert here.ran == there.ran == ["ingest", "smooth"]
    assert here.digests == there.digests
    assert not list((tmp_path / "two" / ".scratch").iterdir())
