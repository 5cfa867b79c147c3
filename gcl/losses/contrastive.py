"""Losses that contrast two views of the nodes over all pairs, in memory linear in the number of nodes.

Row i of the views is one node, its positive; all other nodes are negatives. Scores are cosines divided by
the temperature, s_ij = cos(u_i, v_j) / tau. Under `torch.autocast` the pair products run in the lower
precision; the positives, exponentials and sums stay float32. A random subset of the nodes,
`grace_loss(u_ND[rows], v_ND[rows], ...)`, is the sampled form for graphs too large for all pairs.

Legend: N nodes, D embedding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gcl.errors import NotDefined
from gcl.losses.grouped import cosine_rows
from gcl.losses.streaming import streaming_logsumexp


def info_nce_loss(
    u_ND: Tensor,
    v_ND: Tensor,
    *,
    temperature: float,
    both_directions: bool = True,
    negatives_include_self: bool = False,
    block_size: int | None = None,
) -> Tensor:
    """InfoNCE between two views: other nodes of the other view repel, those of the same view do not.

    The mean over i of log sum_j exp(s_ij) - s_ii, averaged over the directions u to v and v to u.

    Args:
        u_ND: float, embeddings or projections of one view, not normalised.
        v_ND: float, those of the other view.
        temperature: tau > 0 that divides the cosines.
        both_directions: whether v to u counts too; else u is the anchor alone.
        negatives_include_self: the negatives are (N - 1) times the mean over ALL nodes, the positive among
            them: uniform weights 1/N as the code released for NML-GCL (arXiv 2505.10307) has them.
        block_size: rows at a time; None for what is fast on the device.

    Returns:
        float32 scalar, float64 for float64 views; at least 0.

    Raises:
        NotDefined: a single node has no negatives.
        ValueError: a temperature out of range, or views of different shape.

    Example:
        >>> z = torch.eye(2)
        >>> round(info_nce_loss(z, z, temperature=1.0).item(), 4)  # log(e + 1) - 1
        0.3133
    """
    check_views(u_ND, v_ND, temperature)
    u_ND, v_ND, positive_N = scaled_cosines(u_ND, v_ND, temperature)
    lse = streaming_logsumexp(
        inner_products,
        [u_ND],
        [v_ND],
        over_rows=both_directions,
        logit_bound=1 / temperature,
        block_size=block_size,
    )[0]
    directions = [lse.over_columns_N, lse.over_rows_M] if both_directions else [lse.over_columns_N]
    if negatives_include_self:
        log_share = math.log((len(u_ND) - 1) / len(u_ND))
        losses = [functional.softplus(log_share + lse_N - positive_N) for lse_N in directions]
    else:
        losses = [lse_N - positive_N for lse_N in directions]
    return torch.stack(losses).mean()


def grace_loss(u_ND: Tensor, v_ND: Tensor, *, temperature: float, block_size: int | None = None) -> Tensor:
    """GRACE: other nodes repel in both views.

    Over the 2N rows z = [u; v], the mean of log sum_{j != i} exp(s_ij) less the score of the positive, which
    is among the j. Both directions are in it, so swapping the views changes nothing.

    Args:
        u_ND: float, projections of one view, not normalised.
        v_ND: float, those of the other view.
        temperature: tau > 0 that divides the cosines.
        block_size: rows at a time; None for what is fast on the device.

    Returns:
        float32 scalar, float64 for float64 views; at least 0.

    Raises:
        NotDefined: a single node has no negatives.
        ValueError: a temperature out of range, or views of different shape.

    Reference:
        Zhu et al., Deep Graph Contrastive Representation Learning, arXiv 2006.04131, eqs 1 and 2.

    Example:
        >>> z = torch.eye(2)
        >>> round(grace_loss(z, z, temperature=1.0).item(), 4)  # log(e + 2) - 1
        0.5514
    """
    check_views(u_ND, v_ND, temperature)
    u_ND, v_ND, positive_N = scaled_cosines(u_ND, v_ND, temperature)
    lse = streaming_logsumexp(
        inner_products,
        [torch.cat([u_ND, v_ND])],
        exclude_self=True,
        logit_bound=1 / temperature,
        block_size=block_size,
    )[0]
    return lse.over_columns_N.mean() - positive_N.mean()


def inner_products(
    rows: Sequence[Tensor], columns: Sequence[Tensor], first_row: int, first_column: int
) -> tuple[Tensor]:
    """The tile of a loss whose logits are inner products of its first operand."""
    return (rows[0] @ columns[0].T,)


def scaled_cosines(u_ND: Tensor, v_ND: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of length temperature^-1/2, whose inner products are the scores, and each node's own score.

    Args:
        u_ND: float, rows of one view.
        v_ND: float, rows of the other.
        temperature: tau > 0.

    Returns:
        Both views, scaled, and the positives [N]; float32 at least, whatever the autocast.
    """
    with torch.autocast(u_ND.device.type, enabled=False):
        u_ND, v_ND = cosine_rows(u_ND) * temperature**-0.5, cosine_rows(v_ND) * temperature**-0.5
        return u_ND, v_ND, (u_ND * v_ND).sum(dim=1)


def check_views(u_ND: Tensor, v_ND: Tensor, temperature: float) -> None:
    """Refuse what no pair contrast is defined for.

    Args:
        u_ND: rows of one view.
        v_ND: rows of the other.
        temperature: tau.

    Raises:
        NotDefined: a single node has no negatives.
        ValueError: a temperature out of range, or views of different shape.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if u_ND.ndim != 2 or u_ND.shape != v_ND.shape:
        raise ValueError(f"the views must be [N, D] of one shape, not {(*u_ND.shape,)} and {(*v_ND.shape,)}")
    if len(u_ND) < 2:
        raise NotDefined("a contrast of nodes needs two of them: a single node has no negatives")
