"""The evaluate stage: what it writes of a sample, in batches that no block size shows in."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tasks.evaluate
from data_contracts.tables import TABLES
from gcl.evaluation.results import PredictedNodes
from tasks.convert import write_batches
from tests.tiny_runs import run_direct, tiny

N = 1000


def predicted(start: int, stop: int) -> PredictedNodes:
    nodes = np.arange(start, stop)
    return PredictedNodes(
        (nodes % 3).astype(np.int32),
        (1 / (1 + nodes)).astype(np.float32),
        (nodes / N).astype(np.float32),
        nodes % 2 == 0,
        np.stack([nodes % 2 == 0, nodes % 3 == 0, nodes % 5 == 0], axis=1),
    )


def written(path: Path, block: int) -> bytes:
    node_ids = pa.array([f"n{node}" for node in range(N)])
    schema = TABLES["predictions.predictions"].schema(node_id_type=node_ids.type)
    answers = (
        tasks.evaluate._answer_columns(predicted(start, min(start + block, N)))
        for start in range(0, N, block)
    )
    assert write_batches(path, schema, tasks.evaluate._prediction_batches(schema, node_ids, answers)) == N
    return path.read_bytes()


def test_predictions_are_the_same_bytes_for_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.evaluate, "_BATCH_ROWS", 300)
    found = [written(tmp_path / f"{block}.parquet", block) for block in (N, 7, 300, 301, 450)]
    assert len(set(found)) == 1
    file = pq.ParquetFile(tmp_path / "7.parquet")
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert sizes == [300, 300, 300, 100]
    rows = file.read().to_pylist()
    assert [row["node"] for row in rows] == list(range(N))
    assert rows[30] == {
        "node": 30,
        "node_id": "n30",
        "predicted": 0,
        "confidence": np.float32(1 / 31),
        "entropy": np.float32(0.03),
        "abstain": True,
        "prediction_set": [0, 1, 2],
    }
    assert rows[7]["prediction_set"] == [] and rows[9]["prediction_set"] == [1]


@pytest.mark.slow
def test_a_sample_is_stated_and_every_node_predicted(tmp_path: Path) -> None:
    run = run_direct(tiny("dataset.nodes=240", "evaluate.max_nodes=120"), tmp_path / "store")
    folders = {kind: run.state.store.open(artifact) for kind, artifact in run.state.artifacts.items()}
    facts = json.loads((folders["metrics"] / "metadata.json").read_bytes())
    assert facts["sample"] == {"num_nodes": 120, "num_labelled": 240, "seed": 0}
    note = "measured on 120 of 240 labelled nodes, drawn with seed 0"
    assert note in facts["notes"]
    assert note in (folders["report"] / "report.html").read_text()
    table = pq.read_table(folders["predictions"] / "predictions.parquet")
    assert table.column("node").to_pylist() == list(range(240))
    assert table.column("predicted").null_count == 0


def test_up_to_the_limit_no_sample_is_stated(tmp_path: Path) -> None:
    run = run_direct(tiny("evaluate.max_nodes=120"), tmp_path / "store", until="evaluate")
    folder = run.state.store.open(run.state.artifacts["metrics"])
    facts = json.loads((folder / "metadata.json").read_bytes())
    assert "sample" not in facts and not any("measured on" in note for note in facts["notes"])


def test_how_the_run_clusters_reaches_the_evaluation_and_its_key(tmp_path: Path) -> None:
    """One store: were the setting no part of the key, the second run would take the first one's figures."""
    protocols = []
    for setting in ("true", "false"):
        run = run_direct(tiny(f"cluster.normalise={setting}"), tmp_path / "store", until="evaluate")
        folder = run.state.store.open(run.state.artifacts["metrics"])
        protocols.append(set(pq.read_table(folder / "metrics.parquet").column("protocol").to_pylist()))
    assert protocols[1] - protocols[0] == {"kmeans-raw"}


def test_graphs_without_nodes_are_told_of():
    assert tasks.evaluate._notes_of_source({}) == []
    facts = {"graphs_without_nodes": 3, "first_graph_without_nodes": 61}
    (note,) = tasks.evaluate._notes_of_source(facts)
    assert note.startswith("3 graphs have no nodes, the first of them graph 61 of the source")
