"""Ingest of collections: what stands in the tables, and what comes back out of them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from flows.config import load_config
from gcl.errors import InvalidGraph
from gcl.readers.collection_base import read_collection as read_in_memory
from tasks.collection_tables import read_collection
from tests.collection_sources import ONE_FILE, one_file, tu_text, tu_text_zip
from tests.tiny_runs import run_direct


def ingested(overrides, store: Path, *settings: str):
    config, _ = load_config(
        preset="none", overrides=[*(f"dataset.{k}={v}" for k, v in overrides.items()), *settings]
    )
    run = run_direct(config, store, until="smooth")
    return config, {kind: run.state.store.open(artifact) for kind, artifact in run.state.artifacts.items()}


@pytest.mark.parametrize("wanted", ["labels", "attributes", "degree", "labels_and_attributes", "constant"])
@pytest.mark.parametrize("build", [tu_text, tu_text_zip])
def test_tables_give_the_collection_back(build, wanted, tmp_path: Path) -> None:
    config, folders = ingested(build(tmp_path), tmp_path / "store", f"dataset.node_features={wanted}")
    expected, labels = read_in_memory(config.dataset)
    found = read_collection(folders["collection"])
    assert found.num_graphs == expected.num_graphs == 3
    assert np.array_equal(found.graph_N, expected.graph_N)
    assert np.array_equal(found.union.src_E, expected.union.src_E)
    assert np.array_equal(found.union.dst_E, expected.union.dst_E)
    assert found.union.is_undirected
    one, two = (x.toarray() if sp.issparse(x) else x for x in (found.union.x_NF, expected.union.x_NF))
    assert np.array_equal(one, two)
    label = pq.read_table(folders["labels"] / "labels.parquet").column("label").to_pylist()
    assert label == labels.y_N.tolist()


def test_graphs_are_nodes_whose_features_count_the_labels(tmp_path: Path) -> None:
    _, folders = ingested(tu_text(tmp_path), tmp_path / "store")
    nodes = pq.read_table(folders["graph"] / "nodes.parquet")
    assert nodes.column("node_id").to_pylist() == [1, 2, 3], "as the source counts its graphs"
    assert pq.read_metadata(folders["graph"] / "edges.parquet").num_rows == 0
    counts = pq.read_table(folders["graph"] / "features.parquet").column("x").to_pylist()
    assert counts == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]
    smoothed = pq.read_table(folders["smoothed"] / "features.parquet").column("x").to_pylist()
    np.testing.assert_allclose(smoothed, counts, rtol=1e-5)
    facts = json.loads((folders["graph"] / "metadata.json").read_bytes())
    assert facts["rows"] == "graphs"
    assert facts["features"] == "sums over the nodes of one-hot node labels (3)"


def test_every_row_names_its_graph_and_the_facts_are_told(tmp_path: Path) -> None:
    _, folders = ingested(tu_text(tmp_path), tmp_path / "store")
    for table, graphs in {
        "nodes": [0, 0, 0, 1, 2, 2],
        "features": [0, 0, 0, 1, 2, 2],
        "edges": [0] * 6 + [2, 2],
    }.items():
        found = pq.read_table(folders["collection"] / f"{table}.parquet")
        assert found.column_names[0] == "graph"
        assert found.column("graph").to_pylist() == graphs
    facts = json.loads((folders["collection"] / "metadata.json").read_bytes())
    assert {name: facts[name] for name in ("num_graphs", "num_nodes", "num_edges", "source_edges")} == {
        "num_graphs": 3, "num_nodes": 6, "num_edges": 8, "source_edges": 8
    }  # fmt: skip
    assert facts["features"] == "one-hot node labels (3)"


def test_the_same_graphs_have_the_same_bytes_from_a_folder_and_a_zip(tmp_path: Path) -> None:
    digests = []
    for build in (tu_text, tu_text_zip):
        config, _ = load_config(
            preset="none", overrides=[f"dataset.{k}={v}" for k, v in build(tmp_path).items()]
        )
        digests.append(run_direct(config, tmp_path / "store", until="ingest").digests)
    assert digests[0] == digests[1]


def test_graphs_without_labels_are_ingested(tmp_path: Path) -> None:
    _, folders = ingested(tu_text(tmp_path, graph_labels=None), tmp_path / "store")
    assert not (folders["labels"] / "labels.parquet").exists()


def test_graphs_without_label_have_none_in_the_table(tmp_path: Path) -> None:
    _, folders = ingested(tu_text(tmp_path, graph_labels="2\n?\n1\n"), tmp_path / "store")
    label = pq.read_table(folders["labels"] / "labels.parquet").column("label").to_pylist()
    assert label == [1, None, 0]


@pytest.mark.parametrize("text", ["0\n", "2\n0 1\n0 1\n"])
def test_collections_without_nodes_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="some_node_present"):
        ingested(one_file(tmp_path, text), tmp_path / "store")


def test_edges_without_their_opposite_get_it(tmp_path: Path) -> None:
    one_way = ONE_FILE.replace("0 2 1 2", "0 1 1").replace("5 2 0 1", "5 1 0")
    _, folders = ingested(one_file(tmp_path, one_way), tmp_path / "store")
    facts = json.loads((folders["collection"] / "metadata.json").read_bytes())
    assert (facts["num_edges"], facts["source_one_way"]) == (8, 2)
