"""The part of a graph that lies on some of its nodes; edges are read a block at a time.

Legend: N nodes, E edges, R nodes of the subgraph, B edges of a block.
"""

from collections.abc import Iterator

import numpy as np

from gcl.graph import Graph
from gcl.workspace import MEMORY, Workspace, row_slices

_EDGE_BYTES = 64  # of a block's temporaries, an edge


def edge_slices(graph: Graph) -> Iterator[slice]:
    """Ranges of edges that are worked on together."""
    return row_slices(graph.num_edges, _EDGE_BYTES)


def induced_subgraph(graph: Graph, nodes_R: np.ndarray, workspace: Workspace = MEMORY) -> Graph:
    """The subgraph on some nodes, renumbered in their order; features are left behind.

    Args:
        graph: edges may be memory-mapped; itself, if all its nodes are asked for.
        nodes_R: int64, ascending.
        workspace: where the edges are put.
    """
    if len(nodes_R) == graph.num_nodes:
        return graph
    new_id_N = np.full(graph.num_nodes, -1, np.int32)
    new_id_N[nodes_R] = np.arange(len(nodes_R), dtype=np.int32)

    def kept() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Positions, sources and targets of the edges that stay, by blocks."""
        for edges in edge_slices(graph):
            src_B, dst_B = new_id_N[graph.src_E[edges]], new_id_N[graph.dst_E[edges]]
            stays = np.flatnonzero((src_B >= 0) & (dst_B >= 0))
            yield stays + edges.start, src_B[stays], dst_B[stays]

    num_kept = sum(len(stays) for stays, _, _ in kept())
    src, dst = workspace.empty((num_kept,), np.int64), workspace.empty((num_kept,), np.int64)
    weight = None if graph.weight_E is None else workspace.empty((num_kept,), np.float32)
    start = 0
    for stays, src_B, dst_B in kept():
        rows = slice(start, start + len(stays))
        src[rows], dst[rows] = src_B, dst_B
        if weight is not None and graph.weight_E is not None:
            weight[rows] = graph.weight_E[stays]
        start = rows.stop
    return Graph(len(nodes_R), src, dst, weight_E=weight, is_undirected=graph.is_undirected)
