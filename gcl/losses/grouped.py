"""The tuplet loss of a batch whose rows carry a group: same group attracts, other groups repel.

The group is the node when the rows are views of nodes (DMAT-i), and the class when labels are known
(DMT). Legend: A rows of the batch, D embedding, M rows of the largest group, b rows of a block.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from gcl.losses.tuplet import TupletForm, TupletLoss, check_some_anchor, tuplet_losses

logger = logging.getLogger(__name__)

MAX_DENSE_SCORES = 1 << 24
"""Scores held at once, 64 MiB in float32; a larger batch is worked off in blocks of rows."""
ALL_NODES = slice(None)


def grouped_tuplet_loss(
    z_AD: Tensor,
    group_A: Tensor,
    *,
    temperature: float,
    form: TupletForm = "B",
    negative_mass: float | None = None,
    debias_prior: float = 0.0,
    ungrouped: Literal["ignored", "negatives"] = "ignored",
    anchors: Sequence[tuple[int, int]] | None = None,
    block_size: int | None = None,
) -> TupletLoss:
    """Multi-class tuplet loss on cosine scores, every row an anchor.

    Positives of a row are the other rows of its group, negatives the rows of other groups. Scores are
    float32 even under autocast. Memory is O(A D + A b): blocks of rows keep only their contribution to
    the gradient, so no A x A tensor outlives its block. Out of device memory, the blocks are halved
    once, which is logged; the loss is the same sum in another order.

    Args:
        z_AD: float, embeddings or projections, not normalised.
        group_A: int64, group of each row; negative where unknown: such a row is no anchor.
        temperature: tau > 0 that divides the cosines.
        form: A, B or C, see `gcl.losses.tuplet`.
        negative_mass: weight of the mean negative; None for the number of negatives.
        debias_prior: probability in [0, 1) that a negative is of the anchor's class; 0 is off.
        ungrouped: whether rows without a group serve as negatives (biased: some are of the anchor's
            class) or not at all.
        anchors: ranges of rows, first and last + 1, whose part of the loss is asked for; None for all. The
            parts of ranges that share no row and leave none out add up to the loss.
        block_size: rows at a time; None is dense up to `MAX_DENSE_SCORES` scores and blocks beyond.

    Returns:
        The loss with the numbers of anchors used and skipped.

    Raises:
        NotDefined: no row has both a positive and a negative.
        ValueError: a hyper-parameter out of range.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    positive_AM, is_positive_AM = _same_group_rows(group_A)
    is_candidate_A = None if ungrouped == "negatives" or bool((group_A >= 0).all()) else group_A >= 0
    num_anchors = _num_anchors(group_A, ungrouped)
    check_some_anchor(num_anchors, len(group_A))

    def block_loss(z_AD: Tensor, first: int, last: int) -> Tensor:
        """Sum of the losses of anchors first..last-1, scalar."""
        score_bA = z_AD[first:last] @ z_AD.T / temperature
        is_negative_bA = group_A[first:last, None] != group_A[None, :]
        if is_candidate_A is not None:
            is_negative_bA &= is_candidate_A
        loss_b, _ = tuplet_losses(
            score_bA.gather(1, positive_AM[first:last]),
            score_bA,
            positive_mask_AM=is_positive_AM[first:last],
            negative_mask_AQ=is_negative_bA,
            form=form,
            negative_mass=negative_mass,
            debias_prior=debias_prior,
            lowest_score=-1.0 / temperature,
        )
        return loss_b.sum()

    num_rows = len(z_AD)
    ranges = [(0, num_rows)] if anchors is None else anchors
    block_size = block_size or (num_rows if num_rows**2 <= MAX_DENSE_SCORES else MAX_DENSE_SCORES // num_rows)
    with torch.autocast(z_AD.device.type, enabled=False):
        z_AD = cosine_rows(z_AD)
        try:
            total = _sum_of_blocks(z_AD, block_loss, ranges, max(1, block_size))
        except torch.cuda.OutOfMemoryError:
            smaller = max(1, min(block_size, num_rows) // 2)
            logger.warning("out of device memory with %d rows at a time, trying %d", block_size, smaller)
            total = _sum_of_blocks(z_AD, block_loss, ranges, smaller)
    return TupletLoss(total / num_anchors, num_anchors, num_rows - num_anchors)


def views_tuplet_loss(
    z_VBD: Tensor,
    *,
    temperature: float,
    form: TupletForm = "B",
    debias_prior: float = 0.0,
    nodes: slice = ALL_NODES,
    block_size: int | None = None,
) -> TupletLoss:
    """Tuplet loss of V views of B nodes: a node's other views attract, all views of other nodes repel.

    With m = V - 1 positives and q = V (B - 1) negatives an anchor; V = 2 is NT-Xent.

    Args:
        z_VBD: float, embeddings or projections, not normalised.
        temperature: tau > 0 that divides the cosines.
        form: A, B or C, see `gcl.losses.tuplet`.
        debias_prior: probability in [0, 1) that a negative is of the anchor's class; 0 is off.
        nodes: whose views are the anchors; the parts of disjoint slices add up to the loss.
        block_size: anchors at a time; None decides by size.

    Raises:
        NotDefined: a single view, or a single node.
    """
    num_views, num_nodes, _ = z_VBD.shape
    return grouped_tuplet_loss(
        z_VBD.flatten(0, 1),
        torch.arange(num_nodes, device=z_VBD.device).repeat(num_views),
        temperature=temperature,
        form=form,
        debias_prior=debias_prior,
        anchors=anchors_of(nodes, num_views=num_views, num_nodes=num_nodes),
        block_size=block_size,
    )


def anchors_of(nodes: slice, *, num_views: int, num_nodes: int) -> list[tuple[int, int]] | None:
    """Where the views of some nodes lie among the rows of V views of B nodes; None for all of them.

    Args:
        nodes: which, of step 1.
        num_views: V.
        num_nodes: B.
    """
    first, last, _ = nodes.indices(num_nodes)
    if (first, last) == (0, num_nodes):
        return None
    return [(view * num_nodes + first, view * num_nodes + last) for view in range(num_views)]


def cosine_rows(z_AD: Tensor) -> Tensor:
    """Rows of unit length, in float32 at least; a row of zeros stays zero, with a bounded gradient."""
    z_AD = z_AD if z_AD.dtype == torch.float64 else z_AD.float()
    return functional.normalize(z_AD, dim=-1, eps=1e-6)


def positive_similarity(z_VBD: Tensor) -> Tensor:
    """Mean cosine between the first view and the others, detached; 1 when all views agree.

    Args:
        z_VBD: float, at least two views.
    """
    z_VBD = cosine_rows(z_VBD.detach())
    return (z_VBD[0] * z_VBD[1:]).sum(dim=-1).mean()


def hard_negative_similarity(z_BD: Tensor, *, share: float = 0.1) -> Tensor:
    """Mean of the largest cosines between different rows: how hard the negatives are.

    Args:
        z_BD: float, one row a node; O(B^2), so hand over a sample.
        share: share of the pairs in (0, 1] that counts as hard.

    Returns:
        float32 scalar in [-1, 1]; 0 when there is no pair.
    """
    num_rows = len(z_BD)
    if num_rows < 2:
        return torch.zeros((), device=z_BD.device)
    z_BD = cosine_rows(z_BD.detach())
    upper = torch.triu_indices(num_rows, num_rows, offset=1, device=z_BD.device)
    similarity = (z_BD @ z_BD.T)[upper[0], upper[1]]
    return similarity.topk(max(1, round(share * len(similarity)))).values.mean()


def _sum_of_blocks(
    z_AD: Tensor,
    block_loss: Callable[[Tensor, int, int], Tensor],
    ranges: Sequence[tuple[int, int]],
    block_size: int,
) -> Tensor:
    blocks = [
        (start, min(start + block_size, last))
        for first, last in ranges
        for start in range(first, last, block_size)
    ]
    if blocks == [(0, len(z_AD))]:
        return block_loss(z_AD, 0, len(z_AD))
    total: Tensor = _BlockedSum.apply(z_AD, block_loss, blocks)  # type: ignore[no-untyped-call]
    return total


class _BlockedSum(torch.autograd.Function):
    """Sum of a loss over blocks of rows; each block's gradient is taken at once and its scores dropped."""

    @staticmethod
    def forward(
        ctx: Any,
        z_AD: Tensor,
        block_loss: Callable[[Tensor, int, int], Tensor],
        blocks: Sequence[tuple[int, int]],
    ) -> Tensor:
        total, gradient_AD = z_AD.new_zeros(()), torch.zeros_like(z_AD)
        for first, last in blocks:
            with torch.enable_grad():
                leaf_AD = z_AD.detach().requires_grad_()
                part = block_loss(leaf_AD, first, last)
            total += part.detach()
            if ctx.needs_input_grad[0]:
                gradient_AD += torch.autograd.grad(part, leaf_AD)[0]
        ctx.save_for_backward(gradient_AD)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient_AD,) = ctx.saved_tensors
        return grad_outputs[0] * gradient_AD, None, None


def _same_group_rows(group_A: Tensor) -> tuple[Tensor, Tensor]:
    """Row ids [A, M] of each row's own group, padded, and a mask of the entries that are positives."""
    num_rows = len(group_A)
    row_A = torch.arange(num_rows, device=group_A.device)
    order_A = torch.argsort(group_A, stable=True)
    values, inverse_A, counts = torch.unique(group_A, return_inverse=True, return_counts=True)
    starts = counts.cumsum(0) - counts
    counts = torch.where(values >= 0, counts, 0)
    slot_M = torch.arange(int(counts.max()) if len(counts) else 0, device=group_A.device)
    place_AM = starts[inverse_A][:, None] + slot_M
    same_AM = order_A[place_AM.clamp(max=max(num_rows - 1, 0))]
    is_positive_AM = (slot_M < counts[inverse_A][:, None]) & (same_AM != row_A[:, None])
    return same_AM, is_positive_AM


def _num_anchors(group_A: Tensor, ungrouped: str) -> int:
    """Rows with another row in their group and a candidate outside it."""
    known_A = group_A[group_A >= 0]
    num_candidates = len(group_A) if ungrouped == "negatives" else len(known_A)
    counts = torch.unique(known_A, return_counts=True)[1]
    return int(counts[(counts > 1) & (counts < num_candidates)].sum())
