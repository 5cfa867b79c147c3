"""Features of target nodes smoothed along metapaths: [X, P_1 X, .., P_M X], nothing of it learned.

P_m is a metapath's adjacency with rows that sum to 1. Nodes without attributes have the leading left singular
vectors of every P_m in place of X, scaled by their singular values.

Shape legend: N target nodes, F features, M metapaths, B rows of a block, D components of a metapath.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from gcl.errors import UnsuitableSetting
from gcl.feature_rows import FeatureRows
from gcl.features import NUM_OVERSAMPLES, NUM_POWER_ITERATIONS, normalise_rows
from gcl.graph import Graph
from gcl.hetero_graph import Metapath
from gcl.random import numpy_generator
from gcl.smoothing import SmoothingConfig, prepared_rows
from gcl.workspace import row_slices

NUM_COMPONENTS = 128


@dataclass(frozen=True, eq=False)
class MetapathFeatures:
    """Smoothed features, computed a block of rows at a time.

    Attributes:
        num_features: their width: (M + 1) F, or M D.
        bound: no entry is larger than this in magnitude.
        parts: name and width of each part, in order.
        blocks: float32 [B, num_features] in node order.
    """

    num_features: int
    bound: float
    parts: tuple[tuple[str, int], ...]
    blocks: Iterator[np.ndarray]


def metapath_features(
    graph: Graph,
    metapaths: Sequence[Metapath],
    config: SmoothingConfig,
    *,
    seed: int,
    attributes: FeatureRows | None = None,
) -> MetapathFeatures:
    """Smooth along each metapath; of the configuration, preparation and normalisation count.

    Memory: the adjacencies and the prepared attributes, twice (float64), and one block of rows.

    Args:
        graph: the target nodes.
        metapaths: adjacencies in the order of the parts.
        config: `features`: attributes (components of each metapath where there are none), or spectral (the
            components in any case); `num_components`: of the attributes' principal components, or of each
            metapath (128 unless given); standardise, normalise_input; normalise_output brings each part of a
            row to one length, and the row to 1.
        seed: of the decompositions.
        attributes: the target nodes' attributes; None: they have none.

    Raises:
        UnsuitableSetting: one-hot degrees are asked for; more components than nodes.
    """
    if config.features == "degree":
        raise UnsuitableSetting('metapaths have no degrees of their own: set smooth.features to "attributes"')
    walks = [(metapath.name, row_normalised(metapath.adjacency_NN)) for metapath in metapaths]
    if config.features == "spectral" or attributes is None:
        return _components(walks, config, seed=seed)
    x_NF: Any = prepared_rows(graph, config, seed=seed, attributes=attributes).whole().astype(np.float64)
    width = int(x_NF.shape[1])
    values = x_NF if isinstance(x_NF, np.ndarray) else x_NF.data
    bound = float(np.abs(values).max(initial=0.0)) * (1 + 1e-6)  # averages; and the rounding to float32

    def blocks() -> Iterator[np.ndarray]:
        for rows in row_slices(graph.num_nodes, 8 * width * (len(walks) + 1)):
            parts = [x_NF[rows], *(walk[rows] @ x_NF for _, walk in walks)]
            dense = [part if isinstance(part, np.ndarray) else part.toarray() for part in parts]
            yield np.hstack(dense).astype(np.float32)

    parts = (("x", width), *((name, width) for name, _ in walks))
    return _finished(blocks(), parts, bound, config)


def row_normalised(adjacency_NN: sp.csr_matrix) -> sp.csr_matrix:
    """Rows that sum to 1, as float64; a row of zeros stays one."""
    matrix = adjacency_NN.astype(np.float64)
    total_N = np.asarray(matrix.sum(axis=1)).ravel()
    scale_N = np.divide(1.0, total_N, out=np.zeros_like(total_N), where=total_N > 0)
    matrix.data *= np.repeat(scale_N, np.diff(matrix.indptr))
    return matrix


def leading_components(matrix_NN: sp.csr_matrix, *, num_components: int, seed: int) -> np.ndarray:
    """The leading left singular vectors times their singular values, by a seeded randomised SVD.

    Halko, Martinsson & Tropp 2011, algorithm 4.4, as in `gcl.features.principal_components`, without
    centring. A component's sign makes the entry of largest magnitude of its right vector positive.

    Args:
        matrix_NN: float64.
        num_components: D, at most N.
        seed: of the starting vectors.

    Returns:
        float32 N x D, by decreasing singular value.
    """
    num_nodes = matrix_NN.shape[0]
    size = min(num_components + NUM_OVERSAMPLES, num_nodes)
    basis_Ns = numpy_generator(seed, "metapath_components").standard_normal((num_nodes, size))
    for _ in range(NUM_POWER_ITERATIONS + 1):
        range_Ns, _ = np.linalg.qr(matrix_NN @ basis_Ns)
        projected_Ns = matrix_NN.T @ range_Ns
        basis_Ns, _ = np.linalg.qr(projected_Ns)
    right_Ns, singular_s, rotation_ss = np.linalg.svd(projected_Ns, full_matrices=False)
    strongest = np.abs(right_Ns).argmax(axis=0)
    sign_s = np.sign(right_Ns[strongest, np.arange(size)])
    scores_Ns = range_Ns @ (rotation_ss.T * (singular_s * sign_s))
    return np.ascontiguousarray(scores_Ns[:, :num_components], np.float32)


def _components(
    walks: Sequence[tuple[str, sp.csr_matrix]], config: SmoothingConfig, *, seed: int
) -> MetapathFeatures:
    num_nodes = walks[0][1].shape[0]
    width = config.num_components or min(NUM_COMPONENTS, num_nodes)
    if width > num_nodes:
        raise UnsuitableSetting(f"smooth.num_components={width} exceeds the number of nodes, {num_nodes}")
    found = [leading_components(walk, num_components=width, seed=seed) for _, walk in walks]
    bound = max(float(np.abs(part).max(initial=0.0)) for part in found)
    rows = row_slices(num_nodes, 4 * width * len(walks))
    blocks = (np.hstack([part[block] for part in found]) for block in rows)
    return _finished(blocks, tuple((name, width) for name, _ in walks), bound, config)


def _finished(
    blocks: Iterator[np.ndarray], parts: tuple[tuple[str, int], ...], bound: float, config: SmoothingConfig
) -> MetapathFeatures:
    if config.normalise_output == "l2":
        blocks = (_normalised_parts(block, [width for _, width in parts]) for block in blocks)
        bound = 1 + 1e-6
    return MetapathFeatures(sum(width for _, width in parts), bound, parts, blocks)


def _normalised_parts(x_BF: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """Rows of length 1 to which each part contributes the same; dense metapaths average to short rows."""
    parts = np.split(x_BF, np.cumsum(widths)[:-1], axis=1)
    scale = np.float32(1 / np.sqrt(len(widths)))
    return np.hstack([scale * np.asarray(normalise_rows(np.ascontiguousarray(part), "l2")) for part in parts])
