"""Heterogeneous graphs from and to dgl and PyG; metapaths as dgl computes them."""

import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from gcl.errors import InvalidGraph
from gcl.hetero_findings import InvalidHetero
from gcl.hetero_graph import HeteroGraph
from gcl.interop_hetero import from_arrays, from_dgl, from_pyg, to_dgl, to_pyg
from gcl.metapath_steps import MetapathPlan, parse_metapath

BUYS, LIKES = ("user", "buys", "item"), ("user", "likes", "item")
SIZES = {"user": 5, "item": 3}


def shop(**options: Any) -> HeteroGraph:
    edges = {BUYS: ([3, 0, 0, 4], [0, 1, 0, 2]), LIKES: ([0, 1, 2], [0, 0, 2])}
    features = {"user": np.arange(10).reshape(5, 2), "item": sp.csr_matrix(np.eye(3))}
    return from_arrays(edges, SIZES, target="user", **{"features": features} | options)


def same(first: HeteroGraph, second: HeteroGraph) -> bool:
    def dense(x: Any) -> np.ndarray:
        return np.asarray(x.toarray() if sp.issparse(x) else x)

    return (
        (first.target, dict(first.num_nodes)) == (second.target, dict(second.num_nodes))
        and first.edges.keys() == second.edges.keys()
        and all(np.array_equal(first.edges[r], second.edges[r]) for r in first.edges)
        and first.features.keys() == second.features.keys()
        and all(np.array_equal(dense(first.features[t]), dense(second.features[t])) for t in first.features)
        and first.weights.keys() == second.weights.keys()
        and all(np.array_equal(first.weights[r], second.weights[r]) for r in first.weights)
    )


def test_edges_are_sorted_and_repeats_counted_once() -> None:
    graph = shop()
    assert [part.tolist() for part in graph.edges[BUYS]] == [[0, 0, 3, 4], [0, 1, 0, 2]]
    again = from_arrays({BUYS: ([0, 0, 1], [1, 1, 0])}, SIZES, target="user")
    assert [part.tolist() for part in again.edges[BUYS]] == [[0, 1], [1, 0]]
    weighted = from_arrays({BUYS: ([0, 0], [1, 1])}, SIZES, target="user", weights={BUYS: [2, 3]})
    assert weighted.weights[BUYS].tolist() == [5]


def test_a_relation_that_is_another_turned_round_is_not_kept() -> None:
    edges = {BUYS: ([0, 1], [2, 0]), ("item", "bought_by", "user"): ([2, 0], [0, 1])}
    assert list(from_arrays(edges, SIZES, target="user").edges) == [BUYS]
    edges["item", "bought_by", "user"] = ([2, 1], [0, 1])
    assert len(from_arrays(edges, SIZES, target="user").edges) == 2


def test_relations_that_look_like_reverses_are_kept_and_those_called_so_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both_ways, nothing = ([0, 1], [1, 0]), (np.zeros(0, np.int64), np.zeros(0, np.int64))
    friend, enemy, bought_by = ("user", "friend", "user"), ("user", "enemy", "user"), ("item", "by", "user")
    edges = {friend: both_ways, enemy: both_ways, BUYS: nothing, bought_by: nothing}
    assert from_arrays(edges, SIZES, target="user").edges.keys() == edges.keys()
    for name in ("rev_friend", "friend-rev", "rev-friend", "friend_rev"):
        edges = {("user", name, "user"): both_ways, friend: both_ways}
        assert list(from_arrays(edges, SIZES, target="user").edges) == [friend]
    reverses = {BUYS: nothing, ("item", "rev_buys", "user"): nothing}
    assert list(from_arrays(reverses, SIZES, target="user").edges) == [BUYS]
    assert not caplog.records
    cites, cited = ("user", "cites", "user"), ("user", "cited", "user")
    with caplog.at_level("INFO"):
        found = from_arrays({cites: ([0], [1]), cited: ([1], [0])}, SIZES, target="user")
    assert list(found.edges) == [cites]
    assert "user/cited/user is user/cites/user turned round and left out" in caplog.text


@pytest.mark.parametrize("weights", [{}, {BUYS: [1.0, 2.0, 3.0, 4.0]}])
def test_dgl_there_and_back(weights: dict[Any, Any]) -> None:
    pytest.importorskip("dgl")
    graph = shop(weights=weights)
    heterograph = to_dgl(graph)
    assert ("item", "rev_buys", "user") in heterograph.canonical_etypes
    assert same(from_dgl(heterograph, target="user"), graph)


def test_isolated_last_nodes_survive_dgl() -> None:
    pytest.importorskip("dgl")
    graph = from_arrays({BUYS: ([0], [0])}, SIZES, target="user")
    assert from_dgl(to_dgl(graph), target="user").num_nodes == SIZES


def test_metapaths_are_those_of_dgl() -> None:
    dgl = pytest.importorskip("dgl")
    graph = shop()
    for names in (("buys", "buys"), ("buys", "likes"), ("likes", "buys")):
        text = f"user >{names[0]}> item <{names[1]}< user"
        plan = MetapathPlan("M", parse_metapath(text, list(graph.edges))[1], self_loops="keep")
        from gcl.metapaths import _adjacency, _half  # rows may be empty here, which a stage would refuse

        found = _adjacency(graph, plan, _half(graph, plan, 100), seed=0)
        theirs = dgl.metapath_reachable_graph(to_dgl(graph), [names[0], f"rev_{names[1]}"])
        src, dst = theirs.edges()
        expected = np.zeros((5, 5))
        expected[src.numpy(), dst.numpy()] = 1
        np.testing.assert_array_equal(found.toarray(), expected)


class FakeHeteroData:
    """What is used of PyG's HeteroData, where it is not installed."""

    def __init__(self) -> None:
        self.stores: dict[Any, SimpleNamespace] = defaultdict(SimpleNamespace)

    def __getitem__(self, key: Any) -> SimpleNamespace:
        return self.stores[key]

    @property
    def node_types(self) -> list[str]:
        return [key for key in self.stores if isinstance(key, str)]

    @property
    def edge_types(self) -> list[tuple[str, str, str]]:
        return [key for key in self.stores if isinstance(key, tuple)]


@pytest.mark.parametrize("weights", [{}, {LIKES: [1.0, 2.0, 3.0]}])
def test_pyg_there_and_back(weights: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        import torch_geometric.data  # noqa: F401
    except ImportError:
        module: Any = ModuleType("torch_geometric.data")
        module.HeteroData = FakeHeteroData
        monkeypatch.setitem(sys.modules, "torch_geometric", ModuleType("torch_geometric"))
        monkeypatch.setitem(sys.modules, "torch_geometric.data", module)
    graph = shop(weights=weights)
    data = to_pyg(graph)
    assert data["user", "buys", "item"].edge_index.dtype == torch.int64
    data["user"].y = torch.zeros(5)
    assert same(from_pyg(data, target="user"), graph)


@pytest.mark.parametrize(("convert", "library"), [(to_dgl, "dgl"), (to_pyg, "torch_geometric")])
def test_a_missing_library_is_named(convert: Any, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.data", None)
    with pytest.raises(ImportError, match=f"needs {library}"):
        convert(shop())


def test_what_is_not_sound_is_refused() -> None:
    with pytest.raises(InvalidHetero, match="H07 .*band"):
        from_arrays({("user", "likes", "band"): ([0], [0])}, SIZES, target="user")
    with pytest.raises(InvalidHetero, match="H07 .*shop"):
        from_arrays({BUYS: ([0], [0])}, SIZES, target="shop")
    with pytest.raises(InvalidHetero, match=r"H06 .*5, 0"):
        from_arrays({BUYS: ([5], [0])}, SIZES, target="user")
    with pytest.raises(InvalidHetero, match=r"H09 .*edge 0: 0\.0"):
        from_arrays({BUYS: ([0], [0])}, SIZES, target="user", weights={BUYS: [0]})
    with pytest.raises(InvalidHetero, match="H16 .*user: 4 rows, 5 nodes"):
        shop(features={"user": np.ones((4, 2))})
    with pytest.raises(InvalidGraph, match="features_finite"):
        shop(features={"user": np.full((5, 2), np.nan)})


@pytest.mark.parametrize(
    ("src", "told"),
    [
        ([0, 1.5], r"H06 edges user/buys/item: rule positions_are_whole_numbers .*source 1\.5"),
        ([0, np.nan], "H06 .*source nan"),
        (torch.tensor([0.0, torch.inf]), "H06 .*source inf"),
        ([0, 1e30], r"H06 .*source 1e\+30"),
        (["0", "1"], "H06 .*sources are an array of <U1"),
        ([True, False], "H06 .*sources are an array of bool"),
        ([[0, 1]], r"H06 .*shape \(1, 2\)"),
        ([0], "H16 edges user/buys/item: .*1 sources, 2 targets"),
    ],
)
def test_positions_are_whole_numbers_and_as_many_on_both_sides(src: Any, told: str) -> None:
    with pytest.raises(InvalidHetero, match=told):
        from_arrays({BUYS: (src, [0, 0])}, SIZES, target="user")
    assert from_arrays({BUYS: ([0.0, 1.0], [0, 0])}, SIZES, target="user").edges[BUYS][0].dtype == np.int64


def test_weights_are_of_a_relation_and_one_an_edge() -> None:
    with pytest.raises(InvalidHetero, match="H07 hetero.edges weight: .*user/likes/item"):
        from_arrays({BUYS: ([0], [0])}, SIZES, target="user", weights={LIKES: [1]})
    for weights in ([1.0], [1.0, 2.0, 3.0], [[1.0, 2.0], [3.0, 4.0]]):
        with pytest.raises(InvalidHetero, match="H16 edges user/buys/item: .*2 sources, 2 targets, [134] we"):
            from_arrays({BUYS: ([0, 1], [0, 0])}, SIZES, target="user", weights={BUYS: weights})
