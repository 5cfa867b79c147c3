"""Heterogeneous graphs and metapaths as tables, under their contracts, and back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from data_contracts import ContractViolation, check_table
from gcl.hetero_graph import HeteroGraph, Metapath
from gcl.metapath_steps import MetapathPlan, Step
from tasks.hetero_tables import (
    read_hetero,
    read_metapaths,
    read_plans,
    read_target_ids,
    write_hetero,
    write_metapath_edges,
)
from tasks.store import Store
from tasks.work import Work
from tests.tiny_runs import key_of

BUYS, FOLLOWS = ("user", "buys", "item"), ("user", "follows", "user")
IDS = {"user": pa.array(["ann", "bob", "cyd"]), "item": pa.array([7, 5])}
PLAN = MetapathPlan("UIU", (Step(BUYS), Step(BUYS, True)), "add", "count", max_fanout=9, nnz=4)


def graph_of(**changes: object) -> HeteroGraph:
    fields: dict[str, object] = {
        "target": "user",
        "num_nodes": {"user": 3, "item": 2},
        "edges": {BUYS: (np.array([0, 0, 2]), np.array([0, 1, 1])), FOLLOWS: (np.array([1]), np.array([0]))},
        "features": {
            "user": np.array([[0, 1.5], [2, 0], [0, 0]], np.float32),
            "item": sp.csr_matrix(np.eye(2, 4), dtype=np.float32),
        },
        "weights": {BUYS: np.array([1, 2.5, 3], np.float32)},
    }
    return HeteroGraph(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    (tmp_path / "out").mkdir()
    store = Store(tmp_path / "store")
    return Work(stage="ingest", key=key_of("x"), store=store, folder=tmp_path / "out", inputs={}, facts={})


def checked(work: Work) -> Path:
    for path in sorted(work.folder.glob("*/*.parquet")):
        table = f"{path.parent.name}.{path.stem}"
        check_table(path, table, context=work.expectations.get(table, {}))
    return work.folder / "hetero"


@pytest.mark.parametrize("is_weighted", [True, False])
def test_a_graph_comes_back_as_it_was(is_weighted: bool, work: Work) -> None:
    """Ids of two types, dense and sparse features, weights of one relation, a plan that has everything."""
    graph = graph_of() if is_weighted else graph_of(weights={})
    write_hetero(work, graph, IDS, (PLAN,), notes={"skipped": 2})
    folder = checked(work)
    again = read_hetero(folder)
    assert (again.target, again.num_nodes) == ("user", {"item": 2, "user": 3})
    for relation, edges in graph.edges.items():
        np.testing.assert_array_equal(again.edges[relation], edges)
    assert isinstance(again.features["user"], np.ndarray)
    np.testing.assert_array_equal(again.features["user"], graph.features["user"])
    np.testing.assert_array_equal(again.features["item"].toarray(), np.eye(2, 4))
    if is_weighted:
        np.testing.assert_array_equal(again.weights[BUYS], [1, 2.5, 3])
        np.testing.assert_array_equal(again.weights[FOLLOWS], [1])
    else:
        assert not again.weights
    assert read_plans(folder) == (PLAN,)
    assert read_target_ids(folder).equals(IDS["user"])


def test_integers_stay_integers_beside_text(work: Work) -> None:
    write_hetero(work, graph_of(target="item"), IDS, (), notes={})
    assert read_target_ids(checked(work)).equals(IDS["item"])


def test_a_graph_without_features_has_no_table_of_them(work: Work) -> None:
    write_hetero(work, graph_of(features={}), IDS, (), notes={})
    assert read_hetero(checked(work)).features == {}
    assert not (work.folder / "hetero" / "features.parquet").exists()


def test_broken_features_are_a_violation(work: Work) -> None:
    x_NF = np.array([[np.nan, 1], [0, 0], [0, 0]], np.float32)
    write_hetero(work, graph_of(features={"user": x_NF}), IDS, (), notes={})
    with pytest.raises(ContractViolation, match="features_finite"):
        checked(work)


@pytest.mark.parametrize("has_weights", [True, False])
def test_metapaths_come_back_in_their_order(has_weights: bool, work: Work) -> None:
    draws = np.random.default_rng(0)
    found = [
        Metapath(
            name, sp.csr_matrix((draws.random((6, 6)) < 0.4) * draws.integers(1, 4, (6, 6)), dtype=np.float32)
        )
        for name in ("B", "A")
    ]
    if not has_weights:
        for metapath in found:
            metapath.adjacency_NN.data[:] = 1
    folder = work.output("metapaths")
    written = list(write_metapath_edges(folder / "edges.parquet", iter(found), has_weights=has_weights))
    rows = [{"name": metapath.name, "num_entries": metapath.adjacency_NN.nnz} for metapath in written]
    work.describe("metapaths", {"num_nodes": 6, "metapaths": rows})
    work.expect(
        "metapaths.edges", num_nodes=6, num_metapaths=2, num_edges=sum(row["num_entries"] for row in rows)
    )
    checked(work)
    for first, second in zip(found, read_metapaths(folder), strict=True):
        assert first.name == second.name
        assert second.adjacency_NN.dtype == np.float32
        assert second.adjacency_NN.has_canonical_format
        np.testing.assert_array_equal(first.adjacency_NN.toarray(), second.adjacency_NN.toarray())
