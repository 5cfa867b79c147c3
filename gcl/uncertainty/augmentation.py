"""Augmentation uncertainty: how far a node's embedding moves when its graph is perturbed."""

from collections.abc import Callable

import numpy as np

from gcl.clustering.geometry import aligned_rows, checked_embeddings, soft_membership, unit_rows
from gcl.workspace import MEMORY, Workspace

EmbedView = Callable[[int], np.ndarray]


def direction_disagreement(
    embed_view: EmbedView, num_views: int, *, workspace: Workspace = MEMORY
) -> np.ndarray:
    """1 - mean cosine of a node's V views to their mean direction; sums of views, whatever their number.

    For unit views u_v with mean m this is 1 - mean_v cos(u_v, m) = 1 - |m|: 0 when all agree.

    Args:
        embed_view: view number -> float [N, D].
        num_views: V, at least 2.
        workspace: where the sum of the views is put.

    Returns:
        float32 [N] in [0, 1]; NaN where a view has no direction (a zero row).
    """
    total_ND: np.ndarray | None = None
    for view in range(num_views):
        z_ND = checked_embeddings(embed_view(view))
        if total_ND is None:
            total_ND = _zeros(z_ND.shape, workspace)
        for rows in aligned_rows(z_ND):
            unit_BD = unit_rows(z_ND[rows]).astype(np.float64)
            unit_BD[~(unit_BD != 0).any(1)] = np.nan
            total_ND[rows] += unit_BD
        del z_ND  # before the next view is made
    assert total_ND is not None, "num_views >= 2"  # noqa: S101
    uncertainty_N = np.empty(len(total_ND), np.float32)
    for rows in aligned_rows(total_ND):
        length_B = np.linalg.norm(total_ND[rows], axis=1) / num_views
        uncertainty_N[rows] = np.clip(1 - length_B, 0, 1)
    return uncertainty_N


def membership_disagreement(
    embed_view: EmbedView,
    num_views: int,
    *,
    centroid_KD: np.ndarray,
    scale: float,
    workspace: Workspace = MEMORY,
) -> np.ndarray:
    """Mutual information of cluster and view: entropy of the mean membership minus the mean entropy.

    Large where views are each sure but of different clusters; a node that lies steadily between two
    clusters has none.

    Args:
        embed_view: view number -> float [N, D].
        num_views: V, at least 2.
        centroid_KD: float32 centroids among embeddings of unit length.
        scale: as in `soft_membership`.
        workspace: where the sum of the memberships is put.

    Returns:
        float32 [N] in nats.
    """
    mean_NK: np.ndarray | None = None
    for view in range(num_views):
        z_ND = checked_embeddings(embed_view(view))
        if mean_NK is None:
            mean_NK = _zeros((len(z_ND), len(centroid_KD)), workspace)
            mean_entropy_N = np.zeros(len(z_ND))
        for rows in aligned_rows(z_ND):
            member_BK = soft_membership(unit_rows(z_ND[rows]), centroid_KD, scale=scale).astype(np.float64)
            mean_NK[rows] += member_BK / num_views
            mean_entropy_N[rows] += _entropy(member_BK) / num_views
        del z_ND  # before the next view is made
    assert mean_NK is not None, "num_views >= 2"  # noqa: S101
    uncertainty_N = np.empty(len(mean_NK), np.float32)
    for rows in aligned_rows(mean_NK):
        uncertainty_N[rows] = np.maximum(_entropy(mean_NK[rows]) - mean_entropy_N[rows], 0)
    return uncertainty_N


def _zeros(shape: tuple[int, int], workspace: Workspace) -> np.ndarray:
    sum_NK = workspace.empty(shape, np.float64)
    sum_NK[:] = 0
    return sum_NK


def _entropy(p_NK: np.ndarray) -> np.ndarray:
    return np.asarray(-(p_NK * np.log(np.where(p_NK > 0, p_NK, 1))).sum(1))
