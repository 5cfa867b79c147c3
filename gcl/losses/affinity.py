"""InfoNCE whose negatives weigh by how uncertain their affinity to the anchor is (AUGCL).

A negative j of anchor i weighs w_ij = alpha_i u_ij, see `gcl.losses.affinity_weights`: pairs that could be
of one kind or of two push harder, pairs that are plainly of one kind, the false negatives, hardly. No
gradient passes through the weights.

Legend: A anchors, M candidates of which the first A are the anchors themselves, D embedding, b anchors and
c candidates of a block.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gcl.losses.affinity_weights import LogWeights
from gcl.losses.contrastive import check_views, scaled_cosines
from gcl.losses.streaming import streaming_logsumexp

Intra = Literal["shared", "uniform", "none"]


def affinity_loss(
    own_MD: Tensor,
    other_MD: Tensor,
    *,
    temperature: float,
    log_weights: LogWeights | None,
    num_anchors: int | None = None,
    intra: Intra = "shared",
    positive_in_denominator: bool = True,
    block_size: int | None = None,
) -> Tensor:
    """Weighted InfoNCE of the anchors of one view against candidates of the other, and of their own.

    With h the cosine over the temperature, averaged over the anchors::

        -log( e^h(a_i,b_i) / ( e^h(a_i,b_i) + sum_{j!=i} w_ij e^h(a_i,b_j) + sum_{j!=i} w_ij e^h(a_i,a_j) ) )

    Blocks of pairs are streamed, see `gcl.losses.streaming`: memory is O(M D) beside what the weights keep.
    The mean of both directions with weights of 1 is `gcl.losses.contrastive.grace_loss`, or `info_nce_loss`
    without the last sum.

    Args:
        own_MD: float, embeddings or projections of the candidates in the anchors' view, the anchors first.
        other_MD: float, the same nodes in the other view.
        temperature: tau > 0 that divides the cosines.
        log_weights: of the pairs (anchor, candidate of the other view); None for weights of 1.
        num_anchors: A; None for all M.
        intra: how candidates of the anchor's own view weigh: as in the other view (shared), 1 (uniform),
            or not at all (none).
        positive_in_denominator: whether the positive is a term of its own denominator.
        block_size: rows at a time; None for what is fast on the device.

    Returns:
        float32 scalar, float64 for float64 views.

    Raises:
        NotDefined: a single node has no negatives.
        ValueError: a temperature out of range, views of different shape, or more anchors than candidates.
    """
    check_views(own_MD, other_MD, temperature)
    num_anchors = len(own_MD) if num_anchors is None else num_anchors
    if not 1 <= num_anchors <= len(own_MD):
        raise ValueError(f"{num_anchors} anchors are not the first of {len(own_MD)} candidates")
    own_MD, other_MD, positive_M = scaled_cosines(own_MD, other_MD, temperature)
    positive_A = positive_M[:num_anchors]

    def tile(
        rows: Sequence[Tensor], columns: Sequence[Tensor], first_row: int, first_column: int
    ) -> tuple[Tensor, ...]:
        """Inter-view logits, then intra-view ones if they count, log-weights added."""
        inter_bc = rows[0] @ columns[0].T
        logits = [inter_bc] if intra == "none" else [inter_bc, rows[0] @ columns[1].T]
        if log_weights is None:
            return tuple(logits)
        with torch.no_grad(), torch.autocast(inter_bc.device.type, enabled=False):
            similarity_bc = inter_bc if inter_bc.dtype == torch.float64 else inter_bc.float()
            weight_bc = log_weights.block(similarity_bc * temperature, first_row, first_column)
        return (inter_bc + weight_bc, *[x + weight_bc if intra == "shared" else x for x in logits[1:]])

    sums = streaming_logsumexp(
        tile,
        [own_MD[:num_anchors]],
        [other_MD] if intra == "none" else [other_MD, own_MD],
        exclude_self=True,
        over_rows=False,
        logit_bound=1 / temperature + (0.0 if log_weights is None else log_weights.bound),
        block_size=block_size,
    )
    terms = [positive_A] if positive_in_denominator else []
    terms += [one.over_columns_N for one in sums]
    return (torch.stack(terms).logsumexp(0) - positive_A).mean()


def affinity_margin(weight: Tensor, *, temperature: float) -> Tensor:
    """Margin m = (tau / 2) log w: a weighted negative is an unweighted one whose cosine is 2 m larger.

    Above the row's mean uncertainty the margin is positive, and the candidate is pushed harder; below, it
    may stay close. To first order the loss is then a triplet loss of squared distances with margins of
    4 m, an intuition rather than a bound: it is taken at positives of cosine 1 and negatives of -1.

    Args:
        weight: w = alpha u > 0, any shape.
        temperature: tau > 0.
    """
    return 0.5 * temperature * weight.log()
