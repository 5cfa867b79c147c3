"""ProGCL: negatives weighted by the probability that they are true ones, from a mixture of two Betas.

Similarities of random pairs are scaled to [0, 1] and taken for a mixture of two Beta distributions: true
negatives, and at larger similarities false ones (nodes of the anchor's class). A pair weighs

    B = P(true negative | similarity) * scaled similarity

divided by the mean of B over the anchor's negatives: hard negatives count more unless they are likely false.

Legend: N nodes, D embedding, b rows and c columns of a block.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gcl.errors import NotDefined
from gcl.losses.contrastive import check_views, scaled_cosines
from gcl.losses.streaming import streaming_logsumexp

MARGIN = 1e-4
"""Scaled similarities stay this far from 0 and 1, where the density of a Beta is 0 or infinite."""
LEAST_LOG_WEIGHT = -20.0
"""Logarithms of weights B stop here: such a pair counts for nothing, and logits keep a bound."""


@dataclass(frozen=True)
class BetaMixture:
    """Two Beta distributions of scaled similarities: component 0 true negatives, component 1 false ones.

    Attributes:
        true_alpha: first parameter of component 0, > 0.
        true_beta: second parameter of component 0, > 0.
        false_alpha: first parameter of component 1, > 0.
        false_beta: second parameter of component 1, > 0.
        false_share: prior probability in [0, 1] of component 1.
        lowest: the cosine that is scaled to 0.
        highest: the cosine that is scaled to 1.
    """

    true_alpha: float
    true_beta: float
    false_alpha: float
    false_beta: float
    false_share: float
    lowest: float
    highest: float

    def log_weight(self, cosine: Tensor) -> Tensor:
        """Logarithms of B of pairs, not normalised, in [`LEAST_LOG_WEIGHT`, 0]; carries no gradient.

        Args:
            cosine: float, any shape; outside [lowest, highest] it counts as the nearer of the two.
        """
        with torch.no_grad():
            scaled = (cosine - self.lowest).div_(self.highest - self.lowest).clamp_(MARGIN, 1 - MARGIN)
            log_scaled, log_rest = scaled.log(), scaled.neg_().log1p_()
            log_odds = log_rest.mul_(self.false_beta - self.true_beta)
            log_odds.add_(log_scaled, alpha=self.false_alpha - self.true_alpha).add_(self._log_odds_factor)
            return log_scaled.sub_(functional.softplus(log_odds)).clamp_(min=LEAST_LOG_WEIGHT)

    @property
    def _log_odds_factor(self) -> float:
        """The part of log(P(false) / P(true)) that does not depend on the similarity."""
        share = min(max(self.false_share, 1e-12), 1 - 1e-12)
        true_norm = log_beta_function(self.true_alpha, self.true_beta)
        false_norm = log_beta_function(self.false_alpha, self.false_beta)
        return math.log(share) - math.log1p(-share) + true_norm - false_norm


def fit_beta_mixture(
    cosine: np.ndarray,
    *,
    num_iterations: int = 10,
    initial_false_share: float = 0.05,
    bounds: tuple[float, float] | None = None,
) -> BetaMixture:
    """Fit the mixture by expectation-maximisation, with moments in place of the likelihood's maximum.

    Starts from Beta(1, 2) for true and Beta(2, 1) for false negatives, as the released code does; should the
    means cross, the component of smaller mean is taken for the true ones.

    Args:
        cosine: float, cosines of pairs of different nodes, any shape.
        num_iterations: count >= 1.
        initial_false_share: share in (0, 1) of false negatives to start from.
        bounds: the cosines that are scaled to 0 and to 1; None for the lowest and highest of `cosine`.

    Raises:
        NotDefined: all cosines are equal, as of a collapsed encoder, or there is none.
    """
    cosine = np.asarray(cosine, np.float64).ravel()
    lowest, highest = (float(cosine.min()), float(cosine.max())) if len(cosine) else (0.0, 0.0)
    if not highest - lowest > 1e-6:
        raise NotDefined("a mixture of similarities is not defined: all of them are equal")
    if bounds is not None:
        lowest, highest = bounds
    scaled = np.clip((cosine - lowest) / (highest - lowest), MARGIN, 1 - MARGIN)
    log_scaled, log_rest = np.log(scaled), np.log1p(-scaled)
    alphas, betas = [1.0, 2.0], [2.0, 1.0]
    shares = [1 - initial_false_share, initial_false_share]
    for _ in range(num_iterations):
        true, false = (
            math.log(max(share, 1e-300))
            + (alpha - 1) * log_scaled
            + (beta - 1) * log_rest
            - log_beta_function(alpha, beta)
            for alpha, beta, share in zip(alphas, betas, shares, strict=True)
        )
        true_probability = 1 / (1 + np.exp(np.clip(false - true, -700, 700)))
        for component, probability in enumerate((true_probability, 1 - true_probability)):
            alphas[component], betas[component] = _moments(scaled, probability)
            shares[component] = float(probability.mean())
    if alphas[0] / (alphas[0] + betas[0]) > alphas[1] / (alphas[1] + betas[1]):
        alphas, betas, shares = alphas[::-1], betas[::-1], shares[::-1]
    return BetaMixture(alphas[0], betas[0], alphas[1], betas[1], shares[1], lowest, highest)


def progcl_loss(
    u_ND: Tensor,
    v_ND: Tensor,
    *,
    mixture: BetaMixture,
    temperature: float,
    block_size: int | None = None,
) -> Tensor:
    """GRACE with the negatives of both views weighted by `mixture`.

    Over the 2N rows z = [u; v], with i' the same node in the other view and w_ij = B_ij over the mean of B_i.
    over the 2N - 2 negatives, the mean over i of

        -log( exp(s_ii') / (exp(s_ii') + sum_{j != i, i'} w_ij exp(s_ij)) )

    Weights come from the similarities of the moment and carry no gradient. Exact over all pairs, memory is
    O(N D); with equal weights it is `grace_loss`.

    Args:
        u_ND: float, projections of one view, not normalised.
        v_ND: float, those of the other view.
        mixture: gives log B of a cosine.
        temperature: tau > 0 that divides the cosines.
        block_size: rows at a time; None for what is fast on the device.

    Returns:
        float32 scalar, float64 for float64 views; at least 0.

    Raises:
        NotDefined: a single node has no negatives.
        ValueError: a temperature out of range, or views of different shape.

    Reference:
        Xia et al., ProGCL: Rethinking Hard Negative Mining in Graph Contrastive Learning, ICML 2022,
        arXiv 2110.02027.
    """
    check_views(u_ND, v_ND, temperature)
    num_nodes = len(u_ND)
    u_ND, v_ND, positive_N = scaled_cosines(u_ND, v_ND, temperature)

    def tile(
        rows: Sequence[Tensor], columns: Sequence[Tensor], first_row: int, first_column: int
    ) -> tuple[Tensor, Tensor]:
        score_bc = rows[0] @ columns[0].T
        log_weight_bc = mixture.log_weight(_at_least_float32(score_bc.detach()) * temperature)
        for distance in (num_nodes, -num_nodes):  # to the positive, which is no negative
            _fill_diagonal(log_weight_bc, first_row - first_column + distance)
        return log_weight_bc, score_bc + log_weight_bc

    weights, weighted = streaming_logsumexp(
        tile,
        [torch.cat([u_ND, v_ND])],
        exclude_self=True,
        logit_bound=1 / temperature - LEAST_LOG_WEIGHT,
        block_size=block_size,
    )
    # The weights are constants; detaching their sums tells the engine that nobody asks for their gradient.
    log_mean = weights.over_columns_N.detach() - math.log(2 * num_nodes - 2)
    log_negatives = weighted.over_columns_N - log_mean
    return functional.softplus(log_negatives - torch.cat([positive_N, positive_N])).mean()


def log_beta_function(alpha: float, beta: float) -> float:
    """Logarithm of B(alpha, beta), the norm of a Beta distribution."""
    return math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)


def _at_least_float32(x: Tensor) -> Tensor:
    """The tensor itself, half precision lifted to float32."""
    return x if x.dtype == torch.float64 else x.float()


def _moments(scaled: np.ndarray, probability: np.ndarray) -> tuple[float, float]:
    """Alpha and beta of a Beta with the weighted mean and variance."""
    total = max(float(probability.sum()), 1e-12)
    mean = min(max(float((probability * scaled).sum()) / total, MARGIN), 1 - MARGIN)
    variance = max(float((probability * (scaled - mean) ** 2).sum()) / total, 1e-8)
    strength = max(mean * (1 - mean) / variance - 1, 1e-2)
    return mean * strength, (1 - mean) * strength


def _fill_diagonal(block_bc: Tensor, offset: int) -> None:
    """Put -inf where column - row equals `offset`, if the block has such entries."""
    if -block_bc.shape[0] < offset < block_bc.shape[1]:
        block_bc.diagonal(offset).fill_(-math.inf)
