"""Small graphs as dense matrices side by side, padded to one size: what victims and attacks compute on.

At 20 nodes a graph, a dense product of a batch is several times as fast as a sparse one, and white-box
attacks want the gradient of every entry of the adjacency anyway.

Shape legend: G graphs, N places for nodes, P pairs of nodes, B graphs of a batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gcl.attacks.components import component_of
from gcl.graph_collection import GraphCollection


@dataclass(frozen=True, eq=False)
class PaddedGraphs:
    """Undirected graphs of at most N nodes; the places behind a graph's last node are empty.

    Attributes:
        adjacency_GNN: uint8, 1 for an edge; symmetric, no self-loops.
        size_G: int64 nodes of each graph.
        component_GN: int64 connected component of each node, -1 for an empty place.
    """

    adjacency_GNN: Tensor
    size_G: Tensor
    component_GN: Tensor

    @classmethod
    def of(cls, collection: GraphCollection) -> "PaddedGraphs":
        """The graphs of a collection; their features and edge weights are left out.

        Args:
            collection: undirected.

        Raises:
            ValueError: the graphs are directed.
        """
        union = collection.union
        if not union.is_undirected:
            raise ValueError("an attack adds undirected edges; make the graphs undirected first")
        first_G = collection.first_node_G
        size_G = np.diff(first_G)
        place_N = np.arange(union.num_nodes) - first_G[collection.graph_N]
        shape = (collection.num_graphs, int(size_G.max(initial=0)))
        adjacency_GNN = np.zeros((*shape, shape[1]), np.uint8)
        adjacency_GNN[collection.graph_N[union.src_E], place_N[union.src_E], place_N[union.dst_E]] = 1
        component_GN = np.full(shape, -1, np.int64)
        component_GN[collection.graph_N, place_N] = component_of(collection)
        return cls(
            torch.from_numpy(adjacency_GNN),
            torch.from_numpy(size_G.astype(np.int64)),
            torch.from_numpy(component_GN),
        )

    def __len__(self) -> int:
        """G."""
        return len(self.size_G)

    def take(self, graphs_B: Tensor) -> "PaddedGraphs":
        """Some of the graphs, in the order asked for."""
        return PaddedGraphs(self.adjacency_GNN[graphs_B], self.size_G[graphs_B], self.component_GN[graphs_B])

    @property
    def is_node_GN(self) -> Tensor:
        """bool, which places hold a node."""
        return torch.arange(self.adjacency_GNN.shape[1]) < self.size_G[:, None]

    def x_GN1(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The constant feature: 1 for a node, 0 for an empty place."""
        return self.is_node_GN[:, :, None].to(dtype)

    def admissible_GNN(self, *, exclude_existing: bool = True) -> Tensor:
        """bool, ordered pairs (u, v) whose edge leaves the components as they are: u != v, one component.

        Args:
            exclude_existing: without pairs that have an edge already, which to add would change nothing.
        """
        component_GN = self.component_GN
        pair_GNN = (component_GN[:, :, None] == component_GN[:, None]) & self.is_node_GN[:, :, None]
        pair_GNN.diagonal(dim1=1, dim2=2).fill_(False)
        return pair_GNN & (self.adjacency_GNN == 0) if exclude_existing else pair_GNN

    def with_edges(self, pair_G2: Tensor) -> "PaddedGraphs":
        """The graphs with one edge more each.

        Args:
            pair_G2: int64 ends of the edge; -1, -1 for a graph that is left as it is.
        """
        adjacency_GNN = self.adjacency_GNN.clone()
        (changed,) = torch.nonzero(pair_G2[:, 0] >= 0, as_tuple=True)
        u, v = pair_G2[changed].unbind(1)
        adjacency_GNN[changed, u, v] = 1
        adjacency_GNN[changed, v, u] = 1
        return PaddedGraphs(adjacency_GNN, self.size_G, self.component_GN)


def no_pairs(num_graphs: int) -> Tensor:
    """int64 [G, 2] of -1: no graph gets an edge."""
    return torch.full((num_graphs, 2), -1, dtype=torch.int64)
