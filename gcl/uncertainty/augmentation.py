"""Augmentation uncertainty: how far a node's embedding moves when its graph is perturbed."""

from collections.abc import Callable

import numpy as np

from gcl.clustering.geometry import checked_embeddings, soft_membership, unit_rows

EmbedView = Callable[[int], np.ndarray]


def direction_disagreement(embed_view: EmbedView, num_views: int) -> np.ndarray:
    """1 - mean cosine of a node's V views to their mean direction, in O(N D) memory.

    For unit views u_v with mean m this is 1 - mean_v cos(u_v, m) = 1 - |m|: 0 when all agree.

    Returns:
        float32 [N] in [0, 1]; NaN where a view has no direction (a zero row).
    """
    total_ND: np.ndarray | None = None
    for view in range(num_views):
        unit_ND = unit_rows(checked_embeddings(embed_view(view))).astype(np.float64)
        unit_ND[~(unit_ND != 0).any(1)] = np.nan
        total_ND = unit_ND if total_ND is None else total_ND + unit_ND
    assert total_ND is not None, "num_views >= 2"  # noqa: S101
    length_N = np.linalg.norm(total_ND, axis=1) / num_views
    return np.asarray(np.clip(1 - length_N, 0, 1), dtype=np.float32)


def membership_disagreement(
    embed_view: EmbedView, num_views: int, *, centroid_KD: np.ndarray, scale: float
) -> np.ndarray:
    """Mutual information of cluster and view: entropy of the mean membership minus the mean entropy.

    Large where views are each sure but of different clusters; a node that lies steadily between two
    clusters has none. `scale` as in `soft_membership`.

    Returns:
        float32 [N] in nats.
    """
    mean_NK: np.ndarray | float = 0.0
    mean_entropy_N: np.ndarray | float = 0.0
    for view in range(num_views):
        unit_ND = unit_rows(checked_embeddings(embed_view(view)))
        member_NK = soft_membership(unit_ND, centroid_KD, scale=scale).astype(np.float64)
        mean_NK = mean_NK + member_NK / num_views
        mean_entropy_N = mean_entropy_N + _entropy(member_NK) / num_views
    return np.asarray(np.maximum(_entropy(np.asarray(mean_NK)) - mean_entropy_N, 0), dtype=np.float32)


def _entropy(p_NK: np.ndarray) -> np.ndarray:
    return np.asarray(-(p_NK * np.log(np.where(p_NK > 0, p_NK, 1))).sum(1))
