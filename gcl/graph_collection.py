"""Collections of graphs: many graphs side by side in one, told apart by a number.

Shape legend: G graphs, N nodes of all of them, E directed edges, F features, B graphs of a batch.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gcl.graph import Features, Graph


@dataclass(frozen=True, eq=False)
class GraphCollection:
    """Many graphs as one graph without edges between them.

    Attributes:
        num_graphs: G; a graph without nodes counts.
        union: all nodes and edges; the nodes of a graph are consecutive.
        graph_N: int64 graph of each node, ascending.
    """

    num_graphs: int
    union: Graph
    graph_N: np.ndarray

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


def sum_by_graph(x_NF: Features, first_node_G: np.ndarray) -> np.ndarray:
    """float32 [G, F] sums of consecutive rows.

    Args:
        x_NF: rows of nodes, dense or CSR.
        first_node_G: int64 [G + 1] where the rows of each graph begin, and N at the end.
    """
    import scipy.sparse as sp

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
