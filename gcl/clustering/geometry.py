"""Embeddings as points: checks, unit length, soft membership; all of it in blocks of rows."""

from collections.abc import Iterator

import numpy as np

from gcl.workspace import BLOCK_BYTES, MEMORY, Workspace, row_slices

_ROWS_AT_ONCE = 4096
_BLOCK_BYTES = BLOCK_BYTES


def checked_embeddings(z_ND: np.ndarray) -> np.ndarray:
    """`z_ND` as float32 in C order; itself, not a copy, where it is.

    Raises:
        ValueError: when it is not a matrix of at least one row and column, or holds NaN or infinity.
    """
    if z_ND.ndim != 2 or 0 in z_ND.shape:
        raise ValueError(f"embeddings must be a non-empty N x D matrix, not of shape {z_ND.shape}")
    z_ND = np.ascontiguousarray(z_ND, dtype=np.float32)
    num_bad = sum(int((~np.isfinite(z_ND[rows])).any(1).sum()) for rows in aligned_rows(z_ND))
    if num_bad:
        raise ValueError(f"{num_bad} embedding row(s) are not finite")
    return z_ND


def unit_rows(z_ND: np.ndarray, *, workspace: Workspace = MEMORY) -> np.ndarray:
    """float32 rows of length 1; a zero row stays zero, as it has no direction.

    Args:
        z_ND: float points.
        workspace: where the result is put.
    """
    unit_ND = workspace.empty(z_ND.shape)
    for rows in aligned_rows(z_ND):
        length_B1 = np.linalg.norm(z_ND[rows], axis=1, keepdims=True)
        unit_ND[rows] = z_ND[rows] / np.where(length_B1 > 0, length_B1, 1)
    return unit_ND


def has_direction(z_ND: np.ndarray) -> np.ndarray:
    """Whether each row points anywhere: bool [N], False for a zero row."""
    nonzero_N = np.empty(len(z_ND), bool)
    for rows in aligned_rows(z_ND):
        nonzero_N[rows] = (z_ND[rows] != 0).any(1)
    return nonzero_N


def is_one_point(z_ND: np.ndarray) -> bool:
    """Whether no column varies by more than 1e-6 of the largest absolute value."""
    low_D, high_D = z_ND[0].copy(), z_ND[0].copy()
    for rows in aligned_rows(z_ND):
        np.minimum(low_D, z_ND[rows].min(0), out=low_D)
        np.maximum(high_D, z_ND[rows].max(0), out=high_D)
    return bool((high_D - low_D).max() <= 1e-6 * max(high_D.max(), -low_D.min()))


def aligned_rows(matrix: np.ndarray) -> Iterator[slice]:
    """Consecutive ranges of rows of about 32 MiB, each but the last a multiple of 4,096 rows.

    So products of 4,096 rows at a time are the same, and round the same, with and without blocks.
    """
    rows = _BLOCK_BYTES // max(matrix[:1].nbytes, 1) // _ROWS_AT_ONCE * _ROWS_AT_ONCE
    return row_slices(len(matrix), 1, block_bytes=max(rows, _ROWS_AT_ONCE))


def squared_distance(z_ND: np.ndarray, centroid_KD: np.ndarray) -> np.ndarray:
    """float32 [N, K] squared Euclidean distances, never negative."""
    product_NK = z_ND @ centroid_KD.T.astype(z_ND.dtype)
    square_N1 = np.einsum("nd,nd->n", z_ND, z_ND)[:, None]
    square_K = np.einsum("kd,kd->k", centroid_KD, centroid_KD)
    return np.asarray(np.maximum(square_N1 - 2 * product_NK + square_K, 0), dtype=np.float32)


def cluster_spread(z_ND: np.ndarray, centroid_KD: np.ndarray, cluster_N: np.ndarray) -> float:
    """Variance a direction of the residuals z - centroid, over the directions they really use.

    With C the covariance of the residuals this is tr(C^2) / tr(C), that is tr(C) over the effective
    dimension tr(C)^2 / tr(C^2). Dividing by D instead would make every membership 0 or 1 in a wide
    embedding whose clusters vary in a few directions. Taken on at most 10,000 evenly spaced nodes.
    """
    rows = np.arange(0, len(z_ND), max(1, len(z_ND) // 10_000))
    residual_RD = (z_ND[rows] - centroid_KD[cluster_N[rows]]).astype(np.float64)
    if len(residual_RD) < residual_RD.shape[1]:
        gram = residual_RD @ residual_RD.T
    else:
        gram = residual_RD.T @ residual_RD
    trace = float(np.trace(gram))
    return 0.0 if trace <= 0 else float((gram**2).sum()) / trace / len(rows)


def soft_membership(
    z_ND: np.ndarray, centroid_KD: np.ndarray, *, scale: float, workspace: Workspace = MEMORY
) -> np.ndarray:
    """softmax(-d^2 / scale) over centroids: a distribution a node.

    Args:
        z_ND: float32 embeddings, in the geometry the centroids were fitted in.
        centroid_KD: float32 centroids.
        scale: squared length; twice the variance a direction gives the posterior of round Gaussians.
        workspace: where the result is put.

    Returns:
        float32 [N, K], rows sum to 1, argmax is the nearest centroid. With scale 0 all mass lies there.
    """
    member_NK = workspace.empty((len(z_ND), len(centroid_KD)))
    tiny = float(np.finfo(np.float32).tiny)
    for start in range(0, len(z_ND), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        distance_BK = squared_distance(z_ND[rows], centroid_KD).astype(np.float64)
        distance_BK -= distance_BK.min(1, keepdims=True)
        weight_BK = np.exp(-distance_BK / max(scale, tiny))
        member_NK[rows] = weight_BK / weight_BK.sum(1, keepdims=True)
    return member_NK
