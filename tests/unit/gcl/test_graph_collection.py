"""Slices of collections against loops over graphs."""

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.errors import InvalidGraph
from gcl.graph import Graph
from gcl.graph_collection import GraphCollection, check_values, ranges
from gcl.methods.base import TrainingData


def make_collection(*, num_graphs=7, sparse=False, seed=0):
    """Random graphs of 0 to 6 nodes, the third without nodes."""
    generator = np.random.default_rng(seed)
    size_G = generator.integers(1, 7, num_graphs)
    size_G[2] = 0
    graph_N = np.repeat(np.arange(num_graphs), size_G)
    pairs = generator.random((len(graph_N), len(graph_N))) < 0.5
    pairs = np.triu(pairs & (graph_N[:, None] == graph_N), 1)
    src_E, dst_E = np.nonzero(pairs | pairs.T)
    x_NF = generator.integers(0, 3, (len(graph_N), 4)).astype(np.float32)
    union = Graph(len(graph_N), src_E, dst_E, sp.csr_matrix(x_NF) if sparse else x_NF)
    return GraphCollection(num_graphs, union, graph_N)


def one_by_one(collection):
    """Adjacency and features of each graph, cut out of the whole matrices."""
    adjacency_NN = collection.union.adjacency_NN().toarray()
    x_NF = collection.union.x_NF
    x_NF = x_NF.toarray() if sp.issparse(x_NF) else x_NF
    own = [collection.graph_N == graph for graph in range(collection.num_graphs)]
    return [(adjacency_NN[np.ix_(nodes, nodes)], x_NF[nodes]) for nodes in own]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("graphs", [[0, 1, 2], [5, 2, 0], [6, 6, 3], [], [2], [4, 1, 0, 3, 2, 6, 5]])
def test_graphs_are_taken_in_the_order_asked_for(graphs, sparse):
    collection = make_collection(sparse=sparse)
    taken = collection.take(np.array(graphs, np.int64))
    whole, parts = one_by_one(collection), one_by_one(taken)
    assert taken.num_graphs == len(parts) == len(graphs)
    for graph, (adjacency, x) in zip(graphs, parts, strict=True):
        assert np.array_equal(adjacency, whole[graph][0])
        assert np.array_equal(x, whole[graph][1])
    keys = taken.union.src_E * max(1, taken.union.num_nodes) + taken.union.dst_E
    assert (np.diff(keys) > 0).all(), "edges stay sorted"
    assert np.diff(taken.first_node_G).tolist() == [len(whole[graph][1]) for graph in graphs]


@pytest.mark.parametrize("sparse", [False, True])
def test_features_are_summed_by_graph(sparse):
    collection = make_collection(sparse=sparse)
    expected = [x.sum(0) for _, x in one_by_one(collection)]
    assert np.array_equal(collection.sum_of_features(), np.array(expected))


def test_edge_weights_go_with_the_edges():
    collection = make_collection()
    union = collection.union
    weighted = Graph(
        union.num_nodes, union.src_E, union.dst_E, weight_E=np.arange(union.num_edges, dtype=np.float32)
    )
    taken = GraphCollection(collection.num_graphs, weighted, collection.graph_N).take(np.array([3]))
    own = collection.graph_N[union.src_E] == 3
    assert taken.union.weight_E.tolist() == np.flatnonzero(own).tolist()
    with pytest.raises(ValueError, match="no features"):
        taken.sum_of_features()


def test_ranges_are_joined():
    assert ranges(np.array([3, 5, 0]), np.array([5, 5, 2])).tolist() == [3, 4, 0, 1]
    assert ranges(np.array([], int), np.array([], int)).tolist() == []


SRC_E, DST_E = np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2])


def two_pairs(*, num_graphs=2, graph_N=(0, 0, 1, 1), src_E=SRC_E, dst_E=DST_E, **more):
    """Two graphs of an edge each."""
    union = Graph(4, np.asarray(src_E), np.asarray(dst_E), **more)
    return GraphCollection(num_graphs, union, np.array(graph_N))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"graph_N": [0, 1, 0, 1]}, "nodes_of_a_graph_consecutive .*first: node 2: graph 0"),
        ({"num_graphs": 1}, "graph_below_1 broken by 2 row.*first: node 2: graph 1"),
        ({"graph_N": [-1, 0, 1, 1]}, "graph_below_2 .*first: node 0: graph -1"),
        ({"graph_N": [0, 0, 0, 1]}, r"edges_within_one_graph .*first: edge 2: \(2, 3\)"),
        ({"dst_E": [1, 0, 4, 2]}, r"endpoints_in_range .*first: edge 2: \(2, 4\)"),
        ({"src_E": [0, 1, -1, 3]}, r"endpoints_in_range .*first: edge 2: \(-1, 3\)"),
        ({"src_E": [1, 0, 2, 3], "dst_E": [0, 1, 3, 2]}, r"edges_sorted.* first: edge 1: \(0, 1\)"),
        ({"src_E": [0, 0, 2, 3], "dst_E": [1, 1, 3, 2]}, r"without_repeats .*first: edge 1: \(0, 1\)"),
    ],
)
def test_what_is_no_collection_is_refused_by_its_rows(wrong, match):
    two_pairs()
    with pytest.raises(InvalidGraph, match=match):
        two_pairs(**wrong)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"graph_N": [0, 0, 1]}, r"graph of each of 4 nodes .* shape \(3,\)"),
        ({"graph_N": [0.0, 0.0, 1.0, 1.0]}, "whole number; found float64"),
        ({"x_NF": np.ones((3, 2), np.float32)}, "x_NF has 3 rows for 4 nodes"),
        ({"weight_E": np.ones(3, np.float32)}, "weight_E has 3 entries for 4 edges"),
        ({"src_E": SRC_E[:3]}, "src_E has 3 entries, dst_E 4"),
    ],
)
def test_arrays_of_the_wrong_length_or_type_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        two_pairs(**wrong)


@pytest.mark.parametrize("sparse", [False, True])
def test_what_training_would_stumble_over_is_found(sparse):
    x_NF = np.array([[0, 1], [0, 0], [np.nan, np.inf], [1, 0]], np.float32)
    broken = two_pairs(x_NF=sp.csr_matrix(x_NF) if sparse else x_NF)
    with pytest.raises(InvalidGraph, match="features_finite broken by 1 .* first: node 2 of graph 1"):
        check_values(broken)
    one_way = two_pairs(src_E=[0, 1, 2], dst_E=[1, 0, 3])
    with pytest.raises(InvalidGraph, match=r"both_directions_present .* first: edge 2: \(2, 3\)"):
        check_values(one_way)
    check_values(two_pairs(src_E=[0, 1, 2], dst_E=[1, 0, 3], is_undirected=False))


def test_data_have_a_row_for_every_graph():
    with pytest.raises(ValueError, match="the collection has 2 graphs, and num_nodes is 5"):
        TrainingData(5, collection=two_pairs())
    assert TrainingData(2, collection=two_pairs()).num_nodes == 2


@pytest.mark.parametrize("sparse", [False, True])
def test_graphs_that_lie_apart_are_joined(sparse):
    collection = make_collection(sparse=sparse)
    parts = [collection.take(np.array([graph])).union for graph in range(collection.num_graphs)]
    joined = GraphCollection.from_graphs(iter(parts))
    assert sp.issparse(joined.union.x_NF) == sparse
    for field in ("src_E", "dst_E"):
        assert np.array_equal(getattr(joined.union, field), getattr(collection.union, field))
    assert np.array_equal(joined.graph_N, collection.graph_N)
    for (one, x_one), (two, x_two) in zip(one_by_one(joined), one_by_one(collection), strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(x_one, x_two)


def test_joined_graphs_keep_weights_and_directions():
    plain = Graph.from_edges([0], [1], num_nodes=3)
    weighted = Graph.from_edges([0], [1], weight=[2.5], directed=True)
    joined = GraphCollection.from_graphs([plain, weighted]).union
    assert joined.weight_E.tolist() == [1, 1, 2.5]
    assert not joined.is_undirected
    assert joined.x_NF is None
    assert GraphCollection.from_graphs([plain, plain]).union.is_undirected


def test_graphs_that_do_not_go_together_are_refused():
    one, two = (Graph.from_edges([0], [1], np.ones((2, width))) for width in (1, 2))
    with pytest.raises(ValueError, match="graph 1 has 2 feature columns, and graph 0 has 1"):
        GraphCollection.from_graphs([one, two])
    with pytest.raises(ValueError, match="graph 1 has 0 feature columns"):
        GraphCollection.from_graphs([one, Graph.from_edges([0], [1])])
    with pytest.raises(TypeError, match=r"graph 1 is a dict: make it .* by Graph\.from_networkx"):
        GraphCollection.from_graphs([one, {}])
    with pytest.raises(ValueError, match="a graph at least"):
        GraphCollection.from_graphs([])
