"""Tables to objects and back: dense, sparse, weighted, with ids of either kind, and with nulls."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from data_contracts.tables import TABLES
from gcl.graph import Split
from tasks import convert
from tasks.convert import (
    num_rows,
    read_checks,
    read_column,
    read_graph,
    read_labels,
    read_matrix,
    read_node_ids,
    read_rows,
    read_splits,
    schema_metadata,
    sparse_lists,
    split_columns,
    write_batches,
    write_checks,
    write_columns,
    write_matrix,
)


def write_graph(folder: Path, **metadata: object) -> None:
    (folder / "metadata.json").write_text(json.dumps({"num_nodes": 3, "is_undirected": True} | metadata))


def write_edges(folder: Path, **columns: object) -> None:
    extra = [name for name in columns if name == "weight"]
    edges = {"src": np.array([0, 1, 1]), "dst": np.array([1, 0, 2])} | columns
    write_columns(folder / "edges.parquet", "graph.edges", edges, extra_columns=extra)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (0, 4), (1000, 17)])
def test_a_matrix_survives_bit_for_bit(tmp_path: Path, shape: tuple[int, int]) -> None:
    x_NF = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = tmp_path / "features.parquet"
    assert write_matrix(path, "smoothed.features", x_NF, others={"node": np.arange(len(x_NF))}) == len(x_NF)
    found = read_matrix(path, "x")
    assert found.dtype == np.float32
    assert found.tobytes() == x_NF.tobytes()
    assert num_rows(path) == len(x_NF)
    assert read_column(path, "node").tolist() == list(range(len(x_NF)))


def test_a_large_matrix_is_written_and_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "_ROW_GROUP_BYTES", 64)
    x_NF = np.arange(300, dtype=np.float64).reshape(100, 3)  # cast on the way, block by block
    path = tmp_path / "features.parquet"
    write_matrix(path, "smoothed.features", x_NF, others={"node": np.arange(100)})
    assert pq.read_metadata(path).num_row_groups == 20
    assert np.array_equal(read_matrix(path, "x"), x_NF)


def clusters_columns(num_nodes: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    return {
        "node": np.arange(num_nodes),
        "node_id": pa.array([str(node) for node in range(num_nodes)]),
        "cluster": rng.integers(3, size=num_nodes),
        "confidence": np.broadcast_to(np.float32(0.5), num_nodes),
        "membership": rng.random((num_nodes, 3), np.float32),
    }


def test_columns_are_written_in_blocks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts, columns = tmp_path / "whole.parquet", tmp_path / "parts.parquet", clusters_columns(100)
    write_columns(whole, "clusters.clusters", columns, node_id_type=pa.string())
    monkeypatch.setattr(convert, "_COLUMN_BYTES", 7 * 3 * 4)
    assert write_columns(parts, "clusters.clusters", columns, node_id_type=pa.string()) == 100
    assert pq.read_metadata(whole).num_row_groups == 1
    assert pq.read_metadata(parts).num_row_groups == 15, "the wide column sets the size of a block"
    assert pq.read_table(parts).equals(pq.read_table(whole))


def test_columns_of_different_lengths_are_refused(tmp_path: Path) -> None:
    columns = clusters_columns(5) | {"cluster": np.zeros(4, np.int64)}
    with pytest.raises(ValueError, match=r"clusters\.clusters.*'cluster': 4"):
        write_columns(tmp_path / "a.parquet", "clusters.clusters", columns, node_id_type=pa.string())


def test_a_dense_weighted_graph_survives(tmp_path: Path) -> None:
    x_NF = np.eye(3, 2, dtype=np.float32)
    write_graph(tmp_path, is_undirected=False)
    write_edges(tmp_path, weight=np.array([0.5, 1, 2], np.float32))
    schema = TABLES["graph.features"].schema(layout="dense", width=2, metadata={"num_features": "2"})
    write_batches(
        tmp_path / "features.parquet", schema, [pa.record_batch([convert.dense_lists(x_NF)], schema=schema)]
    )
    graph = read_graph(tmp_path)
    assert (graph.num_nodes, graph.num_edges, graph.is_undirected) == (3, 3, False)
    assert graph.src_E.tolist() == [0, 1, 1]
    assert graph.weight_E is not None
    assert graph.weight_E.tolist() == [0.5, 1, 2]
    assert np.array_equal(graph.x_NF, x_NF)  # type: ignore[arg-type]
    assert read_graph(tmp_path, with_features=False).x_NF is None


def test_a_sparse_graph_survives_its_empty_rows_and_order(tmp_path: Path) -> None:
    x_NF = sp.csr_matrix(np.array([[0, 0, 3], [0, 0, 0], [1, 0, 2]], np.float32))
    x_NF.indices[1:3] = x_NF.indices[[2, 1]]  # as a source may have them, unsorted within a row
    x_NF.data[1:3] = x_NF.data[[2, 1]]
    expected = x_NF.toarray()
    write_graph(tmp_path)
    write_edges(tmp_path)
    schema = TABLES["graph.features"].schema(layout="sparse", width=3, metadata={"num_features": "3"})
    blocks = [
        pa.record_batch(list(sparse_lists(x_NF[rows])), schema=schema) for rows in (slice(0, 2), slice(2, 3))
    ]
    write_batches(tmp_path / "features.parquet", schema, blocks)
    graph = read_graph(tmp_path)
    assert sp.issparse(graph.x_NF)
    assert np.array_equal(graph.x_NF.toarray(), expected)  # type: ignore[union-attr]
    assert graph.x_NF.has_sorted_indices  # type: ignore[union-attr]
    assert graph.num_features == 3
    assert graph.weight_E is None


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([2**63 - 1, 2**53 + 1, 0]),
        pa.array(["001", "1", "ä\n\"',"]),
    ],
)
def test_node_ids_are_kept_exactly(tmp_path: Path, ids: pa.Array) -> None:
    columns = {"node": np.arange(3), "node_id": ids}
    write_columns(tmp_path / "nodes.parquet", "graph.nodes", columns, node_id_type=ids.type)
    assert read_node_ids(tmp_path).equals(ids)


def test_a_node_without_label_is_null_in_the_table_and_minus_one_inside(tmp_path: Path) -> None:
    y_N = np.array([1, -1, 0])
    names = json.dumps(["a", "ü"])
    write_columns(
        tmp_path / "labels.parquet", "labels.labels",
        {"node": np.arange(3), "label": pa.array(y_N, mask=y_N < 0)}, metadata={"class_names": names},
    )  # fmt: skip
    assert pq.read_table(tmp_path / "labels.parquet").column("label").null_count == 1
    labels = read_labels(tmp_path)
    assert labels is not None
    assert (labels.y_N.tolist(), labels.class_names) == ([1, -1, 0], ("a", "ü"))
    assert schema_metadata(tmp_path / "labels.parquet", "class_names") == ["a", "ü"]
    assert schema_metadata(tmp_path / "labels.parquet", "absent") is None


def test_a_source_without_labels_or_splits_has_none(tmp_path: Path) -> None:
    assert read_labels(tmp_path) is None
    assert read_splits(tmp_path) == ()


def test_splits_survive_in_their_order_with_empty_roles(tmp_path: Path) -> None:
    splits = [
        Split("second", np.array([0, 4]), np.array([1]), np.array([2, 3])),
        Split("first", np.array([1]), np.empty(0, np.int64), np.array([0, 2])),
    ]
    write_columns(tmp_path / "splits.parquet", "labels.splits", split_columns(splits))
    found = read_splits(tmp_path)
    assert [split.name for split in found] == ["second", "first"]
    for one, other in zip(found, splits, strict=True):
        for role in ("train", "validation", "test"):
            assert getattr(one, role).tolist() == getattr(other, role).tolist()


def test_nulls_of_a_float_column_are_nan_inside(tmp_path: Path) -> None:
    columns = {
        "node": np.arange(2), "node_id": pa.array([5, 6]), "uncertainty": np.array([0.5, np.nan]),
        "method": np.array(["affinity"] * 2, object),
    }  # fmt: skip
    path = tmp_path / "uncertainty.parquet"
    write_columns(path, "uncertainty.uncertainty", columns, node_id_type=pa.int64())
    assert pq.read_table(path).column("uncertainty").null_count == 1, "not scored is null, not a number"
    found = read_column(path, "uncertainty")
    assert found[0] == 0.5
    assert np.isnan(found[1])
    assert read_rows(path)[1]["uncertainty"] is None


def test_pages_carry_checksums(tmp_path: Path) -> None:
    path = tmp_path / "features.parquet"
    x_NF = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    write_matrix(path, "smoothed.features", x_NF, others={"node": np.arange(500)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="(?i)crc|corrupt|checksum"):
        pq.read_table(path, page_checksum_verification=True)


def test_the_same_table_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    x_NF = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    for name in ("a", "b"):
        write_matrix(tmp_path / name, "smoothed.features", x_NF, others={"node": np.arange(50)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("row_bytes", [32 << 20, 4 * 3 * 7])
def test_checks_come_back_epoch_by_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_bytes: int
) -> None:
    """Also when a check is several row groups, whose borders lie elsewhere than those of what is read."""
    monkeypatch.setattr("tasks.convert._ROW_GROUP_BYTES", row_bytes)
    draws = np.random.default_rng(0)
    checks = {epoch: draws.normal(size=(25, 3)).astype(np.float32) for epoch in (2, 5, 9)}
    assert write_checks(tmp_path / "checks.parquet", checks.items(), width=3) == 75
    found = list(read_checks(tmp_path / "checks.parquet", num_nodes=25))
    assert [epoch for epoch, _ in found] == [2, 5, 9]
    for epoch, z_NK in found:
        np.testing.assert_array_equal(z_NK, checks[epoch])
