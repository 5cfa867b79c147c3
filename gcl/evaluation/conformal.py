"""Prediction sets that contain the class of a new node with probability at least 1 - alpha.

Split conformal prediction. It is valid where calibration and new nodes are exchangeable, which random
splits of one graph are (the embeddings see all of it); a temporal or hand-made split is not.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import scipy.sparse as sp

from gcl.graph import Graph

Score = Literal["lac", "aps", "daps"]
_EDGES_AT_ONCE = 1 << 20


def nonconformity(p_BK: np.ndarray, *, score: Score, draw_B: np.ndarray) -> np.ndarray:
    """float64 [B, K]: how badly each class would fit each node; larger is worse.

    lac: 1 - p (Sadinle et al. 2019), the smallest sets on average. aps: probability of all likelier
    classes plus a random share of its own (Romano et al. 2020), sets that grow where the node is hard.
    daps: aps, still to be averaged with the neighbours' (`mixed_with_neighbours`).

    Args:
        p_BK: calibrated probabilities of some nodes; no node's score depends on another's.
        score: which.
        draw_B: uniform numbers in [0, 1), one a node, that break aps's ties.
    """
    if score == "lac":
        return np.asarray(1.0 - p_BK)
    order_BK = np.argsort(-p_BK, axis=1, kind="stable")
    sorted_BK = np.take_along_axis(p_BK, order_BK, 1)
    score_BK = np.empty_like(p_BK)
    np.put_along_axis(score_BK, order_BK, np.cumsum(sorted_BK, 1) - draw_B[:, None] * sorted_BK, 1)
    return score_BK


def mixed_with_neighbours(
    score_NK: np.ndarray, graph: Graph, nodes_M: np.ndarray, *, weight: float
) -> np.ndarray:
    """Scores of some nodes averaged with their neighbours' (Zargarbashi et al. 2023), float64 [M, K].

    Isolated nodes keep their own. Nodes are taken a few at a time, by the number of their edges.

    Args:
        score_NK: float64 own scores of all nodes; may be memory-mapped.
        graph: whose out-neighbours count, by edge weight.
        nodes_M: int64, in any order.
        weight: share of the neighbours' mean.
    """
    first_M, after_M = (np.searchsorted(graph.src_E, nodes_M, side=side) for side in ("left", "right"))
    indptr = np.concatenate([[0], np.cumsum(after_M - first_M)])
    mixed_MK = np.empty((len(nodes_M), score_NK.shape[1]))
    for start, stop in _groups(indptr):
        offset = np.arange(indptr[start], indptr[stop]) - indptr[start]
        own_start = np.repeat(
            first_M[start:stop] - (indptr[start:stop] - indptr[start]), np.diff(indptr[start : stop + 1])
        )
        edges = own_start + offset
        weight_E = np.ones(len(edges)) if graph.weight_E is None else graph.weight_E[edges]
        adjacency_BN = sp.csr_matrix(
            (weight_E.astype(np.float64), graph.dst_E[edges], indptr[start : stop + 1] - indptr[start]),
            shape=(stop - start, graph.num_nodes),
        )
        degree_B1 = np.asarray(adjacency_BN.sum(1)).reshape(-1, 1)
        mean_BK = (adjacency_BN @ score_NK) / np.where(degree_B1 > 0, degree_B1, 1)
        own_BK = score_NK[nodes_M[start:stop]]
        mixed_MK[start:stop] = np.where(degree_B1 > 0, (1 - weight) * own_BK + weight * mean_BK, own_BK)
    return mixed_MK


def _groups(indptr: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of rows with at most `_EDGES_AT_ONCE` edges, or of one row with more."""
    start = 0
    while start < len(indptr) - 1:
        limit = int(np.searchsorted(indptr, indptr[start] + _EDGES_AT_ONCE, side="right")) - 1
        stop = max(limit, start + 1)
        yield start, stop
        start = stop


def conformal_quantile(score_M: np.ndarray, alpha: float) -> float:
    """The ceil((M + 1)(1 - alpha))-th smallest of M scores; infinite (all classes) if M is too small."""
    place = int(np.ceil((len(score_M) + 1) * (1 - alpha)))
    return float("inf") if place > len(score_M) else float(np.sort(score_M)[place - 1])


def set_scores(is_hit_M: np.ndarray, size_M: np.ndarray) -> dict[str, float]:
    """coverage, mean_set_size, singleton_hit (share of nodes with exactly the right class as set).

    Args:
        is_hit_M: whether a node's set holds its class.
        size_M: classes in its set.
    """
    return {
        "coverage": float(is_hit_M.mean()),
        "mean_set_size": float(size_M.mean()),
        "singleton_hit": float((is_hit_M & (size_M == 1)).mean()),
    }
