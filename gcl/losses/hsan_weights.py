"""HSAN's weights of pairs: which nodes are trusted, and M = |Q - S'|^beta between trusted nodes.

Q is 1 where two nodes share a cluster and 0 where not, S' the similarity of the last refresh on [0, 1]. So
a pair in one cluster counts the less the more alike it is, one of two clusters the more. Weights are
constants: either recomputed for every block from what is frozen, O(N b), or kept, three N x N matrices.

Legend: N nodes, K clusters, A anchors, M candidates an anchor, b rows and c columns of a block.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gcl.losses.hsan import VIEW_PAIRS, ViewPair, ViewSimilarity

_STRIP_ROWS = 512
_BYTES_A_WEIGHT = 4


def least_share(distance_NK: np.ndarray) -> np.ndarray:
    """float64 [N] c_i = min_k softmax_k(d_ik), small for a node that its centroid holds clearly.

    The sign of the distance is not flipped, so this is the share of the *nearest* centroid in a softmax that
    favours the farthest: it ranks nodes and is no probability of anything.

    Args:
        distance_NK: squared distances to the centroids.
    """
    distance_NK = distance_NK.astype(np.float64)
    share_NK = np.exp(distance_NK - distance_NK.max(axis=1, keepdims=True))
    return np.asarray(share_NK.min(axis=1) / share_NK.sum(axis=1))


def confident_nodes(distance_NK: np.ndarray, *, kept_rate: float) -> np.ndarray:
    """Mask [N] of the nodes whose cluster is trusted: c_i at most the m-th largest, m = floor(N (1 - tau)).

    Without ties these are N - m + 1 nodes; m = 0, which the released code cannot run, keeps all.

    Args:
        distance_NK: squared distances to the centroids.
        kept_rate: tau in (0, 1], about the share of nodes kept.
    """
    share_N = least_share(distance_NK)
    num_below = math.floor(len(share_N) * (1 - kept_rate))
    if num_below == 0:
        return np.ones(len(share_N), bool)
    threshold = np.partition(share_N, len(share_N) - num_below)[len(share_N) - num_below]
    return np.asarray(share_N <= threshold)


@dataclass(frozen=True, eq=False)
class FrozenWeights:
    """The weights of a refresh, computed anew for every block that asks.

    Attributes:
        similarity: S at the refresh, without gradients.
        cluster_N: int64 clusters of the refresh.
        is_confident_N: bool, nodes whose cluster is trusted.
        power: beta >= 0, the exponent.
        lowest: least entry of S.
        highest: largest entry of S.
        positive_N: weight of a node's own two views.
    """

    similarity: ViewSimilarity
    cluster_N: Tensor
    is_confident_N: Tensor
    power: float
    lowest: float
    highest: float
    positive_N: Tensor

    def tile(self, pair: ViewPair, rows: slice, columns: slice) -> Tensor:
        """The weights [b, c] of a block; 1 unless both nodes are trusted."""
        with torch.no_grad():
            return self._weights(
                self.similarity.tile(pair, rows, columns),
                self.cluster_N[rows, None] == self.cluster_N[None, columns],
                self.is_confident_N[rows, None] & self.is_confident_N[None, columns],
            )

    def of_pairs(self, pair: ViewPair, nodes_A: Tensor, others_AM: Tensor) -> Tensor:
        """The weights [A, M] of nodes, in view `pair[0]`, with M others each, in view `pair[1]`."""
        with torch.no_grad():
            return self._weights(
                self.similarity.of_pairs(pair, nodes_A, others_AM),
                self.cluster_N[nodes_A, None] == self.cluster_N[others_AM],
                self.is_confident_N[nodes_A, None] & self.is_confident_N[others_AM],
            )

    def _weights(self, similarity: Tensor, is_same: Tensor, is_confident: Tensor) -> Tensor:
        return _weights_of(
            similarity,
            is_same,
            is_confident,
            power=self.power,
            lowest=self.lowest,
            highest=self.highest,
        )


@dataclass(frozen=True, eq=False)
class KeptWeights:
    """Weights that lie in memory.

    Attributes:
        weight: float32 [N, N], a pair of views.
    """

    weight: Mapping[ViewPair, Tensor]

    @property
    def positive_N(self) -> Tensor:
        """Weight of a node's own two views."""
        return self.weight[0, 1].diagonal()

    def tile(self, pair: ViewPair, rows: slice, columns: slice) -> Tensor:
        """The weights [b, c] of a block."""
        return self.weight[pair][rows, columns]

    def of_pairs(self, pair: ViewPair, nodes_A: Tensor, others_AM: Tensor) -> Tensor:
        """The weights [A, M] of nodes, in view `pair[0]`, with M others each, in view `pair[1]`."""
        if pair == (1, 0):
            return self.weight[0, 1][others_AM, nodes_A[:, None]]
        return self.weight[pair][nodes_A[:, None], others_AM]


def frozen_weights(
    similarity: ViewSimilarity, cluster_N: Tensor, is_confident_N: Tensor, *, power: float
) -> FrozenWeights:
    """The weights of a refresh; one pass over all pairs finds the extremes of S, self pairs included.

    Args:
        similarity: S with the weights of the refresh; gradients are not followed.
        cluster_N: int64 clusters.
        is_confident_N: bool, nodes whose cluster is trusted.
        power: beta >= 0.
    """
    similarity = similarity.detached()
    extremes = [
        torch.stack(torch.aminmax(similarity.tile(pair, rows, columns))).double()
        for pair in VIEW_PAIRS
        for rows, columns in _strips(similarity.num_nodes, is_symmetric=pair[0] == pair[1])
    ]
    lowest, highest = float(torch.stack(extremes)[:, 0].min()), float(torch.stack(extremes)[:, 1].max())
    positive_N = _weights_of(
        similarity.positive_N,
        torch.ones_like(is_confident_N),
        is_confident_N,
        power=power,
        lowest=lowest,
        highest=highest,
    )
    return FrozenWeights(similarity, cluster_N, is_confident_N, power, lowest, highest, positive_N)


def keep_weights(frozen: FrozenWeights, previous: Mapping[ViewPair, Tensor] | None = None) -> KeptWeights:
    """The weights of a refresh as matrices.

    Args:
        frozen: what they follow from.
        previous: [N, N] a pair of views, overwritten between trusted nodes and left as it is elsewhere; None
            for fresh matrices, 1 elsewhere.
    """
    num_nodes = frozen.similarity.num_nodes
    like = frozen.similarity.positive_N
    kept = dict(previous or {pair: like.new_empty(num_nodes, num_nodes) for pair in VIEW_PAIRS})
    for pair, weight_NN in kept.items():
        is_symmetric = pair[0] == pair[1]
        for rows, columns in _strips(num_nodes, is_symmetric=is_symmetric):
            weight_bc = frozen.tile(pair, rows, columns)
            if previous is not None:
                both_bc = frozen.is_confident_N[rows, None] & frozen.is_confident_N[None, columns]
                weight_bc = torch.where(both_bc, weight_bc, weight_NN[rows, columns])
            weight_NN[rows, columns] = weight_bc
            if is_symmetric:
                weight_NN[rows.stop :, rows] = weight_bc[:, rows.stop - rows.start :].T
    return KeptWeights(kept)


def kept_weights_bytes(num_nodes: int) -> int:
    """Memory of `KeptWeights`."""
    return len(VIEW_PAIRS) * num_nodes**2 * _BYTES_A_WEIGHT


def _weights_of(
    similarity: Tensor, is_same: Tensor, is_confident: Tensor, *, power: float, lowest: float, highest: float
) -> Tensor:
    similarity = similarity if similarity.dtype == torch.float64 else similarity.float()
    span = max(highest - lowest, float(torch.finfo(similarity.dtype).tiny))
    scaled = ((similarity - lowest) / span).clamp_(0, 1)
    weight = torch.where(is_same, 1 - scaled, scaled)
    if power != 1:
        weight = weight.pow_(power)
    return weight.masked_fill_(~is_confident, 1.0)


def _strips(num_nodes: int, *, is_symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of strips that cover all pairs, or those on and above the diagonal."""
    for first in range(0, num_nodes, _STRIP_ROWS):
        rows = slice(first, min(first + _STRIP_ROWS, num_nodes))
        yield rows, slice(first if is_symmetric else 0, num_nodes)
