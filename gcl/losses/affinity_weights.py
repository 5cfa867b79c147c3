"""Weights of negatives by the uncertainty of their affinity to the anchor (AUGCL): w_ij = alpha_i u_ij.

u_ij is the uncertainty of the pair and alpha_i a multiple of the inverse of its mean over the row. Weights
are handled as logarithms, which are added to logits. They are either kept as a matrix, for an estimator
that is a network, or computed where they are needed from a few numbers a row.

Legend: A anchors, M candidates of which the first A are the anchors themselves, D embedding, b anchors and
c candidates of a block.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from gcl.losses.grouped import cosine_rows
from gcl.two_means import TwoGaussians, TwoMeans, positive_group, two_means

LEAST_UNCERTAINTY = 1e-8
"""Uncertainties below are raised to it, so that every weight has a logarithm."""
LEAST_DISTANCE = 1e-2
"""Distances below are raised to it, of at most 2 between rows of unit length."""
BLOCK_PAIRS = 1 << 17
"""Pairs whose row statistics are worked on at a time."""

RowEstimator = Literal["analytic", "distance"]


class LogWeights(Protocol):
    """Logarithms of the weights of all pairs, a block at a time, without gradient."""

    @property
    def bound(self) -> float:
        """An upper bound of |log w|."""
        ...

    def block(self, similarity_bc: Tensor, first_row: int, first_column: int) -> Tensor:
        """Give log w of a block of pairs, diagonal included.

        Args:
            similarity_bc: float, cosines of the anchors to the candidates of the other view.
            first_row: the first anchor's place among the anchors.
            first_column: the first candidate's place among the candidates.
        """
        ...


@dataclass(frozen=True, eq=False)
class KeptLogWeights:
    """Log-weights held as a matrix: for estimators too dear to evaluate twice.

    Attributes:
        log_weight_AM: float.
    """

    log_weight_AM: Tensor

    @classmethod
    def of(
        cls, uncertainty_AM: Tensor, *, alpha_scale: float = 1.0, mu_includes_diagonal: bool = True
    ) -> "KeptLogWeights":
        """Log-weights log(alpha_i u_ij).

        Args:
            uncertainty_AM: u >= 0; its scale does not matter.
            alpha_scale: alpha in multiples of 1/mu_i.
            mu_includes_diagonal: whether the mean of row i runs over its positive too, as in the released
                code.
        """
        u_AM = uncertainty_AM.detach().clamp(min=LEAST_UNCERTAINTY)
        mu_A1 = row_mean(u_AM, 0, includes_diagonal=mu_includes_diagonal)
        return cls((u_AM * (alpha_scale / mu_A1)).log_())

    @property
    def bound(self) -> float:
        """See `LogWeights`."""
        return float(self.log_weight_AM.abs().max())

    def block(self, similarity_bc: Tensor, first_row: int, first_column: int) -> Tensor:
        """See `LogWeights`."""
        rows, columns = similarity_bc.shape
        return self.log_weight_AM[first_row : first_row + rows, first_column : first_column + columns]


def row_mean(value_bM: Tensor, first_row: int, *, includes_diagonal: bool) -> Tensor:
    """Mean [b, 1] of rows first_row.. of a matrix, with or without their entries on its diagonal.

    Args:
        value_bM: float.
        first_row: the first row's place in the matrix.
        includes_diagonal: whether the entries (i, i) count.
    """
    if includes_diagonal:
        return value_bM.mean(1, keepdim=True)
    total_b1 = value_bM.sum(1, keepdim=True) - value_bM.diagonal(offset=first_row)[:, None]
    return total_b1 / (value_bM.shape[1] - 1)


class RowUncertainty(Protocol):
    """Uncertainty as a function of the similarity alone, with parameters of each row.

    Not below `LEAST_UNCERTAINTY`, nor above 1 / `LEAST_DISTANCE`.
    """

    def log_uncertainty(self, similarity_bc: Tensor) -> Tensor:
        """Give log u at any similarities of the rows."""
        ...

    def rows(self, first: int, last: int) -> "RowUncertainty":
        """That of rows first..last-1."""
        ...


@dataclass(frozen=True, eq=False)
class PosteriorUncertainty:
    """The optimal Deep Gamblers abstention for the posterior of two Gaussians a row.

    Attributes:
        gaussians: of the anchors' rows.
        reward: o in (1, 2].
    """

    gaussians: TwoGaussians
    reward: float

    def log_uncertainty(self, similarity_bc: Tensor) -> Tensor:
        """Give log min(1, (1 - q) o / (o - 1)), q the likelier group's posterior."""
        doubt_bc = functional.logsigmoid(-self.gaussians.log_odds(similarity_bc).abs())
        return doubt_bc.add_(math.log(self.reward / (self.reward - 1))).clamp_(math.log(LEAST_UNCERTAINTY), 0)

    def rows(self, first: int, last: int) -> "PosteriorUncertainty":
        """See `RowUncertainty`."""
        return PosteriorUncertainty(self.gaussians.rows(first, last), self.reward)


@dataclass(frozen=True, eq=False)
class InverseDistance:
    """1 / |a_i - b_j| for candidates outside the positive's group, the least of these for those inside.

    Attributes:
        threshold_A1: between the groups of the row.
        positive_is_upper_A1: bool, which group holds the positive.
        log_least_A1: log u of the farthest candidate outside.
    """

    threshold_A1: Tensor
    positive_is_upper_A1: Tensor
    log_least_A1: Tensor

    @classmethod
    def fit(cls, similarity_bM: Tensor, partition: TwoMeans, label_bM: Tensor) -> "InverseDistance":
        """Parameters of some rows.

        Args:
            similarity_bM: float, cosines.
            partition: of the rows.
            label_bM: bool, whether in the group of the positive.
        """
        farthest_b1 = similarity_bM.masked_fill(label_bM, torch.inf).amin(1, keepdim=True)
        farthest_b1 = torch.where(farthest_b1.isinf(), -1.0, farthest_b1)
        is_upper_b1 = (label_bM == partition.is_upper_BM)[:, :1]
        return cls(partition.threshold_B[:, None], is_upper_b1, _log_inverse_distance(farthest_b1))

    def log_uncertainty(self, similarity_bc: Tensor) -> Tensor:
        """Give log u up to the constant log beta, which the row mean takes out."""
        is_own_bc = (similarity_bc > self.threshold_A1) == self.positive_is_upper_A1
        return torch.where(is_own_bc, self.log_least_A1, _log_inverse_distance(similarity_bc))

    def rows(self, first: int, last: int) -> "InverseDistance":
        """See `RowUncertainty`."""
        part = slice(first, last)
        return InverseDistance(
            self.threshold_A1[part], self.positive_is_upper_A1[part], self.log_least_A1[part]
        )

    @classmethod
    def joined(cls, parts: Sequence["InverseDistance"]) -> "InverseDistance":
        """Those of consecutive blocks of rows as one."""
        return cls(
            torch.cat([part.threshold_A1 for part in parts]),
            torch.cat([part.positive_is_upper_A1 for part in parts]),
            torch.cat([part.log_least_A1 for part in parts]),
        )


def _log_inverse_distance(similarity: Tensor) -> Tensor:
    return -0.5 * (2 - 2 * similarity).clamp(min=LEAST_DISTANCE**2).log()


@dataclass(frozen=True, eq=False)
class RowLogWeights:
    """Log-weights evaluated where they are needed, from a few numbers a row: memory O(A).

    Attributes:
        uncertainty: of each row.
        log_alpha_A1: log alpha of each anchor.
    """

    uncertainty: RowUncertainty
    log_alpha_A1: Tensor

    @property
    def bound(self) -> float:
        """See `LogWeights`."""
        log_alpha = float(self.log_alpha_A1.min()), float(self.log_alpha_A1.max())
        return max(-math.log(LEAST_UNCERTAINTY) - log_alpha[0], log_alpha[1] - math.log(LEAST_DISTANCE))

    def block(self, similarity_bc: Tensor, first_row: int, first_column: int) -> Tensor:
        """See `LogWeights`."""
        last_row = first_row + len(similarity_bc)
        log_u_bc = self.uncertainty.rows(first_row, last_row).log_uncertainty(similarity_bc)
        return log_u_bc.add_(self.log_alpha_A1[first_row:last_row])


def row_log_weights(
    own_MD: Tensor,
    other_MD: Tensor,
    *,
    estimator: RowEstimator,
    num_anchors: int | None = None,
    reward: float = 1.9,
    alpha_scale: float = 1.0,
    mu_includes_diagonal: bool = True,
) -> RowLogWeights:
    """Part each anchor's similarities to all candidates in two, and weigh by an uncertainty in closed form.

    Exact over all M candidates, in blocks of rows: time O(A M (D + log M)), memory O(A + block).

    Args:
        own_MD: float, candidates in the anchors' view, the anchors first.
        other_MD: float, the same nodes in the other view.
        estimator: analytic, see `PosteriorUncertainty`, or distance, see `InverseDistance`.
        num_anchors: A; None for all M.
        reward: o of the analytic one.
        alpha_scale: alpha in multiples of 1/mu_i.
        mu_includes_diagonal: whether the mean of row i runs over its positive too.
    """
    with torch.no_grad(), torch.autocast(own_MD.device.type, enabled=False):
        anchor_AD, other_MD = cosine_rows(own_MD.detach())[:num_anchors], cosine_rows(other_MD.detach())
        rows_at_once = max(16, BLOCK_PAIRS // len(other_MD))
        gaussians: list[TwoGaussians] = []
        distances: list[InverseDistance] = []
        mu_parts = []
        for first in range(0, len(anchor_AD), rows_at_once):
            similarity_bM = anchor_AD[first : first + rows_at_once] @ other_MD.T
            partition = two_means(similarity_bM)
            part: RowUncertainty
            if estimator == "analytic":
                gaussians.append(TwoGaussians.fit(similarity_bM, partition.is_upper_BM))
                part = PosteriorUncertainty(gaussians[-1], reward)
            else:
                positive_b = torch.arange(first, first + len(similarity_bM), device=own_MD.device)
                label_bM = positive_group(partition, positive_b)
                part = distances_of = InverseDistance.fit(similarity_bM, partition, label_bM)
                distances.append(distances_of)
            u_bM = part.log_uncertainty(similarity_bM).exp_()
            mu_parts.append(row_mean(u_bM, first, includes_diagonal=mu_includes_diagonal))
        uncertainty: RowUncertainty
        if estimator == "analytic":
            uncertainty = PosteriorUncertainty(TwoGaussians.joined(gaussians), reward)
        else:
            uncertainty = InverseDistance.joined(distances)
        return RowLogWeights(uncertainty, math.log(alpha_scale) - torch.cat(mu_parts).log())
