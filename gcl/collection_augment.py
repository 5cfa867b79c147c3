"""Views of collections of graphs: nodes dropped, edges changed, features masked, parts walked out.

Each graph draws one augmentation of a policy. All graphs of a batch are worked on at once; the draws come
from a numpy generator, so a view is the same on every device.

Legend: G graphs, N nodes of all of them, E directed edges, P undirected edges, F features.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from gcl.errors import NotDefined
from gcl.graph import Features, Graph
from gcl.graph_collection import GraphCollection, ranges

AugmentationName = Literal["node_drop", "subgraph", "edge_perturb", "attribute_mask"]
POLICIES: dict[str, tuple[AugmentationName, ...]] = {
    "random2": ("node_drop", "subgraph"),
    "random3": ("node_drop", "subgraph", "edge_perturb"),
    "random4": ("node_drop", "subgraph", "edge_perturb", "attribute_mask"),
    "node_drop": ("node_drop",),
    "subgraph": ("subgraph",),
    "edge_perturb": ("edge_perturb",),
    "attribute_mask": ("attribute_mask",),
}
"""What a graph draws its augmentation from, each with the same probability."""

ADDING_ROUNDS = 16
"""Times that pairs to add are drawn, those that are edges already again; very dense graphs get fewer."""


@dataclass(frozen=True)
class Strengths:
    """How strong each augmentation is, as shares of a graph's nodes or edges in [0, 1).

    Attributes:
        node_drop: nodes that go.
        edge_perturb: undirected edges that go, and pairs that come.
        attribute_mask: nodes whose features go.
        subgraph: nodes that stay, beside the one a walk starts from.
    """

    node_drop: float = 0.1
    edge_perturb: float = 0.1
    attribute_mask: float = 0.1
    subgraph: float = 0.2


def augment(
    collection: GraphCollection,
    policy: tuple[AugmentationName, ...],
    strengths: Strengths,
    generator: np.random.Generator,
    *,
    bug_compat: bool = False,
) -> GraphCollection:
    """A view of every graph by an augmentation of its own.

    The number of nodes or edges that an augmentation changes is its share of the graph's, rounded down.

    Args:
        collection: undirected graphs without edge weights.
        policy: the augmentations each graph draws from.
        strengths: their shares.
        generator: of all draws.
        bug_compat: as the code released for GraphCL does it: a subgraph is a node and some of its neighbours;
            directions of edges are dropped one by one, and none is added; masked features are normal noise
            of mean and deviation .5; nodes without an edge go.

    Raises:
        NotDefined: directed graphs, or edge weights.
    """
    refuse_undefined(collection)
    chosen_G = np.array(policy, object)[generator.integers(len(policy), size=collection.num_graphs)]
    keep_N = np.ones(collection.union.num_nodes, bool)
    src_E, dst_E, x_NF = collection.union.src_E, collection.union.dst_E, collection.union.x_NF
    is_undirected = True
    for name in dict.fromkeys(policy):
        is_own_G = chosen_G == name
        if name == "node_drop":
            keep_N &= ~_some_nodes(collection, is_own_G, strengths.node_drop, generator)
        elif name == "subgraph":
            walk = _star if bug_compat else _walk
            keep_N &= walk(collection, is_own_G, strengths.subgraph, generator)
        elif name == "edge_perturb" and bug_compat:
            kept_E = ~_some_edges(collection, is_own_G, strengths.edge_perturb, generator)
            src_E, dst_E, is_undirected = src_E[kept_E], dst_E[kept_E], False
        elif name == "edge_perturb":
            src_E, dst_E = _perturbed(collection, is_own_G, strengths.edge_perturb, generator)
        else:
            masked_N = _some_nodes(collection, is_own_G, strengths.attribute_mask, generator)
            x_NF = _masked(x_NF, masked_N, generator if bug_compat else None)
    if bug_compat:
        has_edge_N = np.zeros(len(keep_N), bool)
        inside_E = keep_N[src_E] & keep_N[dst_E]
        has_edge_N[src_E[inside_E]] = has_edge_N[dst_E[inside_E]] = True
        keep_N &= has_edge_N
    return _kept(collection, keep_N, src_E, dst_E, x_NF, is_undirected=is_undirected)


def refuse_undefined(collection: GraphCollection) -> None:
    """Refuse graphs that have no views: what a pair that is added weighs, or where it points, nothing says.

    Args:
        collection: any.

    Raises:
        NotDefined: directed graphs, or edge weights.
    """
    if collection.union.weight_E is not None:
        raise NotDefined(
            "views of graphs with edge weights: leave the weights out (weight=None when they are made)"
        )
    if not collection.union.is_undirected:
        raise NotDefined(
            "views of directed graphs: make them undirected (directed=False where they are made)"
        )


def with_released_loops(collection: GraphCollection) -> GraphCollection:
    """Self-loops on all nodes of a graph but the last that has an edge, as GraphCL's loader appends them.

    Args:
        collection: graphs; a self-loop that is there already stays the only one of its node.
    """
    union, num_nodes = collection.union, collection.union.num_nodes
    has_edge_N = np.zeros(num_nodes, bool)
    has_edge_N[union.src_E] = True
    last_G = np.full(collection.num_graphs, -1)
    last_G[collection.graph_N[has_edge_N]] = np.flatnonzero(has_edge_N)  # the last assignment stays
    wants_loop_N = np.arange(num_nodes) < last_G[collection.graph_N]
    wants_loop_N[union.src_E[union.src_E == union.dst_E]] = False
    loops = np.flatnonzero(wants_loop_N)
    src_E, dst_E = np.concatenate([union.src_E, loops]), np.concatenate([union.dst_E, loops])
    order = np.lexsort((dst_E, src_E))
    looped = Graph(num_nodes, src_E[order], dst_E[order], union.x_NF, is_undirected=union.is_undirected)
    return GraphCollection(collection.num_graphs, looped, collection.graph_N)


def _kept(
    collection: GraphCollection,
    keep_N: np.ndarray,
    src_E: np.ndarray,
    dst_E: np.ndarray,
    x_NF: Features | None,
    *,
    is_undirected: bool,
) -> GraphCollection:
    """The nodes that stay, numbered anew, and the edges between them."""
    if not keep_N.all():
        inside_E = keep_N[src_E] & keep_N[dst_E]
        new_N = np.cumsum(keep_N) - 1
        src_E, dst_E = new_N[src_E[inside_E]], new_N[dst_E[inside_E]]
        x_NF = None if x_NF is None else x_NF[keep_N]
    union = Graph(int(keep_N.sum()), src_E, dst_E, x_NF, is_undirected=is_undirected)
    return GraphCollection(collection.num_graphs, union, collection.graph_N[keep_N])


def _ranks(group_M: np.ndarray, first_G: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random rank 0, 1, ... of each member within its group; groups are consecutive."""
    order = np.lexsort((generator.random(len(group_M)), group_M))
    rank_M = np.empty(len(group_M), np.int64)
    rank_M[order] = np.arange(len(group_M)) - first_G[group_M]
    return rank_M


def _some_nodes(
    collection: GraphCollection, is_own_G: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    """Bool [N], true for a share of the nodes of the graphs that are meant, drawn without replacement."""
    number_G = np.where(is_own_G, np.floor(share * collection.num_nodes_G), 0)
    rank_N = _ranks(collection.graph_N, collection.first_node_G, generator)
    return np.asarray(rank_N < number_G[collection.graph_N])


def _some_edges(
    collection: GraphCollection, is_own_G: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    """Bool [E], true for a share of the directed edges of the graphs that are meant."""
    number_G = np.where(is_own_G, np.floor(share * np.diff(collection.first_edge_G)), 0)
    graph_E = collection.graph_N[collection.union.src_E]
    return np.asarray(_ranks(graph_E, collection.first_edge_G, generator) < number_G[graph_E])


def _perturbed(
    collection: GraphCollection, is_own_G: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Edges with a share of the undirected ones exchanged for pairs that were none, sorted."""
    union, num_nodes = collection.union, collection.union.num_nodes
    is_once_E = union.src_E < union.dst_E
    low_P, high_P = union.src_E[is_once_E], union.dst_E[is_once_E]
    graph_P = collection.graph_N[low_P]
    size_G = np.bincount(graph_P, minlength=collection.num_graphs)
    number_G = np.where(is_own_G, np.floor(share * size_G), 0).astype(np.int64)
    kept_P = _ranks(graph_P, np.cumsum(size_G) - size_G, generator) >= number_G[graph_P]
    key_P = low_P * num_nodes + high_P  # ascending, as the edges are
    added_P = _absent_pairs(collection, number_G, key_P, generator)
    low_P = np.concatenate([low_P[kept_P], added_P // max(1, num_nodes)])
    high_P = np.concatenate([high_P[kept_P], added_P % max(1, num_nodes)])
    loops = union.src_E[union.src_E == union.dst_E]
    src_E = np.concatenate([low_P, high_P, loops])
    dst_E = np.concatenate([high_P, low_P, loops])
    order = np.lexsort((dst_E, src_E))
    return src_E[order], dst_E[order]


def _absent_pairs(
    collection: GraphCollection, number_G: np.ndarray, known_P: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Keys low * N + high of random pairs that are no edges: `number_G` a graph, or the fewer it met."""
    num_nodes, size_G = collection.union.num_nodes, collection.num_nodes_G
    found = np.empty(0, np.int64)
    for _ in range(ADDING_ROUNDS):
        graph_of_found = collection.graph_N[found // max(1, num_nodes)]
        missing_G = number_G - np.bincount(graph_of_found, minlength=len(number_G))
        missing_G = np.where(size_G > 1, missing_G, 0)
        if not missing_G.any():
            break
        graph_M = np.repeat(np.arange(len(number_G)), missing_G)
        size_M, first_M = size_G[graph_M], collection.first_node_G[graph_M]
        one_M = generator.integers(size_M)
        other_M = generator.integers(size_M - 1)
        other_M += other_M >= one_M  # never the node itself
        low_M, high_M = first_M + np.minimum(one_M, other_M), first_M + np.maximum(one_M, other_M)
        key_M = low_M * num_nodes + high_M
        found = np.union1d(found, np.setdiff1d(key_M, known_P))
    return found


def _walk(
    collection: GraphCollection, is_own_G: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    """Bool [N], true for what a random walk meets until it knows a share of the nodes beside its start.

    A walk has as many steps as its graph has nodes, and ends where it has no neighbour to go to. Graphs that
    are not meant keep all nodes.
    """
    size_G, union = collection.num_nodes_G, collection.union
    met_N: np.ndarray = ~is_own_G[collection.graph_N]
    walkers = np.flatnonzero(is_own_G & (size_G > 0))
    wanted_G = 1 + np.floor(share * size_G).astype(np.int64)
    first_edge_N = np.searchsorted(union.src_E, np.arange(union.num_nodes + 1))
    at_W = collection.first_node_G[walkers] + generator.integers(size_G[walkers])
    met_N[at_W] = True
    num_met_W = np.ones(len(walkers), np.int64)
    for step in range(int(size_G[walkers].max(initial=0))):
        degree_W = first_edge_N[at_W + 1] - first_edge_N[at_W]
        goes_W = (num_met_W < wanted_G[walkers]) & (degree_W > 0) & (step < size_G[walkers])
        if not goes_W.any():
            break
        walkers, at_W, num_met_W, degree_W = (part[goes_W] for part in (walkers, at_W, num_met_W, degree_W))
        at_W = union.dst_E[first_edge_N[at_W] + generator.integers(degree_W)]
        num_met_W += ~met_N[at_W]
        met_N[at_W] = True
    return met_N


def _star(
    collection: GraphCollection, is_own_G: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    """Bool [N], true for a random node of a graph, and as many of its neighbours as a share of the nodes."""
    size_G, union = collection.num_nodes_G, collection.union
    met_N: np.ndarray = ~is_own_G[collection.graph_N]
    own = np.flatnonzero(is_own_G & (size_G > 0))
    start_W = collection.first_node_G[own] + generator.integers(size_G[own])
    first_W, end_W = (np.searchsorted(union.src_E, start_W, side=side) for side in ("left", "right"))
    neighbours = union.dst_E[ranges(first_W, end_W)]
    walker_M = np.repeat(np.arange(len(own)), end_W - first_W)
    first_M = np.cumsum(end_W - first_W) - (end_W - first_W)
    wanted_W = np.floor(share * size_G[own])
    met_N[start_W] = True
    met_N[neighbours[_ranks(walker_M, first_M, generator) < wanted_W[walker_M]]] = True
    return met_N


def _masked(
    x_NF: Features | None, masked_N: np.ndarray, noise: np.random.Generator | None
) -> Features | None:
    """Features with some rows set to zero, or to normal noise."""
    if x_NF is None or not masked_N.any():
        return x_NF
    if noise is None and sp.issparse(x_NF):
        return sp.csr_matrix(sp.diags_array((~masked_N).astype(np.float32)) @ x_NF)
    dense_NF = np.array(x_NF.toarray() if sp.issparse(x_NF) else x_NF, np.float32)
    shape = (int(masked_N.sum()), dense_NF.shape[1])
    dense_NF[masked_N] = 0.0 if noise is None else noise.normal(0.5, 0.5, shape)
    return dense_NF
