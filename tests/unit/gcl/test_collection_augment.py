"""Views of collections: how much of each graph changes, what never does, and where released code differs."""

import numpy as np
import pytest
import scipy.sparse as sp

from gcl.collection_augment import POLICIES, Strengths, augment, with_released_loops
from gcl.errors import NotDefined
from gcl.graph import Graph
from gcl.graph_collection import GraphCollection
from gcl.random import numpy_generator

STRENGTHS = Strengths(node_drop=0.25, edge_perturb=0.3, attribute_mask=0.4, subgraph=0.3)


def make_graphs(num_graphs=30, seed=0, density=0.3):
    """Connected random graphs of 6 to 20 nodes; a feature names each node."""
    generator = np.random.default_rng(seed)
    size_G = generator.integers(6, 21, num_graphs)
    graph_N = np.repeat(np.arange(num_graphs), size_G)
    pairs = generator.random((len(graph_N), len(graph_N))) < density
    pairs |= np.eye(len(graph_N), k=1, dtype=bool)  # a path through each graph
    pairs = np.triu(pairs & (graph_N[:, None] == graph_N), 1)
    src_E, dst_E = np.nonzero(pairs | pairs.T)
    x_NF = np.arange(1, len(graph_N) + 1, dtype=np.float32)[:, None]
    return GraphCollection(num_graphs, Graph(len(graph_N), src_E, dst_E, x_NF), graph_N)


def view_of(collection, name, *, seed=0, strengths=STRENGTHS, **options):
    return augment(collection, POLICIES[name], strengths, numpy_generator(seed, "augment"), **options)


def names_of(collection):
    """The nodes of the original that are left, by their feature."""
    return collection.union.x_NF[:, 0].astype(int) - 1


def named_edges(collection):
    node = names_of(collection)
    return set(zip(node[collection.union.src_E].tolist(), node[collection.union.dst_E].tolist(), strict=True))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("bug_compat", [False, True])
def test_views_are_collections_and_repeat_by_their_generator(name, bug_compat):
    original = make_graphs()
    first = view_of(original, name, bug_compat=bug_compat)
    again = view_of(original, name, bug_compat=bug_compat)
    other = view_of(original, name, bug_compat=bug_compat, seed=1)
    for field in ("src_E", "dst_E", "x_NF"):
        assert np.array_equal(getattr(first.union, field), getattr(again.union, field))
    assert any(
        not np.array_equal(getattr(first.union, field), getattr(other.union, field))
        for field in ("src_E", "dst_E", "x_NF")
    )
    union = first.union
    assert first.num_graphs == original.num_graphs
    assert len(first.graph_N) == union.num_nodes == len(union.x_NF)
    assert (np.diff(first.graph_N) >= 0).all()
    assert np.array_equal(first.graph_N[union.src_E], first.graph_N[union.dst_E]), "no edge between graphs"
    assert (np.diff(union.src_E * union.num_nodes + union.dst_E) > 0).all(), "sorted, no repeats"
    assert union.is_undirected == (not bug_compat or "edge_perturb" not in POLICIES[name])
    if union.is_undirected:
        assert named_edges(first) == {(v, u) for u, v in named_edges(first)}


def test_a_share_of_the_nodes_is_dropped_with_their_edges():
    original = make_graphs()
    view = view_of(original, "node_drop")
    size_G = original.num_nodes_G
    assert np.array_equal(view.num_nodes_G, size_G - np.floor(0.25 * size_G))
    left = set(names_of(view).tolist())
    assert named_edges(view) == {(u, v) for u, v in named_edges(original) if {u, v} <= left}


def test_every_node_is_dropped_as_often():
    original = make_graphs(num_graphs=4)
    counts = np.zeros(original.union.num_nodes)
    for seed in range(400):
        counts[names_of(view_of(original, "node_drop", seed=seed))] += 1
    expected = 1 - np.floor(0.25 * original.num_nodes_G) / original.num_nodes_G
    assert np.abs(counts / 400 - expected[original.graph_N]).max() < 0.1


def test_edges_are_exchanged_for_pairs_that_were_none():
    original = make_graphs()
    view = view_of(original, "edge_perturb")
    before, after = named_edges(original), named_edges(view)
    graph_of = original.graph_N
    for graph in range(original.num_graphs):
        own = {edge for edge in before if graph_of[edge[0]] == graph}
        changed = 2 * int(0.3 * (len(own) // 2))
        assert len(own - after) == changed
        assert len({edge for edge in after if graph_of[edge[0]] == graph} - before) == changed
    assert view.union.num_nodes == original.union.num_nodes


def test_complete_graphs_lose_edges_and_get_none():
    src_E, dst_E = np.nonzero(~np.eye(6, dtype=bool))
    complete = GraphCollection(1, Graph(6, src_E, dst_E, np.ones((6, 1), np.float32)), np.zeros(6, np.int64))
    assert view_of(complete, "edge_perturb").union.num_edges == 2 * (15 - 4)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_share_of_the_nodes_loses_its_features(sparse):
    original = make_graphs()
    x_NF = sp.csr_matrix(original.union.x_NF) if sparse else original.union.x_NF
    union = Graph(original.union.num_nodes, original.union.src_E, original.union.dst_E, x_NF)
    view = view_of(GraphCollection(original.num_graphs, union, original.graph_N), "attribute_mask")
    found = view.union.x_NF.toarray() if sparse else view.union.x_NF
    is_masked_N = found[:, 0] == 0
    masked_G = np.bincount(original.graph_N[is_masked_N], minlength=original.num_graphs)
    assert np.array_equal(masked_G, np.floor(0.4 * original.num_nodes_G))
    assert np.array_equal(found[~is_masked_N], original.union.x_NF[~is_masked_N])
    assert (original.union.x_NF > 0).all(), "the original is not touched"


def test_a_subgraph_is_what_a_walk_meets():
    original = make_graphs()
    view = view_of(original, "subgraph")
    wanted_G = 1 + np.floor(0.3 * original.num_nodes_G)
    assert (view.num_nodes_G <= wanted_G).all()
    assert (view.num_nodes_G == wanted_G).mean() > 0.8, "most walks meet as many as they may"
    for graph in range(original.num_graphs):
        part = view.take(np.array([graph]))
        adjacency = part.union.adjacency_NN()
        assert sp.csgraph.connected_components(adjacency)[0] == 1


def test_a_walk_ends_where_there_is_no_neighbour():
    none = np.empty(0, np.int64)
    lonely = GraphCollection(2, Graph(8, none, none, np.ones((8, 1), np.float32)), np.repeat([0, 1], 4))
    assert view_of(lonely, "subgraph").num_nodes_G.tolist() == [1, 1]
    empty = GraphCollection(2, Graph(4, none, none, np.ones((4, 1), np.float32)), np.ones(4, np.int64))
    for name in POLICIES:
        assert view_of(empty, name).num_graphs == 2


def test_each_graph_draws_one_augmentation_of_the_policy():
    original = make_graphs(num_graphs=400)
    view = view_of(original, "random4")
    size_G = original.num_nodes_G
    dropped = view.num_nodes_G == size_G - np.floor(0.25 * size_G)
    cut = view.num_nodes_G <= 1 + np.floor(0.3 * size_G)
    whole = view.num_nodes_G == size_G
    assert (dropped | cut | whole).all()
    for share in (dropped.mean(), cut.mean(), whole.mean() / 2):
        assert 0.18 < share < 0.32


def test_released_subgraphs_are_stars():
    original = make_graphs(density=0.1)
    view = view_of(original, "subgraph", bug_compat=True)
    edges = named_edges(original)
    for graph in range(original.num_graphs):
        nodes = names_of(view)[view.graph_N == graph]
        assert len(nodes) <= 1 + int(0.3 * original.num_nodes_G[graph])
        assert any(all(other == node or (node, other) in edges for other in nodes) for node in nodes)


def test_released_edges_are_dropped_by_direction_and_none_is_added():
    original = make_graphs()
    view = view_of(original, "edge_perturb", bug_compat=True)
    before, after = named_edges(original), named_edges(view)
    assert after < before
    assert len(before) - len(after) == np.floor(0.3 * np.diff(original.first_edge_G)).sum()
    assert after != {(v, u) for u, v in after}


def test_released_masks_are_noise():
    view = view_of(make_graphs(num_graphs=300), "attribute_mask", bug_compat=True)
    x_N = view.union.x_NF[:, 0]
    noise = x_N[(x_N != np.round(x_N)) | (x_N < 1)]
    assert noise.mean() == pytest.approx(0.5, abs=0.05)
    assert noise.std() == pytest.approx(0.5, abs=0.05)


def test_released_views_have_no_node_without_an_edge():
    view = view_of(make_graphs(density=0.05), "node_drop", bug_compat=True)
    has_edge_N = np.zeros(view.union.num_nodes, bool)
    has_edge_N[view.union.src_E] = True
    assert has_edge_N.all()


def test_released_self_loops_leave_the_last_node_out():
    src_E, dst_E = np.array([0, 1, 1, 2, 5, 6]), np.array([1, 0, 2, 1, 6, 5])
    graphs = GraphCollection(
        3, Graph(7, src_E, dst_E, np.ones((7, 1), np.float32)), np.array([0, 0, 0, 0, 1, 2, 2])
    )
    looped = with_released_loops(graphs).union
    loops = looped.src_E[looped.src_E == looped.dst_E]
    assert loops.tolist() == [0, 1, 5], "not the last with an edge, nor those after it"
    assert looped.num_edges == 9
    assert (np.diff(looped.src_E * 7 + looped.dst_E) > 0).all()


def test_a_self_loop_of_the_source_is_not_doubled():
    graphs = GraphCollection(
        1, Graph(3, np.array([0, 0, 1]), np.array([0, 1, 0]), np.ones((3, 1), np.float32)), np.zeros(3, int)
    )
    looped = with_released_loops(graphs).union
    assert list(zip(looped.src_E.tolist(), looped.dst_E.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize("name", POLICIES)
def test_weights_and_directions_are_refused_and_not_dropped(name):
    union, graph_N = make_graphs().union, make_graphs().graph_N
    weight_E = np.ones(union.num_edges, np.float32)
    weighted = Graph(union.num_nodes, union.src_E, union.dst_E, union.x_NF, weight_E)
    with pytest.raises(NotDefined, match="edge weights: leave the weights out"):
        view_of(GraphCollection(30, weighted, graph_N), name)
    directed = Graph(union.num_nodes, union.src_E, union.dst_E, union.x_NF, is_undirected=False)
    with pytest.raises(NotDefined, match="views of directed graphs"):
        view_of(GraphCollection(30, directed, graph_N), name)
