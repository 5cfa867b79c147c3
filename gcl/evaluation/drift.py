"""What changed between two runs, without labels: clusters, geometry of the embeddings, neighbourhoods.

All three compare the nodes that both runs have. Node order and node set may differ, so the rows of a node in
either run are given as index arrays. None depends on what a new seed changes freely: names of clusters, and
rotation, reflection or overall scale of an embedding.

Legend: N, P nodes of the first and second run, M nodes of both, D, E embedding widths, S sampled nodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gcl.errors import NotDefined
from gcl.random import numpy_generator

_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True, eq=False)
class SharedNodes:
    """Where the nodes that two runs share lie in each of them.

    Attributes:
        before_M: int64 rows in the first run.
        after_M: int64 rows of the same nodes, in the same order, in the second run.
    """

    before_M: np.ndarray
    after_M: np.ndarray

    def __post_init__(self) -> None:
        if len(self.before_M) != len(self.after_M):
            raise ValueError(f"{len(self.before_M)} rows cannot be paired with {len(self.after_M)}")
        if len(self.before_M) < 2:
            raise NotDefined(f"the runs share {len(self.before_M)} node(s); a comparison needs two")

    def __len__(self) -> int:
        return len(self.before_M)


def cluster_agreement(before_N: np.ndarray, after_P: np.ndarray, shared: SharedNodes) -> float:
    """Adjusted Rand index of two clusterings: 1 when equal up to names, 0 in expectation by chance.

    Source: Hubert and Arabie 1985, "Comparing partitions", equation 5.

    Args:
        before_N: int cluster of each node of the first run.
        after_P: int cluster of each node of the second run.
        shared: rows of the nodes of both.
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(before_N[shared.before_M], after_P[shared.after_M]))


def embedding_drift(before_ND: np.ndarray, after_PE: np.ndarray, shared: SharedNodes) -> float:
    """One minus the linear centred kernel alignment (CKA) of two embeddings, in [0, 1].

    0 where one is the other rotated, reflected, moved or scaled as a whole; 1 where no direction of one
    correlates with any of the other. The widths may differ. In feature space,

        CKA = ||X'Y||_F^2 / (||X'X||_F ||Y'Y||_F),   columns of X and Y centred,

    which takes O(M D E) time and O(D E) memory beside blocks of 32 MiB; no M x M matrix.

    Source: Kornblith et al. 2019, "Similarity of neural network representations revisited", section 3.

    Args:
        before_ND: float32, embeddings of the first run.
        after_PE: float32, embeddings of the second run.
        shared: rows of the nodes of both.
    """
    mean_D, mean_E = _mean(before_ND, shared.before_M), _mean(after_PE, shared.after_M)
    widths = before_ND.shape[1], after_PE.shape[1]
    cross_DE = np.zeros(widths)
    gram_DD, gram_EE = np.zeros((widths[0], widths[0])), np.zeros((widths[1], widths[1]))
    for start, stop in _blocks(len(shared), 8 * sum(widths)):
        x_BD = before_ND[shared.before_M[start:stop]] - mean_D
        y_BE = after_PE[shared.after_M[start:stop]] - mean_E
        cross_DE += x_BD.T @ y_BE
        gram_DD += x_BD.T @ x_BD
        gram_EE += y_BE.T @ y_BE
    own, other = float(np.linalg.norm(gram_DD)), float(np.linalg.norm(gram_EE))
    at_point = [_is_point(*pair, len(shared)) for pair in ((own, mean_D), (other, mean_E))]
    if any(at_point):  # all nodes at one point: nothing to align, unless both are
        return float(not all(at_point))
    alignment = float(np.linalg.norm(cross_DE)) ** 2 / (own * other)
    return float(np.clip(1 - alignment, 0, 1))


def neighbour_overlap(
    before_ND: np.ndarray,
    after_PE: np.ndarray,
    shared: SharedNodes,
    *,
    seed: int,
    num_neighbours: int = 10,
    num_sampled: int = 1_000,
) -> float:
    """Mean share of a node's nearest neighbours (by cosine) that are still among its nearest, in [0, 1].

    Local where CKA is global: an embedding may keep its large directions and shuffle every neighbourhood.
    Measured on a seeded sample of nodes against all shared ones, in O(S M D) time and blocks of 32 MiB.
    Neighbours of exactly equal similarity are taken in the order of the shared rows, as far as rounding
    lets them be equal.

    Args:
        before_ND: float32, embeddings of the first run.
        after_PE: float32, embeddings of the second run.
        shared: rows of the nodes of both.
        seed: draws the sample.
        num_neighbours: k; at most M - 1 are compared.
        num_sampled: S; all nodes where there are no more.
    """
    count = min(num_neighbours, len(shared) - 1)
    generator = numpy_generator(seed, "neighbour_overlap")
    sample_S = np.sort(generator.permutation(len(shared))[:num_sampled])
    near_SK = _nearest(before_ND, shared.before_M, sample_S, count)
    then_SK = _nearest(after_PE, shared.after_M, sample_S, count)
    kept = sum(len(np.intersect1d(a, b)) for a, b in zip(near_SK, then_SK, strict=True))
    return kept / (len(sample_S) * count)


def _mean(z_ND: np.ndarray, rows_M: np.ndarray) -> np.ndarray:
    total_D = np.zeros(z_ND.shape[1])
    for start, stop in _blocks(len(rows_M), 8 * z_ND.shape[1]):
        total_D += z_ND[rows_M[start:stop]].sum(0, dtype=np.float64)
    return np.asarray(total_D / len(rows_M))


def _is_point(gram_norm: float, mean_D: np.ndarray, num_rows: int) -> bool:
    """Whether what is left after centring is nothing, or the rounding of float32."""
    return gram_norm <= 1e-14 * num_rows * float(mean_D @ mean_D)


def _nearest(z_ND: np.ndarray, rows_M: np.ndarray, sample_S: np.ndarray, count: int) -> np.ndarray:
    """int64 [S, k]: positions among the shared nodes of each sampled node's nearest others."""
    query_SD = _unit(z_ND[rows_M[sample_S]])
    best_SK = np.full((len(sample_S), count), -np.inf)
    index_SK = np.full((len(sample_S), count), -1, np.int64)
    for start, stop in _blocks(len(rows_M), 8 * max(len(sample_S), z_ND.shape[1])):
        similarity_SB = query_SD @ _unit(z_ND[rows_M[start:stop]]).T
        own = np.flatnonzero((sample_S >= start) & (sample_S < stop))
        similarity_SB[own, sample_S[own] - start] = -np.inf  # a node is no neighbour of its own
        both = np.concatenate([best_SK, similarity_SB], axis=1)
        positions = np.broadcast_to(np.arange(start, stop), similarity_SB.shape)
        indices = np.concatenate([index_SK, positions], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :count]
        best_SK = np.take_along_axis(both, order, axis=1)
        index_SK = np.take_along_axis(indices, order, axis=1)
    return index_SK


def _unit(z_BD: np.ndarray) -> np.ndarray:
    z_BD = z_BD.astype(np.float64)
    return np.asarray(z_BD / np.maximum(np.linalg.norm(z_BD, axis=1, keepdims=True), 1e-12))


def _blocks(num_rows: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    step = max(1, _BLOCK_BYTES // max(row_bytes, 1))
    for start in range(0, num_rows, step):
        yield start, min(start + step, num_rows)
