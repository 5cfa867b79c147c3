"""How good a partition is without labels: modularity, conductance, silhouette."""

from collections.abc import Sequence

import numpy as np

from gcl.graph import Graph
from gcl.random import numpy_generator


def modularity(graph: Graph, cluster_N: np.ndarray) -> float:
    """Newman's modularity (Leicht and Newman's for directed edges), weighted; NaN without edges.

    It favours many small communities: on citation graphs its optimum has several times as many
    clusters as there are classes, so it is a measure to read beside others.
    """
    within_K, out_K, in_K, total = _edge_mass(graph, cluster_N)
    if total <= 0:
        return float("nan")
    return float(within_K.sum() / total - (out_K * in_K).sum() / total**2)


def conductance(graph: Graph, cluster_N: np.ndarray) -> float:
    """Mean over clusters of cut / min(volume, rest's volume), smaller is better; NaN where none has one."""
    within_K, out_K, in_K, total = _edge_mass(graph, cluster_N)
    volume_K = (out_K + in_K) / 2
    smaller_K = np.minimum(volume_K, total - volume_K)
    defined = smaller_K > 0
    if not defined.any():
        return float("nan")
    return float(((volume_K - within_K)[defined] / smaller_K[defined]).mean())


def _edge_mass(graph: Graph, cluster_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    weight_E = np.ones(graph.num_edges) if graph.weight_E is None else graph.weight_E.astype(np.float64)
    size = int(cluster_N.max()) + 1
    from_E, to_E = cluster_N[graph.src_E], cluster_N[graph.dst_E]
    within_E = from_E == to_E
    within_K = np.bincount(from_E[within_E], weights=weight_E[within_E], minlength=size)
    out_K = np.bincount(from_E, weights=weight_E, minlength=size)
    in_K = np.bincount(to_E, weights=weight_E, minlength=size)
    return within_K, out_K, in_K, float(weight_E.sum())


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
