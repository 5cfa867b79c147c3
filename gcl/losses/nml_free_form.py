"""The NML-GCL loss with the weights that minimise it, in closed form instead of from a network; ours.

For anchors u_i and candidates v_j, s_ij = cos(u_i, v_j) / tau and positive weights w_ij whose mean over the
candidates is 1, a row's loss with Z_i = mean_j w_ij exp s_ij and p_i the share of the negatives is

    -log(1 - p_i) - alpha * mean_j log w_ij,    p_i = (N - 1) Z_i / (exp s_ii + (N - 1) Z_i)

the second term being alpha * KL(uniform || w). Without a network between, its stationary weights are

    w_ij  proportional to  1 / (alpha - p_i + p_i exp(s_ij) / Z_i)

which fall as similarity rises. Z_i stands on both sides, and going round finds it: a sweep takes weights of
the Z_i before, and gives the next. For alpha >= 1 the loss is convex in log w, so there is one such point and
it is the minimum. Rows with alpha < p_i + FLOOR, where weights would run off to single nodes, are weighted
as by alpha = p_i + FLOOR.

At the minimum the loss does not change with the weights, so its gradient is that of constant weights, and
none is taken through them. As functions of s_ij with two constants a row, the weights of both directions
are log-sum-exps of one stream over the pairs; no N x N tensor is needed.

Legend: N nodes, D embedding, V = 2 views as anchors, A anchors, b and c rows and columns of a block.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gcl.losses.contrastive import check_views, inner_products, scaled_cosines
from gcl.losses.streaming import streaming_logsumexp

FLOOR = 0.02
"""Least alpha - p_i: no weight is more than 51 times that of a node with exp s_ij = Z_i."""
FIRST_SWEEPS = 4
"""Sweeps from uniform weights; for tau >= .2 all that is left then is some per cent of Z."""
SETTLED_SWEEPS = 24
"""Sweeps from uniform weights to the fixed point, for weights to look at."""


@dataclass(frozen=True, eq=False)
class FreeFormLoss:
    """The loss, and where the weights stand.

    Attributes:
        loss: scalar to minimise: the mean over both directions and all anchors of -log(1 - p_i). The
            divergence of the weights is not in it: it is a constant to the encoder.
        log_mass_VN: float, log Z_i of the weights used, anchors of the first view and of the second; no
            gradient. A later call starts from it.
    """

    loss: Tensor
    log_mass_VN: Tensor


def nml_free_form_loss(
    u_ND: Tensor,
    v_ND: Tensor,
    *,
    temperature: float,
    alpha: float,
    log_mass_VN: Tensor | None = None,
    num_sweeps: int | None = None,
    include_self: bool = False,
    block_size: int | None = None,
    keep_tiles_bytes: int = 0,
) -> FreeFormLoss:
    """Contrast of two views, both directions, under the weights that minimise it; exact in O(N D) memory.

    The last sweep is that of the loss, so from a known `log_mass_VN` one sweep costs as much as the loss of a
    given metric.

    Args:
        u_ND: float, embeddings of the first view, not normalised.
        v_ND: float, embeddings of the second view, row for row.
        temperature: tau > 0 that divides the cosines.
        alpha: coefficient > 0 of the weights' divergence from uniform ones; large: uniform weights.
        log_mass_VN: log Z_i to start from, such as that of the epoch before; None for uniform weights.
        num_sweeps: sweeps >= 1; None for one from a known start, else `FIRST_SWEEPS`.
        include_self: whether the positive is among the candidates too.
        block_size: rows of a block of pairs; None lets the engine choose.
        keep_tiles_bytes: logits that fit in so many bytes are kept for the backward pass.

    Raises:
        NotDefined: fewer than two nodes.
        ValueError: a hyper-parameter out of range, or views of different shapes.

    Example:
        >>> z = torch.eye(4)  # all negatives alike, so they weigh the same
        >>> round(nml_free_form_loss(z, z, temperature=1.0, alpha=1.2).loss.item(), 4)  # log(1 + 3/e)
        0.7437
    """
    check_views(u_ND, v_ND, temperature)
    if num_sweeps is None:
        num_sweeps = FIRST_SWEEPS if log_mass_VN is None else 1
    _check(alpha, num_sweeps)
    if log_mass_VN is not None and log_mass_VN.shape != (2, len(u_ND)):
        raise ValueError(f"log_mass_VN must be [2, {len(u_ND)}], not {(*log_mass_VN.shape,)}")
    stream = _Stream(temperature, alpha, exclude_self=not include_self, block_size=block_size)
    u_ND, v_ND, positive_N = scaled_cosines(u_ND, v_ND, temperature)
    with torch.no_grad():
        if log_mass_VN is None:
            log_mass_VN = stream.uniform_log_mass(u_ND, v_ND)
        for _ in range(num_sweeps - 1):
            log_mass_VN = stream.sweep(u_ND, v_ND, positive_N, log_mass_VN)
    log_mass_VN = stream.sweep(u_ND, v_ND, positive_N, log_mass_VN, keep_tiles_bytes=keep_tiles_bytes)
    logit_VN = math.log(len(u_ND) - 1) + log_mass_VN - positive_N
    return FreeFormLoss(functional.softplus(logit_VN).mean(), log_mass_VN.detach())


def free_form_weights(
    score_AN: Tensor,
    positive_A: Tensor,
    *,
    alpha: float,
    log_mass_A: Tensor | None = None,
    num_sweeps: int = SETTLED_SWEEPS,
    self_A: Tensor | None = None,
    num_contrasted: int | None = None,
) -> Tensor:
    """The weights of all candidates for some anchors, relative to uniform ones: a row's mean is 1.

    Args:
        score_AN: float, s_ij of the anchors with every candidate.
        positive_A: float, s_ii.
        alpha: coefficient > 0 of the divergence from uniform weights.
        log_mass_A: log Z_i to start from; None for uniform weights.
        num_sweeps: sweeps >= 1.
        self_A: int64, the candidate that is the anchor itself and gets weight 0; None when it counts.
        num_contrasted: nodes that a step contrasts, if not all that are here: N in p_i.

    Returns:
        float [A, N], O(A N) memory: hand over a sample of anchors.
    """
    _check(alpha, num_sweeps)
    num_candidates = score_AN.shape[1]
    num_contrasted = num_contrasted or num_candidates
    if self_A is not None:
        score_AN = score_AN.scatter(1, self_A[:, None], -math.inf)
        num_candidates -= 1
    if log_mass_A is None:
        log_mass_A = score_AN.logsumexp(dim=1) - math.log(num_candidates)
    for _ in range(num_sweeps):
        log_floor_A, log_rate_A = _constants(
            log_mass_A, positive_A, alpha=alpha, num_contrasted=num_contrasted
        )
        log_weight_AN = _log_weight(score_AN, log_floor_A[:, None], log_rate_A[:, None])
        if self_A is not None:
            log_weight_AN = log_weight_AN.scatter(1, self_A[:, None], -math.inf)
        log_share_AN = log_weight_AN.log_softmax(dim=1)
        log_mass_A = (log_share_AN + score_AN).logsumexp(dim=1)
    return num_candidates * log_share_AN.exp()


def _check(alpha: float, num_sweeps: int) -> None:
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, not {alpha}: without it all weight goes to single nodes")
    if num_sweeps < 1:
        raise ValueError(f"num_sweeps must be at least 1, not {num_sweeps}")


def _constants(
    log_mass_N: Tensor, positive_N: Tensor, *, alpha: float, num_contrasted: int
) -> tuple[Tensor, Tensor]:
    """log(alpha - p_i) and log(p_i / Z_i), all that the weights of an anchor know of it."""
    logit_N = math.log(num_contrasted - 1) + log_mass_N - positive_N
    log_floor_N = (alpha - logit_N.sigmoid()).clamp(min=FLOOR).log()
    return log_floor_N, functional.logsigmoid(logit_N) - log_mass_N


def _log_weight(score: Tensor, log_floor: Tensor, log_rate: Tensor) -> Tensor:
    """Log w of pairs, before normalisation."""
    return -torch.logaddexp(log_floor, log_rate + score)


@dataclass(frozen=True)
class _Stream:
    """What every stream over the pairs has in common; see `nml_free_form_loss`."""

    temperature: float
    alpha: float
    exclude_self: bool
    block_size: int | None

    @property
    def logit_bound(self) -> float:
        """Of |log w| and |log w + s|, for Z_i within exp of +-1/tau, where means of exp s_ij are."""
        score = 1 / self.temperature
        return math.log(2) + max(score - math.log(FLOOR), 2 * score, abs(math.log(self.alpha)) + score)

    def uniform_log_mass(self, u_ND: Tensor, v_ND: Tensor) -> Tensor:
        """Log Z_i of uniform weights, [V, N]."""
        found = streaming_logsumexp(
            inner_products,
            [u_ND],
            [v_ND],
            exclude_self=self.exclude_self,
            logit_bound=1 / self.temperature,
            block_size=self.block_size,
        )[0]
        num_candidates = len(u_ND) - (1 if self.exclude_self else 0)
        return torch.stack([found.over_columns_N, found.over_rows_M]) - math.log(num_candidates)

    def sweep(
        self,
        u_ND: Tensor,
        v_ND: Tensor,
        positive_N: Tensor,
        log_mass_VN: Tensor,
        *,
        keep_tiles_bytes: int = 0,
    ) -> Tensor:
        """Log Z_i, [V, N], of the weights that the log Z_i before make; no gradient through the weights."""
        limit = 1 / self.temperature
        of_u, of_v = (
            _constants(log_mass_N, positive_N.detach(), alpha=self.alpha, num_contrasted=len(u_ND))
            for log_mass_N in log_mass_VN.detach().to(positive_N.dtype).clamp(-limit, limit)
        )
        found = streaming_logsumexp(
            _weighted_scores,
            [u_ND, *of_u],
            [v_ND, *of_v],
            exclude_self=self.exclude_self,
            logit_bound=self.logit_bound,
            block_size=self.block_size,
            keep_tiles_bytes=keep_tiles_bytes,
        )
        weight_VN = torch.stack([found[0].over_columns_N.detach(), found[2].over_rows_M.detach()])
        return torch.stack([found[1].over_columns_N, found[3].over_rows_M]) - weight_VN


def _weighted_scores(
    rows: Sequence[Tensor], columns: Sequence[Tensor], first_row: int, first_column: int
) -> tuple[Tensor, ...]:
    """[b, c] logits log w and log w + s for the anchors of u, the rows; then for those of v, the columns."""
    score_bc = rows[0] @ columns[0].T
    known_bc = score_bc.detach()
    of_rows_bc = _log_weight(known_bc, rows[1][:, None], rows[2][:, None])
    of_columns_bc = _log_weight(known_bc, columns[1], columns[2])
    return of_rows_bc, of_rows_bc + score_bc, of_columns_bc, of_columns_bc + score_bc
