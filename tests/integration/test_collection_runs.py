"""Collections through the pipeline: every method, every uncertainty, predictions a graph, the report."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.config import load_config
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.svm import svm_rows
from gcl.graph import Labels
from tests.tiny_runs import DirectRun, run_direct

pytestmark = pytest.mark.slow
NUM_GRAPHS = 80
SMALL = (
    "method.hidden_size=8", "method.num_layers=2", "train.epochs=3", "train.batch_size=40",
    "cluster.num_clusters=classes", "cluster.num_restarts=1", "cluster.num_stability_runs=0",
    "evaluate.num_splits=1", "evaluate.num_clustering_seeds=1", "evaluate.num_restarts=1",
    "evaluate.probe_c=[0.25, 1.0]",
)  # fmt: skip


def write_rings_and_stars(folder: Path) -> Path:
    """Rings and stars of 5 to 9 nodes with the same labels: only edges tell them apart."""
    generator = np.random.default_rng(0)
    lines = [str(NUM_GRAPHS)]
    for graph in range(NUM_GRAPHS):
        size, is_star = int(generator.integers(5, 10)), graph % 2
        lines.append(f"{size} {is_star}")
        for node in range(size):
            beside = [(node - 1) % size, (node + 1) % size]
            towards = list(range(1, size)) if node == 0 else [0]
            neighbours = towards if is_star else beside
            lines.append(f"{generator.integers(3)} {len(neighbours)} {' '.join(map(str, neighbours))}")
    path = folder / "RINGS.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(folder: Path, *settings: str) -> DirectRun:
    path = write_rings_and_stars(folder)
    overrides = ["dataset.format=tu_powerful_gnns", f"dataset.path={path}", *SMALL, *settings]
    return run_direct(load_config(preset="none", overrides=overrides)[0], folder / "store")


def table(found: DirectRun, kind: str, name: str) -> pq.ParquetFile:
    return pq.read_table(found.state.store.open(found.state.artifacts[kind]) / f"{name}.parquet")


def metrics_of(found: DirectRun) -> dict[tuple[str, str, str, str], float]:
    rows = table(found, "metrics", "metrics").to_pylist()
    return {(row["protocol"], row["split"], row["embedding"], row["metric"]): row["value"] for row in rows}


@pytest.mark.parametrize(
    ("name", "uncertainty", "more"),
    [
        ("graphcl", "affinity", ()),
        ("augcl", "augmentation", ("method.warmup_epochs=1", "method.fit_passes=1")),
        ("progcl", "cluster_margin", ("method.start_epoch=1",)),
    ],
)
def test_every_stage_answers_for_every_graph(name, uncertainty, more, tmp_path: Path) -> None:
    found = run(tmp_path, f"method.name={name}", f"uncertainty.method={uncertainty}", *more)
    metrics = metrics_of(found)
    for embedding in ("method", "smoothed", "random_init"):
        for protocol in ("svm-10fold", "random-80-10-10", "kmeans-final"):
            part = "all" if protocol == "kmeans-final" else "test"
            assert 0 <= metrics[protocol, part, embedding, "accuracy"] <= 1
    assert metrics["svm-10fold", "test", "random_init", "accuracy"] > 0.9, "sums over neighbours tell them"
    assert metrics["svm-10fold", "test", "smoothed", "accuracy"] < 0.7, "labels alone do not"
    scores = table(found, "uncertainty", "uncertainty").column("uncertainty").to_numpy()
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > NUM_GRAPHS / 2
    answers = table(found, "predictions", "predictions").to_pandas()
    assert len(answers) == NUM_GRAPHS
    assert answers[["predicted", "confidence", "entropy", "abstain"]].notna().all().all()
    assert answers["confidence"].between(0.5, 1).all()
    curves = set(table(found, "predictions", "curves").column("curve").to_pylist())
    assert {"risk_coverage_confidence", "risk_coverage_uncertainty", "reliability"} <= curves
    assert ("negatives" in found.state.artifacts) == (name != "graphcl")
    report = (found.state.store.open(found.state.artifacts["report"]) / "report.html").read_text()
    for told in (
        f"{NUM_GRAPHS} graphs of", "one-hot node labels (3)", "svm-10fold", "graph_classification",
        "random_init is the untrained encoder", "10 folds",
    ):  # fmt: skip
        assert told in report


def test_graphs_without_label_are_answered_and_in_no_fold_or_figure(tmp_path: Path) -> None:
    path, new = write_rings_and_stars(tmp_path), np.arange(0, NUM_GRAPHS, 8)
    lines = path.read_text().split("\n")
    heads = [place for place, line in enumerate(lines) if len(line.split()) == 2]
    for graph in new:
        lines[heads[graph]] = lines[heads[graph]].split()[0] + " ?"
    path.write_text("\n".join(lines))
    overrides = ["dataset.format=tu_powerful_gnns", f"dataset.path={path}", *SMALL, "method.name=graphcl"]
    found = run_direct(load_config(preset="none", overrides=overrides)[0], tmp_path / "store")
    answers = table(found, "predictions", "predictions").to_pandas().iloc[new]
    assert answers[["predicted", "confidence", "entropy", "abstain"]].notna().all().all()
    assert (answers["predicted"] == 0).mean() > 0.5, "all of them are rings"

    known = np.setdiff1d(np.arange(NUM_GRAPHS), new)
    labels = Labels((known % 2).astype(np.int32), ("0", "1"))
    z_GD = np.stack(table(found, "embeddings", "embeddings").column("z").to_numpy())[known]
    config = EvaluateConfig()
    expected = svm_rows(z_GD, labels, config, protocol="svm-10fold", embedding="method", seed=0)
    metrics = metrics_of(found)
    for row in expected:
        assert metrics["svm-10fold", row.split, "method", row.metric] == pytest.approx(row.value)
    for protocol, part, number in (("random-80-10-10", "test", 7), ("kmeans-final", "all", 70)):
        right = number * metrics[protocol, part, "method", "accuracy"]
        assert right == pytest.approx(round(right)), "a share of the labelled graphs"
    report = (found.state.store.open(found.state.artifacts["report"]) / "report.html").read_text()
    assert "calibration graphs guarantees" in report
    assert "every graph abstains" in report
    assert "calibration nodes" not in report


def test_a_consensus_of_checks_and_methods_on_rows_run_on_graphs_too(tmp_path: Path) -> None:
    consensus = ("cluster.algorithm=consensus", "train.num_checks=3", "method.name=graphcl")
    found = run(tmp_path, *consensus)
    assert ("consensus-final", "all", "method", "nmi") in metrics_of(found)
    rows = [setting for setting in SMALL if "num_layers" not in setting]
    path = write_rings_and_stars(tmp_path)
    overrides = ["dataset.format=tu_powerful_gnns", f"dataset.path={path}", *rows, "method.name=dmat_i"]
    of_rows = run_direct(
        load_config(preset="none", overrides=overrides)[0], tmp_path / "store", until="train"
    )
    assert len(table(of_rows, "embeddings", "embeddings")) == NUM_GRAPHS


def test_another_seed_trains_again_and_nothing_before_it(tmp_path: Path) -> None:
    first = run(tmp_path, "method.name=augcl", "method.warmup_epochs=1")
    again = run(tmp_path, "method.name=augcl", "method.warmup_epochs=1")
    assert again.ran == []
    assert again.digests == first.digests
    other = run(tmp_path, "method.name=augcl", "method.warmup_epochs=1", "seed=1")
    assert other.ran == ["train", "uncertainty", "cluster", "evaluate", "report"]
    assert other.digests["embeddings"] != first.digests["embeddings"]
    assert other.digests["collection"] == first.digests["collection"]


@pytest.mark.real_data
def test_mutag_runs_to_its_report(real_data: Path, tmp_path: Path) -> None:
    """The released schedule: 20 epochs, 10 passes of the estimator, 20 epochs."""
    config, _ = load_config(
        preset="mutag-augcl", overrides=[f"dataset.path={real_data / 'tu_text' / 'MUTAG'}"]
    )
    found = run_direct(config, tmp_path / "store")
    history = table(found, "model", "history").to_pandas()
    assert len(history) == 40
    assert (history["weighted_share"][:20] == 1).all()
    assert (history["weighted_share"][20:] < 1).all()
    metrics = metrics_of(found)
    assert metrics["svm-10fold", "test", "method", "accuracy"] > 0.8
    assert metrics["svm-10fold", "test", "random_init", "accuracy"] > 0.75
    assert len(table(found, "predictions", "predictions")) == 188
