"""What AUGCL does with affinity uncertainty, for nodes of a graph and for whole graphs alike.

Legend: A anchors, M candidates of which the first A are the anchors themselves, D embedding.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gcl.gambler import FittingPass, GamblerHead, abstention_of, doubt_of, entropy_of
from gcl.losses.affinity_weights import (
    LEAST_UNCERTAINTY,
    KeptLogWeights,
    LogWeights,
    RowLogWeights,
    row_log_weights,
    row_mean,
)
from gcl.losses.grouped import cosine_rows
from gcl.methods.configs.affinity import AffinityConfig
from gcl.two_means import positive_group, two_means

logger = logging.getLogger(__name__)

WATCHED_ROWS = 128
"""Anchors on which the spread of the weights is watched, so that watching costs nothing."""
LEAST_ANSWERED = 0.5
"""Share of pairs below which a trained estimator is warned of: it abstains on most."""
READINGS = {"gambler": abstention_of, "softmax": doubt_of, "entropy": entropy_of}
"""Estimators that are trained; the others are closed forms of the similarities of a row."""

Views = tuple[Tensor, Tensor]
"""Unit rows of anchors [A, D] in one view and of candidates [M, D] in the other, the anchors first."""


def build_head(config: AffinityConfig, row_size: int, generator: torch.Generator) -> GamblerHead | None:
    """The network of a trained estimator; None for one in closed form.

    Args:
        config: which estimator.
        row_size: D.
        generator: CPU generator of the weights.
    """
    if config.estimator not in READINGS:
        return None
    return GamblerHead(row_size, generator, hidden_size=config.estimator_hidden_size)


@dataclass(frozen=True, eq=False)
class AffinityWeighing:
    """Weights of pairs by an estimator as it is now.

    Attributes:
        config: which estimator, and alpha.
        head: of a trained estimator.
    """

    config: AffinityConfig
    head: GamblerHead | None

    def log_weights(self, own_MD: Tensor, other_MD: Tensor, num_anchors: int) -> LogWeights:
        """Log-weights of the pairs of the first rows of a view with all rows of the other.

        Args:
            own_MD: float, projections in the anchors' view.
            other_MD: float, those of the same in the other view.
            num_anchors: A.
        """
        if self.head is None:
            return self._closed_form(own_MD, other_MD, num_anchors)
        return KeptLogWeights.of(
            self.uncertainty(own_MD[:num_anchors], other_MD),
            alpha_scale=self.config.alpha_scale,
            mu_includes_diagonal=self.config.mu_includes_diagonal,
        )

    def uncertainty(self, anchor_AD: Tensor, candidate_MD: Tensor) -> Tensor:
        """Uncertainty [A, M] by the trained estimator, without gradient.

        Args:
            anchor_AD: float, projections.
            candidate_MD: float, projections.
        """
        assert self.head is not None  # noqa: S101  asked of trained estimators alone
        reading = READINGS[self.config.estimator]
        return self.head.of_all_pairs(
            cosine_rows(anchor_AD.detach()), cosine_rows(candidate_MD.detach()), reading
        )

    def of_pairs(
        self, h_ND: Tensor, anchors: Tensor, candidates_AM: Tensor, compared: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cosines and weights [A, M] of some pairs.

        Args:
            h_ND: unit projections.
            anchors: int64 [A] rows.
            candidates_AM: int64 rows.
            compared: int64 rows that groups and mean uncertainty are taken over, the anchors first.
        """
        candidate_AMD, compared_MD = h_ND[candidates_AM], h_ND[compared]
        similarity_AM = torch.einsum("ad,amd->am", h_ND[anchors], candidate_AMD)
        if self.head is None:
            rows = self._closed_form(compared_MD, compared_MD, len(anchors))
            return similarity_AM, rows.block(similarity_AM, 0, 0).exp()
        u_AM = torch.stack(
            [
                self.uncertainty(h_ND[anchor, None], candidate_MD)[0]
                for anchor, candidate_MD in zip(anchors, candidate_AMD, strict=True)
            ]
        )
        among_AM = self.uncertainty(h_ND[anchors], compared_MD)
        mu_A1 = row_mean(
            among_AM.clamp(min=LEAST_UNCERTAINTY), 0, includes_diagonal=self.config.mu_includes_diagonal
        )
        return similarity_AM, u_AM.clamp(min=LEAST_UNCERTAINTY) * self.config.alpha_scale / mu_A1

    def _closed_form(self, own_MD: Tensor, other_MD: Tensor, num_anchors: int) -> RowLogWeights:
        return row_log_weights(
            own_MD,
            other_MD,
            estimator="distance" if self.config.estimator == "distance" else "analytic",
            num_anchors=num_anchors,
            reward=self.config.reward,
            alpha_scale=self.config.alpha_scale,
            mu_includes_diagonal=self.config.mu_includes_diagonal,
        )


def fit_head(
    head: GamblerHead,
    config: AffinityConfig,
    views_of: Callable[[int], Iterable[tuple[Views, torch.Generator]]],
    *,
    num_passes: int,
    is_first: bool,
) -> float:
    """Train the estimator to tell the two groups of each anchor's similarities apart.

    The first fit begins with cross-entropy: a head that abstains before it can tell anything may never
    stop, as nothing but its abstention then has a gradient.

    Args:
        head: is trained in place, by an Adam of its own.
        config: reward and passes.
        views_of: number of a pass -> its views, one batch after the other, and the order of their pairs.
        num_passes: of this fit, without those of cross-entropy.
        is_first: whether it is the first fit of the training.

    Returns:
        The share of the pairs of the last pass that it answered; 1 of an estimator that cannot abstain.
    """
    is_gambling = config.estimator == "gambler"
    num_pretraining = config.pretrain_passes if is_first else 0
    optimizer = torch.optim.Adam(head.parameters(), lr=config.fit_learning_rate)
    answered_share = 1.0
    for number in range(num_pretraining + num_passes):
        found: list[FittingPass] = []
        for (anchor_AD, candidate_MD), generator in views_of(number):
            similarity_AM = anchor_AD @ candidate_MD.T
            positive_A = torch.arange(len(similarity_AM), device=similarity_AM.device)
            found.append(
                head.fit(
                    anchor_AD,
                    candidate_MD,
                    positive_group(two_means(similarity_AM), positive_A),
                    optimizer=optimizer,
                    reward=config.reward if is_gambling and number >= num_pretraining else None,
                    batch_size=config.fit_batch_size,
                    generator=generator,
                )
            )
        means = [sum(values) / len(found) for values in zip(*found, strict=True)]
        answered_share = means[1]
        logger.info(
            "estimator pass %d: loss %.4f, %.3f of the pairs answered, %.3f rightly", number + 1, *means
        )
    if answered_share < LEAST_ANSWERED:
        logger.warning(
            "the estimator answers %.4f of the pairs and abstains on the others, which then all weigh about "
            "the same; a lower fit_learning_rate or more pretrain_passes may help",
            answered_share,
        )
    return answered_share


def tell_uniform_epochs(num_epochs: int, setting: str) -> None:
    """Say at the beginning of a training when the negatives will be weighted: a shorter one has no weights.

    Args:
        num_epochs: without weights.
        setting: what sets them.
    """
    logger.info(
        "negatives are weighted from epoch %d on (method.%s=%d); with train.epochs=%d or less they never are",
        num_epochs + 1,
        setting,
        num_epochs,
        num_epochs,
    )


def answered_note(share: float) -> str:
    """What a reader of the result must know of a fit.

    Args:
        share: of the pairs, that the estimator answered in the last pass.
    """
    told = f"the estimator answered {100 * share:.0f} % of the pairs that it was last fitted to"
    return f"{told}: the others weigh about the same" if share < LEAST_ANSWERED else told


def weighted_share(log_weights: LogWeights, own_MD: Tensor, other_MD: Tensor, num_rows: int) -> Tensor:
    """(mean w)^2 / mean w^2 over the negatives of the first rows, averaged; 1 for uniform weights.

    It is the share of the negatives that would carry all weight if it were equal among them.

    Args:
        log_weights: of the pairs.
        own_MD: float, projections in the anchors' view.
        other_MD: float, those in the other view.
        num_rows: how many anchors are watched.
    """
    similarity_bM = cosine_rows(own_MD[:num_rows].detach()) @ cosine_rows(other_MD.detach()).T
    weight_bM = log_weights.block(similarity_bM.float(), 0, 0).exp().double()
    weight_bM.fill_diagonal_(0.0)
    num_negatives = weight_bM.shape[1] - 1
    return (weight_bM.sum(1).square() / (num_negatives * weight_bM.square().sum(1))).mean()
