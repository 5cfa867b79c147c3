"""Collections of graphs: many graphs side by side in one, told apart by a number.

Shape legend: G graphs, N nodes of all of them, E directed edges, F features, B graphs of a batch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from gcl.errors import InvalidGraph
from gcl.graph import Features, Graph


@dataclass(frozen=True, eq=False)
class GraphCollection:
    """Many graphs as one graph without edges between them.

    Attributes:
        num_graphs: G; a graph without nodes counts.
        union: all nodes and edges; the nodes of a graph are consecutive.
        graph_N: int64 graph of each node, ascending.

    Raises:
        InvalidGraph: nodes of a graph that are not consecutive or of a graph beyond `num_graphs`; edges that
            are not sorted, repeat, leave the nodes or join two graphs.
        ValueError: arrays of the wrong length or type.
    """

    num_graphs: int
    union: Graph
    graph_N: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "graph_N", _graph_numbers(self.graph_N, self.union))
        _check_lengths(self.union)
        _check_nodes(self.num_graphs, self.graph_N)
        _check_edges(self.union, self.graph_N)

    @classmethod
    def from_graphs(cls, graphs: Iterable[Graph]) -> "GraphCollection":
        """A collection of graphs that lie apart, in their order; `Graph.node_ids` are not kept.

        Args:
            graphs: one or more, such as `Graph.from_networkx`, `from_dgl` and `from_pyg` give. All have
                features of one width, or none has any. Where some have edge weights, those of the others
                are 1.

        Raises:
            TypeError: something else than a Graph.
            ValueError: no graph, or features of unlike width.
        """
        graphs = list(graphs)
        for place, graph in enumerate(graphs):
            if not isinstance(graph, Graph):
                raise TypeError(
                    f"graph {place} is a {type(graph).__name__}: make it a gcl.graph.Graph by "
                    "Graph.from_networkx, from_dgl, from_pyg, from_scipy or from_edges"
                )
        if not graphs:
            raise ValueError("a collection needs a graph at least")
        size_G = np.array([graph.num_nodes for graph in graphs], np.int64)
        first_G = np.cumsum(size_G) - size_G
        union = Graph(
            int(size_G.sum()),
            np.concatenate([graph.src_E + first for graph, first in zip(graphs, first_G, strict=True)]),
            np.concatenate([graph.dst_E + first for graph, first in zip(graphs, first_G, strict=True)]),
            _joined_features(graphs),
            _joined_weights(graphs),
            is_undirected=all(graph.is_undirected for graph in graphs),
        )
        return cls(len(graphs), union, np.repeat(np.arange(len(graphs)), size_G))

    @cached_property
    def first_node_G(self) -> np.ndarray:
        """int64 [G + 1] where the nodes of each graph begin, and N at the end."""
        return np.searchsorted(self.graph_N, np.arange(self.num_graphs + 1))

    @cached_property
    def first_edge_G(self) -> np.ndarray:
        """int64 [G + 1] where the edges of each graph begin, and E at the end."""
        return np.searchsorted(self.union.src_E, self.first_node_G)

    @property
    def num_nodes_G(self) -> np.ndarray:
        """int64 number of nodes of each graph."""
        return np.diff(self.first_node_G)

    def take(self, graphs_B: np.ndarray) -> "GraphCollection":
        """Some of the graphs, in the order asked for, as a collection of their own; O(their nodes and edges).

        Args:
            graphs_B: int64 numbers of graphs; one that is named twice is there twice.
        """
        graphs_B = np.asarray(graphs_B, np.int64)
        nodes = ranges(self.first_node_G[graphs_B], self.first_node_G[graphs_B + 1])
        edges = ranges(self.first_edge_G[graphs_B], self.first_edge_G[graphs_B + 1])
        size_B = self.first_node_G[graphs_B + 1] - self.first_node_G[graphs_B]
        # What a node's number grows by: where its graph begins now, less where it began.
        shift_B = np.cumsum(size_B) - size_B - self.first_node_G[graphs_B]
        shift_E = np.repeat(shift_B, self.first_edge_G[graphs_B + 1] - self.first_edge_G[graphs_B])
        union = self.union
        return GraphCollection(
            len(graphs_B),
            Graph(
                len(nodes),
                union.src_E[edges] + shift_E,
                union.dst_E[edges] + shift_E,
                None if union.x_NF is None else union.x_NF[nodes],
                None if union.weight_E is None else union.weight_E[edges],
                is_undirected=union.is_undirected,
            ),
            np.repeat(np.arange(len(graphs_B)), size_B),
        )

    def sum_of_features(self) -> np.ndarray:
        """float32 [G, F] sums of the features of each graph's nodes: how often each label occurs.

        Raises:
            ValueError: nodes without features.
        """
        if self.union.x_NF is None:
            raise ValueError("the nodes of the collection have no features")
        return sum_by_graph(self.union.x_NF, self.first_node_G)


def check_values(collection: GraphCollection) -> None:
    """Refuse what takes too long to look for whenever graphs are taken, and training would stumble over.

    Args:
        collection: with or without features.

    Raises:
        InvalidGraph: features that are not finite, or undirected graphs with an edge in one direction.
    """
    union, x_NF = collection.union, collection.union.x_NF
    if x_NF is not None:
        value = x_NF.data if isinstance(x_NF, sp.csr_matrix) else x_NF
        broken = np.unique(np.argwhere(~np.isfinite(value))[:, 0])
        if isinstance(x_NF, sp.csr_matrix):
            broken = np.unique(np.searchsorted(x_NF.indptr, broken, "right") - 1)
        _refuse(
            "features", "x", "features_finite", broken, lambda n: f"node {n} of graph {collection.graph_N[n]}"
        )
    if union.is_undirected:
        key_E, opposite_E = (
            a * union.num_nodes + b for a, b in ((union.src_E, union.dst_E), (union.dst_E, union.src_E))
        )
        one_way = np.flatnonzero(~np.isin(opposite_E, key_E))
        _refuse(
            "edges",
            "src, dst",
            "both_directions_present",
            one_way,
            lambda e: f"edge {e}: ({union.src_E[e]}, {union.dst_E[e]})",
        )


def sum_by_graph(x_NF: Features, first_node_G: np.ndarray) -> np.ndarray:
    """float32 [G, F] sums of consecutive rows.

    Args:
        x_NF: rows of nodes, dense or CSR.
        first_node_G: int64 [G + 1] where the rows of each graph begin, and N at the end.
    """
    num_nodes = x_NF.shape[0]
    membership_GN = sp.csr_matrix(
        (np.ones(num_nodes), np.arange(num_nodes), first_node_G), shape=(len(first_node_G) - 1, num_nodes)
    )
    sums_GF = membership_GN @ x_NF
    return np.asarray(sums_GF.toarray() if sp.issparse(sums_GF) else sums_GF, np.float32)


def ranges(first_B: np.ndarray, end_B: np.ndarray) -> np.ndarray:
    """int64: the integers first..end-1 of each range, one range after the other.

    Args:
        first_B: int64 starts.
        end_B: int64 ends, none below its start.
    """
    length_B = end_B - first_B
    before_B = np.cumsum(length_B) - length_B
    return np.repeat(first_B - before_B, length_B) + np.arange(int(length_B.sum()))


def _graph_numbers(given: np.ndarray, union: Graph) -> np.ndarray:
    graph_N = np.asarray(given)
    if graph_N.shape != (union.num_nodes,) or (len(graph_N) and graph_N.dtype.kind not in "iu"):
        raise ValueError(
            f"graph_N names the graph of each of {union.num_nodes} nodes by a whole number; found "
            f"{graph_N.dtype} of shape {graph_N.shape}"
        )
    return graph_N.astype(np.int64, copy=False)


def _check_lengths(union: Graph) -> None:
    if len(union.src_E) != len(union.dst_E):
        raise ValueError(f"src_E has {len(union.src_E)} entries, dst_E {len(union.dst_E)}")
    if union.x_NF is not None and union.x_NF.shape[0] != union.num_nodes:
        raise ValueError(f"x_NF has {union.x_NF.shape[0]} rows for {union.num_nodes} nodes")
    if union.weight_E is not None and len(union.weight_E) != union.num_edges:
        raise ValueError(f"weight_E has {len(union.weight_E)} entries for {union.num_edges} edges")


def _check_nodes(num_graphs: int, graph_N: np.ndarray) -> None:
    def told(node: int) -> str:
        return f"node {node}: graph {graph_N[node]}"

    outside_N = (graph_N < 0) | (graph_N >= num_graphs)
    _refuse("nodes", "graph", f"graph_below_{num_graphs}", np.flatnonzero(outside_N), told)
    back = np.flatnonzero(graph_N[1:] < graph_N[:-1]) + 1
    _refuse("nodes", "graph", "nodes_of_a_graph_consecutive", back, told)


def _check_edges(union: Graph, graph_N: np.ndarray) -> None:
    src_E, dst_E, num_nodes = union.src_E, union.dst_E, union.num_nodes

    def told(edge: int) -> str:
        return f"edge {edge}: ({src_E[edge]}, {dst_E[edge]})"

    outside_E = (src_E < 0) | (src_E >= num_nodes) | (dst_E < 0) | (dst_E >= num_nodes)
    _refuse("edges", "src, dst", "endpoints_in_range", np.flatnonzero(outside_E), told)
    joins_E = graph_N[src_E] != graph_N[dst_E]
    _refuse("edges", "src, dst", "edges_within_one_graph", np.flatnonzero(joins_E), told)
    ascends_e = (src_E[1:] > src_E[:-1]) | ((src_E[1:] == src_E[:-1]) & (dst_E[1:] > dst_E[:-1]))
    _refuse("edges", "src, dst", "edges_sorted_without_repeats", np.flatnonzero(~ascends_e) + 1, told)


def _refuse(table: str, column: str, rule: str, wrong: np.ndarray, told: Callable[[int], str]) -> None:
    if len(wrong):
        sample = [told(int(place)) for place in wrong[:10]]
        raise InvalidGraph(
            table=f"collection.{table}", column=column, rule=rule, num_rows=len(wrong), sample=sample
        )


def _joined_features(graphs: Sequence[Graph]) -> Features | None:
    """Below each other; sparse if all of them are."""
    width = graphs[0].num_features
    for place, graph in enumerate(graphs):
        if graph.num_features != width:
            raise ValueError(
                f"graph {place} has {graph.num_features} feature columns, and graph 0 has {width}: graphs of "
                "a collection have the same features"
            )
    rows = [graph.x_NF for graph in graphs if graph.x_NF is not None]
    if len(rows) < len(graphs):
        return None
    sparse = [x_NF for x_NF in rows if isinstance(x_NF, sp.csr_matrix)]
    if len(sparse) == len(rows):
        return sp.csr_matrix(sp.vstack(sparse, format="csr"))
    return np.concatenate([x_NF.toarray() if sp.issparse(x_NF) else x_NF for x_NF in rows])


def _joined_weights(graphs: Sequence[Graph]) -> np.ndarray | None:
    if all(graph.weight_E is None for graph in graphs):
        return None
    return np.concatenate(
        [np.ones(g.num_edges, np.float32) if g.weight_E is None else g.weight_E for g in graphs]
    )
