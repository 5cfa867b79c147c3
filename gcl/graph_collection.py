"""Collections of graphs: many graphs side by side in one, told apart by a number.

Shape legend: G graphs, N nodes of all of them, E directed edges, F features.
"""

from dataclasses import dataclass

import numpy as np

from gcl.graph import Graph


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

    @property
    def first_node_G(self) -> np.ndarray:
        """int64 [G + 1] where the nodes of each graph begin, and N at the end."""
        return np.searchsorted(self.graph_N, np.arange(self.num_graphs + 1))
