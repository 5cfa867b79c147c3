"""Views of a graph: edges dropped, feature columns masked. Pure functions of a graph and a generator."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gcl.graph import Graph
from gcl.propagation import Propagation


@dataclass(frozen=True, eq=False)
class GraphView:
    """One augmented view of a graph.

    Attributes:
        propagation: over the edges that are left, self-loops added.
        keep_F: float32, 0 for a masked feature column and 1 for the others; None masks none.
    """

    propagation: Propagation
    keep_F: Tensor | None


def draw_view(
    graph: Graph,
    *,
    edge_drop_rate: float,
    feature_mask_rate: float,
    both_directions: bool,
    generator: torch.Generator,
    device: str = "cpu",
) -> GraphView:
    """A view of `graph`: each edge dropped, each feature column masked with a probability of its own kind.

    Args:
        graph: with features.
        edge_drop_rate: probability in [0, 1).
        feature_mask_rate: probability in [0, 1).
        both_directions: whether an undirected edge is kept or dropped as one.
        generator: CPU generator of the draws.
        device: where the view is used.
    """
    kept = graph
    if edge_drop_rate > 0 and graph.num_edges:
        kept = _with_edges(graph, _keep_edges(graph, edge_drop_rate, both_directions, generator))
    keep_F = None
    if feature_mask_rate > 0:
        keep_F = (torch.rand(graph.num_features, generator=generator) >= feature_mask_rate).float().to(device)
    return GraphView(Propagation.from_graph(kept, self_loops=True, device=device), keep_F)


def _keep_edges(graph: Graph, rate: float, both_directions: bool, generator: torch.Generator) -> np.ndarray:
    if not (both_directions and graph.is_undirected):
        return torch.rand(graph.num_edges, generator=generator).numpy() >= rate
    # Both directions of an edge find the same draw: that of its (smaller, larger) pair.
    low_E, high_E = np.minimum(graph.src_E, graph.dst_E), np.maximum(graph.src_E, graph.dst_E)
    _, pair_E = np.unique(low_E * graph.num_nodes + high_E, return_inverse=True)
    draws = torch.rand(int(pair_E.max()) + 1, generator=generator).numpy()
    return np.asarray(draws[pair_E] >= rate)


def _with_edges(graph: Graph, keep_E: np.ndarray) -> Graph:
    weight_E = None if graph.weight_E is None else graph.weight_E[keep_E]
    return Graph(
        graph.num_nodes,
        graph.src_E[keep_E],
        graph.dst_E[keep_E],
        graph.x_NF,
        weight_E,
        is_undirected=False,
    )
