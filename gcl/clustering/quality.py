"""How good a partition is without labels: modularity, conductance, silhouette."""

from collections.abc import Sequence

import numpy as np

from gcl.graph import Graph
from gcl.random import numpy_generator
from gcl.workspace import row_slices

_EDGES_AT_ONCE = 1 << 22


def modularity(graph: Graph, cluster_N: np.ndarray) -> float:
    """Newman's modularity (Leicht and Newman's for directed edges), weighted; NaN without edges.

    It favours many small communities: on citation graphs its optimum has several times as many
    clusters as there are classes, so it is a measure to read beside others.
    """
    return graph_scores(graph, cluster_N)["modularity"]


def conductance(graph: Graph, cluster_N: np.ndarray) -> float:
    """Mean over clusters of cut / min(volume, rest's volume), smaller is better; NaN where none has one."""
    return graph_scores(graph, cluster_N)["conductance"]


def graph_scores(graph: Graph, cluster_N: np.ndarray) -> dict[str, float]:
    """`modularity` and `conductance` from one pass over the edges, in blocks of them."""
    within_K, out_K, in_K, total = _edge_mass(graph, cluster_N)
    if total <= 0:
        return {"modularity": float("nan"), "conductance": _mean_cut(within_K, out_K, in_K, total)}
    newman = float(within_K.sum() / total - (out_K * in_K).sum() / total**2)
    return {"modularity": newman, "conductance": _mean_cut(within_K, out_K, in_K, total)}


def _mean_cut(within_K: np.ndarray, out_K: np.ndarray, in_K: np.ndarray, total: float) -> float:
    volume_K = (out_K + in_K) / 2
    smaller_K = np.minimum(volume_K, total - volume_K)
    defined = smaller_K > 0
    if not defined.any():
        return float("nan")
    return float(((volume_K - within_K)[defined] / smaller_K[defined]).mean())


def _edge_mass(graph: Graph, cluster_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Weight of the edges within, from and to each cluster, and of all."""
    size = int(cluster_N.max()) + 1
    within_K, out_K, in_K, total = np.zeros(size), np.zeros(size), np.zeros(size), 0.0
    for edges in row_slices(graph.num_edges, 1, block_bytes=_EDGES_AT_ONCE):
        from_B, to_B = cluster_N[graph.src_E[edges]], cluster_N[graph.dst_E[edges]]
        weight_B = (
            np.ones(len(from_B)) if graph.weight_E is None else graph.weight_E[edges].astype(np.float64)
        )
        is_within_B = from_B == to_B
        within_K = _added(within_K, from_B[is_within_B], weight_B[is_within_B])
        out_K, in_K = _added(out_K, from_B, weight_B), _added(in_K, to_B, weight_B)
        total += float(weight_B.sum())
    return within_K, out_K, in_K, total


def _added(sum_K: np.ndarray, cluster_B: np.ndarray, weight_B: np.ndarray) -> np.ndarray:
    """`sum_K` and the weights of its clusters, added edge by edge: blocks round as the whole does."""
    start_K = np.arange(len(sum_K))
    return np.bincount(np.concatenate([start_K, cluster_B]), np.concatenate([sum_K, weight_B]))


def silhouette(z_ND: np.ndarray, cluster_N: np.ndarray, *, sample: int, seed: int) -> float:
    """Mean silhouette (Euclidean) on at most `sample` nodes; NaN unless 2 <= clusters < nodes there.

    Args:
        z_ND: float32 embeddings, as they were clustered.
        cluster_N: int ids from 0.
        sample: nodes drawn without replacement; memory and time grow with its square.
        seed: of the draw.
    """
    return silhouettes(z_ND, [cluster_N], sample=sample, seed=seed)[0]


def silhouettes(z_ND: np.ndarray, partitions: Sequence[np.ndarray], *, sample: int, seed: int) -> list[float]:
    """The silhouette of several partitions of the same nodes; distances, the dear part, are taken once."""
    nodes = np.arange(len(z_ND))
    if len(nodes) > sample:
        nodes = np.sort(numpy_generator(seed, "silhouette").choice(len(z_ND), sample, replace=False))
    z_SD = z_ND[nodes].astype(np.float64)
    square_S = np.einsum("sd,sd->s", z_SD, z_SD)
    distance_SS = square_S[:, None] + square_S - 2 * (z_SD @ z_SD.T)
    np.fill_diagonal(distance_SS, 0)
    np.sqrt(np.maximum(distance_SS, 0, out=distance_SS), out=distance_SS)
    return [_mean_silhouette(distance_SS, cluster_N[nodes]) for cluster_N in partitions]


def _mean_silhouette(distance_SS: np.ndarray, cluster_S: np.ndarray) -> float:
    _, cluster_S = np.unique(cluster_S, return_inverse=True)
    size_K = np.bincount(cluster_S)
    if not 2 <= len(size_K) < len(cluster_S):
        return float("nan")
    total_SK = distance_SS @ np.eye(len(size_K))[cluster_S]
    rows = np.arange(len(cluster_S))
    own_size_S = size_K[cluster_S]
    own_S = total_SK[rows, cluster_S] / np.maximum(own_size_S - 1, 1)
    mean_SK = total_SK / size_K
    mean_SK[rows, cluster_S] = np.inf
    other_S = mean_SK.min(1)
    largest_S = np.maximum(own_S, other_S)
    score_S = np.where(
        (own_size_S > 1) & (largest_S > 0), (other_S - own_S) / np.maximum(largest_S, 1e-300), 0
    )
    return float(score_S.mean())
