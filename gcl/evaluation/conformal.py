"""Prediction sets that contain the class of a new node with probability at least 1 - alpha.

Split conformal prediction. It is valid where calibration and new nodes are exchangeable, which random
splits of one graph are (the embeddings see all of it); a temporal or hand-made split is not.
"""

from typing import Literal

import numpy as np
import scipy.sparse as sp

from gcl.graph import Graph

Score = Literal["lac", "aps", "daps"]


def nonconformity(
    p_NK: np.ndarray,
    *,
    score: Score,
    draw_N: np.ndarray,
    graph: Graph | None = None,
    daps_weight: float = 0.5,
) -> np.ndarray:
    """float64 [N, K]: how badly each class would fit each node; larger is worse.

    lac: 1 - p (Sadinle et al. 2019), the smallest sets on average. aps: probability of all likelier
    classes plus a random share of its own (Romano et al. 2020), sets that grow where the node is hard.
    daps: aps averaged with the neighbours' (Zargarbashi et al. 2023); isolated nodes keep their own.

    Args:
        p_NK: calibrated probabilities.
        score: which.
        draw_N: uniform numbers in [0, 1), one a node, that break aps's ties.
        graph: for daps.
        daps_weight: share of the neighbours' mean.
    """
    if score == "lac":
        return np.asarray(1.0 - p_NK)
    order_NK = np.argsort(-p_NK, axis=1, kind="stable")
    sorted_NK = np.take_along_axis(p_NK, order_NK, 1)
    score_NK = np.empty_like(p_NK)
    np.put_along_axis(score_NK, order_NK, np.cumsum(sorted_NK, 1) - draw_N[:, None] * sorted_NK, 1)
    if score == "aps":
        return score_NK
    if graph is None:
        raise ValueError("the daps score needs the graph")
    adjacency_NN = sp.csr_matrix(graph.adjacency_NN(), dtype=np.float64)
    degree_N1 = np.asarray(adjacency_NN.sum(1)).reshape(-1, 1)
    mean_NK = (adjacency_NN @ score_NK) / np.where(degree_N1 > 0, degree_N1, 1)
    mixed_NK = (1 - daps_weight) * score_NK + daps_weight * mean_NK
    return np.asarray(np.where(degree_N1 > 0, mixed_NK, score_NK))


def conformal_quantile(score_M: np.ndarray, alpha: float) -> float:
    """The ceil((M + 1)(1 - alpha))-th smallest of M scores; infinite (all classes) if M is too small."""
    place = int(np.ceil((len(score_M) + 1) * (1 - alpha)))
    return float("inf") if place > len(score_M) else float(np.sort(score_M)[place - 1])


def set_scores(set_MK: np.ndarray, y_M: np.ndarray) -> dict[str, float]:
    """coverage, mean_set_size, singleton_hit (share of nodes with exactly the right class as set)."""
    hit_M = set_MK[np.arange(len(y_M)), y_M]
    size_M = set_MK.sum(1)
    return {
        "coverage": float(hit_M.mean()),
        "mean_set_size": float(size_M.mean()),
        "singleton_hit": float((hit_M & (size_M == 1)).mean()),
    }
