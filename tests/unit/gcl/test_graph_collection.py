"""Slices of collections against loops over graphs."""

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.graph import Graph
from gcl.graph_collection import GraphCollection, ranges


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
