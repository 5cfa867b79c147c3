"""The multi-class tuplet loss from given scores: several positives and several negatives for each anchor.

Legend: A anchors, M positives of an anchor, Q negatives of an anchor. Scores are similarities already
divided by the temperature. With G = mass * mean_j exp(s_j^-), the three forms are

    B  log(1 + G * mean_i exp(-s_i^+))        pairwise tuplet; the hardest positive dominates (default)
    C  mean_i log(1 + G * exp(-s_i^+))        mean of single tuplets
    A  log(1 + G / mean_i exp(s_i^+))         positives first; the easiest positive dominates

They agree for one positive (InfoNCE), and A <= C <= B always (Jensen). Only B and C bound the
cross-entropy of the mean classifier from above. `gcl.losses.grouped` computes the scores of a batch.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gcl.errors import NotDefined

TupletForm = Literal["A", "B", "C"]


class TupletLoss(NamedTuple):
    """A tuplet loss and how many anchors made it.

    Attributes:
        loss: scalar, mean over the anchors that have both a positive and a negative.
        num_anchors: how many those are.
        num_skipped: anchors left out, having no positive or no negative.
    """

    loss: Tensor
    num_anchors: int
    num_skipped: int


def multi_class_tuplet_loss(
    positive_AM: Tensor,
    negative_AQ: Tensor,
    *,
    positive_mask_AM: Tensor | None = None,
    negative_mask_AQ: Tensor | None = None,
    form: TupletForm = "B",
    negative_mass: float | None = None,
    debias_prior: float = 0.0,
    lowest_score: float = -math.inf,
) -> TupletLoss:
    """Mean multi-class tuplet loss over the anchors.

    Args:
        positive_AM: scores of each anchor with its positives; half precision is lifted to float32.
        negative_AQ: scores of each anchor with its negatives.
        positive_mask_AM: bool, False where an entry is padding; None when all count.
        negative_mask_AQ: bool, as above.
        form: which of the three forms, see the module's formulas.
        negative_mass: weight Q of the mean negative; None takes each anchor's number of negatives
            (InfoNCE scaling), K - 1 makes the bound on the K-class cross-entropy tight.
        debias_prior: probability in [0, 1) that a negative is of the anchor's class; 0 switches off the
            correction of arXiv 2007.00224, whose positive part is estimated here from all M positives.
        lowest_score: the least score possible, -1/temperature for cosines: the floor of the correction.

    Returns:
        The loss with the numbers of anchors used and skipped.

    Raises:
        NotDefined: no anchor has both a positive and a negative.
        ValueError: an unknown form, or a hyper-parameter out of range.

    Example:
        >>> positive, negative = torch.zeros(2, 1), torch.zeros(2, 3)
        >>> round(multi_class_tuplet_loss(positive, negative).loss.item(), 4)  # log(1 + 3)
        1.3863
    """
    loss_A, is_used_A = tuplet_losses(
        positive_AM,
        negative_AQ,
        positive_mask_AM=positive_mask_AM,
        negative_mask_AQ=negative_mask_AQ,
        form=form,
        negative_mass=negative_mass,
        debias_prior=debias_prior,
        lowest_score=lowest_score,
    )
    num_anchors = int(is_used_A.sum())
    check_some_anchor(num_anchors, len(loss_A))
    return TupletLoss(loss_A.sum() / num_anchors, num_anchors, len(loss_A) - num_anchors)


def tuplet_losses(
    positive_AM: Tensor,
    negative_AQ: Tensor,
    *,
    positive_mask_AM: Tensor | None,
    negative_mask_AQ: Tensor | None,
    form: TupletForm,
    negative_mass: float | None,
    debias_prior: float,
    lowest_score: float,
) -> tuple[Tensor, Tensor]:
    """The loss of each anchor, 0 for a skipped one, and which anchors were used.

    Arguments are those of `multi_class_tuplet_loss`.

    Returns:
        Losses [A] and bool [A].
    """
    _check_parameters(form, negative_mass, debias_prior, lowest_score)
    positive_AM, negative_AQ = _at_least_float32(positive_AM), _at_least_float32(negative_AQ)
    num_positives_A = _row_counts(positive_AM, positive_mask_AM)
    num_negatives_A = _row_counts(negative_AQ, negative_mask_AQ)
    is_used_A = (num_positives_A > 0) & (num_negatives_A > 0)
    if 0 in (positive_AM.shape[1], negative_AQ.shape[1]):
        return positive_AM.new_zeros(len(positive_AM)), is_used_A
    # A skipped anchor is computed on all of its entries, so that neither its value nor its gradient is
    # NaN, and is then thrown away.
    positive_mask_AM = _open_rows(positive_mask_AM, ~is_used_A)
    negative_mask_AQ = _open_rows(negative_mask_AQ, ~is_used_A)
    log_mean_A = _log_mean_exp(negative_AQ, negative_mask_AQ)
    if debias_prior > 0:
        log_mean_A = _debias(
            log_mean_A, _log_mean_exp(positive_AM, positive_mask_AM), debias_prior, lowest_score
        )
    mass_A = num_negatives_A.clamp(min=1) if negative_mass is None else torch.tensor(negative_mass)
    log_mass_A = log_mean_A + mass_A.to(log_mean_A).log()
    if form == "B":
        loss_A = functional.softplus(log_mass_A + _log_mean_exp(-positive_AM, positive_mask_AM))
    elif form == "A":
        loss_A = functional.softplus(log_mass_A - _log_mean_exp(positive_AM, positive_mask_AM))
    else:
        loss_A = _mean(functional.softplus(log_mass_A[:, None] - positive_AM), positive_mask_AM)
    return torch.where(is_used_A, loss_A, 0.0), is_used_A


def check_some_anchor(num_anchors: int, num_rows: int) -> None:
    """Raise NotDefined when every anchor of a batch was skipped: a loss of nothing would train nothing."""
    if num_anchors == 0:
        raise NotDefined(
            f"no anchor among {num_rows} has both a positive and a negative; "
            "the batch needs two rows of one group and a row of another"
        )


def _check_parameters(
    form: str, negative_mass: float | None, debias_prior: float, lowest_score: float
) -> None:
    if form not in ("A", "B", "C"):
        raise ValueError(f"form is one of A, B, C, not {form!r}")
    if negative_mass is not None and not 0 < negative_mass < math.inf:
        raise ValueError(f"negative_mass must be positive and finite, not {negative_mass}")
    if not 0 <= debias_prior < 1:
        raise ValueError(f"debias_prior must lie in [0, 1), not {debias_prior}")
    if debias_prior > 0 and not math.isfinite(lowest_score):
        raise ValueError("debiasing needs lowest_score, which is -1/temperature for cosine scores")


def _debias(log_negative_A: Tensor, log_positive_A: Tensor, prior: float, lowest_score: float) -> Tensor:
    """Log max((mean e^{s-} - prior * mean e^{s+}) / (1 - prior), e^{lowest_score})."""
    gap_A = log_negative_A - log_positive_A - math.log(prior)
    is_positive_A = gap_A > 1e-6
    # The inner where keeps log(0) out of the gradient of the rows that fall to the floor.
    safe_gap_A = torch.where(is_positive_A, gap_A, 1.0)
    log_mean_A = log_negative_A + torch.log(-torch.expm1(-safe_gap_A)) - math.log1p(-prior)
    return torch.where(is_positive_A, log_mean_A, lowest_score).clamp(min=lowest_score)


def _at_least_float32(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


def _row_counts(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.full((len(scores),), scores.shape[1], device=scores.device)
    return mask.sum(dim=1)


def _open_rows(mask: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if mask is None else mask | rows[:, None]


def _log_mean_exp(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return scores.logsumexp(dim=1) - math.log(scores.shape[1])
    return scores.masked_fill(~mask, -math.inf).logsumexp(dim=1) - mask.sum(dim=1).to(scores).log()


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean(dim=1)
    return torch.where(mask, values, 0.0).sum(dim=1) / mask.sum(dim=1)
