"""The NML-GCL loss: InfoNCE whose negatives are weighted by a learned metric, exact in O(N d) memory.

For anchors u_i and candidates v_j, with s_ij = cos(u_i, v_j) / tau and metric logits a_ij, the weights are
m_ij = softmax_j a_ij and the loss of one direction is the mean over i of

    -log( exp s_ii / (exp s_ii + (N - 1) sum_j m_ij exp s_ij) )  +  kl_weight * KL(uniform || m_i)

With L1_i = LSE_j a_ij and L2_i = LSE_j (a_ij + s_ij) that is softplus(log(N - 1) + L2_i - L1_i - s_ii) and
L1_i - log N - mean_j a_ij, and the mean of the logits is a product of mean vectors: no N x N tensor is needed
(NML-GCL, IJCAI 2025, doi 10.24963/ijcai.2025/794; the streamed form is ours). A metric may end near uniform
weights, where its logits are nearly equal and what tells them apart is small: hence centred products.

Legend: N nodes, D embedding, M width of the metric, A anchors, b and c rows and columns of a block.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gcl.losses.centred import CentredProducts, centred_products, centred_tile
from gcl.losses.contrastive import check_views, scaled_cosines
from gcl.losses.grouped import cosine_rows
from gcl.losses.streaming import RowsAndColumns, streaming_logsumexp


@dataclass(frozen=True, eq=False)
class MetricRows:
    """What the metric reads of two views u and v; the logit of a pair is the cosine of anchor and candidate.

    A metric with two heads sees a node differently as anchor and as candidate, so a_ij of u against v and
    a_ji of v against u are different numbers. With one head they are the same.

    Attributes:
        u_anchor_NM: float, rows of u as anchors.
        v_candidate_NM: float, rows of v as candidates.
        v_anchor_NM: float, rows of v as anchors; None for one head: `v_candidate_NM`.
        u_candidate_NM: float, rows of u as candidates; None for one head: `u_anchor_NM`.

    Raises:
        ValueError: one of the last two without the other.
    """

    u_anchor_NM: Tensor
    v_candidate_NM: Tensor
    v_anchor_NM: Tensor | None = None
    u_candidate_NM: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.v_anchor_NM is None) != (self.u_candidate_NM is None):
            raise ValueError("a metric with two heads has both v_anchor_NM and u_candidate_NM, or neither")


@dataclass(frozen=True, eq=False)
class NmlLoss:
    """The loss and its two parts, scalars.

    Attributes:
        loss: contrast + kl_weight * kl, to minimise.
        contrast: weighted InfoNCE, mean over both directions and all anchors.
        kl: KL(uniform || weights), mean over both directions and all anchors; >= 0, 0 for uniform weights.
    """

    loss: Tensor
    contrast: Tensor
    kl: Tensor


def nml_loss(
    u_ND: Tensor,
    v_ND: Tensor,
    metric: MetricRows | None = None,
    *,
    temperature: float,
    metric_temperature: float = 1.0,
    metric_sign: int = 1,
    include_self: bool = True,
    kl_weight: float = 0.0,
    block_size: int | None = None,
    keep_tiles_bytes: int = 0,
) -> NmlLoss:
    """Negative-metric loss of two views, both directions; exact, and no N x N tensor is kept.

    Whatever must carry no gradient is detached by the caller: u and v in a step of the metric, the metric's
    rows in a step of the encoder that takes the weights for granted.

    Args:
        u_ND: float, embeddings of the first view, not normalised.
        v_ND: float, embeddings of the second view, row for row.
        metric: what the metric reads; None for uniform weights: InfoNCE, whose denominator counts the
            positive once (`include_self` False) or once more with weight (N - 1) / N (True).
        temperature: tau > 0 that divides the cosines of the embeddings.
        metric_temperature: tau_m > 0 that divides the cosines of the metric.
        metric_sign: 1, or -1 to give similar metric rows less weight.
        include_self: whether the softmax over candidates has the positive among them, as released.
        kl_weight: coefficient >= 0 of the divergence from uniform weights.
        block_size: rows of a block of pairs; None lets the engine choose.
        keep_tiles_bytes: all logits that fit in so many bytes are kept for the backward pass instead of
            computed again: a third faster, same result.

    Returns:
        The loss and its parts.

    Raises:
        NotDefined: fewer than two nodes.
        ValueError: a hyper-parameter out of range, or views of different shapes.

    Example:
        >>> z = torch.eye(4)
        >>> round(nml_loss(z, z, temperature=1.0, include_self=False).loss.item(), 4)  # log(1 + 3/e)
        0.7437
    """
    check_views(u_ND, v_ND, temperature)
    _check_metric(metric_temperature, metric_sign)
    num_nodes = len(u_ND)
    num_candidates = num_nodes if include_self else num_nodes - 1
    u_ND, v_ND, positive_N = scaled_cosines(u_ND, v_ND, temperature)
    with torch.autocast(u_ND.device.type, enabled=False):
        directions = [] if metric is None else _directions(metric, metric_sign / metric_temperature)
        products = [centred_products(*pair) for pair in directions]
    bound = 1.0 / temperature + (0.0 if metric is None else 1.0 / metric_temperature)
    sums = _sums(
        u_ND,
        v_ND,
        products,
        exclude_self=not include_self,
        logit_bound=bound,
        block_size=block_size,
        keep_tiles_bytes=keep_tiles_bytes,
    )
    contrasts, divergences = [], []
    is_learned = any(rows_NM.requires_grad for pair in directions for rows_NM in pair)
    for way, (metric_lse_N, weighted_lse_N) in enumerate(sums):
        if metric_lse_N is None:
            metric_lse_N = torch.full_like(positive_N, math.log(num_candidates))
        if not is_learned:
            metric_lse_N = metric_lse_N.detach()  # tells the engine that nobody asks for its gradient
        logit_N = math.log(num_nodes - 1) + weighted_lse_N - metric_lse_N - positive_N
        contrasts.append(functional.softplus(logit_N).mean())
        divergence = torch.zeros_like(contrasts[-1])
        if directions:
            mean_logit = _mean_logit(*directions[way % len(directions)], include_self=include_self)
            divergence = metric_lse_N.mean() - math.log(num_candidates) - mean_logit
        divergences.append(divergence)
    contrast, kl = torch.stack(contrasts).mean(), torch.stack(divergences).mean()
    return NmlLoss(contrast + kl_weight * kl, contrast, kl)


def relative_weights(
    anchor_AM: Tensor,
    candidate_NM: Tensor,
    *,
    metric_temperature: float = 1.0,
    metric_sign: int = 1,
    self_A: Tensor | None = None,
) -> Tensor:
    """Weights of all candidates for some anchors, relative to uniform ones: a row's mean is 1.

    Args:
        anchor_AM: float, metric rows of the anchors.
        candidate_NM: float, metric rows of every candidate, since a weight is a share of all of them.
        metric_temperature: tau_m > 0 that divides the cosines.
        metric_sign: 1 or -1.
        self_A: int64, the candidate that is the anchor itself and gets weight 0; None when it counts.

    Returns:
        float [A, N], O(A N) memory: hand over a sample of anchors.
    """
    logit_AN = cosine_rows(anchor_AM) @ cosine_rows(candidate_NM).T * (metric_sign / metric_temperature)
    num_candidates = len(candidate_NM)
    if self_A is not None:
        logit_AN = logit_AN.scatter(1, self_A[:, None], -math.inf)
        num_candidates -= 1
    return num_candidates * logit_AN.softmax(dim=1)


def _check_metric(temperature: float, sign: int) -> None:
    if not temperature > 0:
        raise ValueError(f"metric_temperature must be positive, not {temperature}")
    if sign not in (1, -1):
        raise ValueError(f"metric_sign must be 1 or -1, not {sign}")


def _directions(metric: MetricRows, scale: float) -> list[tuple[Tensor, Tensor]]:
    """(rows of u, rows of v) whose products are the metric logits: one pair for one head.

    With two heads the second pair serves the anchors of v: its logits belong to the columns.
    """
    pairs = [(metric.u_anchor_NM, metric.v_candidate_NM)]
    if metric.v_anchor_NM is not None and metric.u_candidate_NM is not None:
        pairs.append((metric.u_candidate_NM, metric.v_anchor_NM))
    return [(cosine_rows(u_NM) * scale, cosine_rows(v_NM)) for u_NM, v_NM in pairs]


def _sums(
    u_ND: Tensor,
    v_ND: Tensor,
    directions: list[CentredProducts],
    *,
    exclude_self: bool,
    logit_bound: float,
    block_size: int | None,
    keep_tiles_bytes: int,
) -> list[tuple[Tensor | None, Tensor]]:
    """(LSE of a, LSE of a + s) for the anchors of u and for those of v, from one sweep over the pairs."""

    def tile(
        rows: Sequence[Tensor], columns: Sequence[Tensor], _first_row: int, _first_column: int
    ) -> tuple[Tensor, ...]:
        """[b, c] logits: s alone, or a and a + s of each direction."""
        similarity_bc = rows[-1] @ columns[-1].T
        if len(rows) == 1:
            return (similarity_bc,)
        logits: list[Tensor] = []
        for k in range(0, len(rows) - 1, 2):
            metric_bc = centred_tile(*rows[k : k + 2], *columns[k : k + 2])
            logits += [metric_bc, metric_bc + similarity_bc]
        return tuple(logits)

    found: list[RowsAndColumns] = streaming_logsumexp(
        tile,
        [*(part for table in directions for part in (table.left_NR, table.left_N)), u_ND],
        [*(part for table in directions for part in (table.right_MR, table.right_M)), v_ND],
        exclude_self=exclude_self,
        logit_bound=logit_bound,
        block_size=block_size,
        keep_tiles_bytes=keep_tiles_bytes,
    )
    if not directions:
        return [(None, found[0].over_columns_N), (None, found[0].over_rows_M)]
    return [
        (found[0].over_columns_N, found[1].over_columns_N),
        (found[-2].over_rows_M, found[-1].over_rows_M),
    ]


def _mean_logit(u_NM: Tensor, v_NM: Tensor, *, include_self: bool) -> Tensor:
    """Mean over the pairs of the products of rows, without the pairs or the O(N^2) work."""
    num_nodes = len(u_NM)
    with torch.autocast(u_NM.device.type, enabled=False):
        if include_self:
            return u_NM.mean(dim=0) @ v_NM.mean(dim=0)
        total = u_NM.sum(dim=0) @ v_NM.sum(dim=0) - (u_NM * v_NM).sum()
        return total / (num_nodes * (num_nodes - 1))
