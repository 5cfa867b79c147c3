"""InfoNCE against a bank of negatives that belong to no anchor, drawn a block at a time and never held whole.

Legend: N anchors, D embedding, Q rows of a block of the bank, b anchors of a tile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gcl.losses.grouped import cosine_rows

TILE_PAIRS = 1 << 22
"""Pairs of an anchor and a negative whose logits are held at once."""


@dataclass(frozen=True, eq=False)
class BankBlock:
    """Some negatives of the bank.

    Attributes:
        draw: gives rows [Q, D] from the sources, in plain differentiable torch; a pure function, called once
            in each pass, so its randomness must come from a generator that it makes itself.
        source_Q: int64 anchor that each negative was made from, which it is no negative of; None for
            negatives of all.
    """

    draw: Callable[[Sequence[Tensor]], Tensor]
    source_Q: Tensor | None = None


def bank_infonce_loss(
    anchor_ND: Tensor,
    positive_ND: Tensor,
    sources: Sequence[Tensor],
    blocks: Sequence[BankBlock],
    *,
    temperature: float,
) -> Tensor:
    """Mean over anchors of -log( e^s(a,p) / ( e^s(a,p) + sum_b e^s(a,b) ) ), s = cosine / temperature.

    Memory is that of one block and one tile; the backward pass draws each block and computes each tile
    again. Gradients reach anchors, positives, and through the negatives the sources. Products are float32.

    Args:
        anchor_ND: float, not normalised.
        positive_ND: float, a row for each anchor.
        sources: float tensors that the blocks are drawn from.
        blocks: of the bank; their order plays no part. None: the loss is 0.
        temperature: tau > 0.
    """
    with torch.autocast(anchor_ND.device.type, enabled=False):
        anchor_ND = cosine_rows(anchor_ND)
        positive_N = (anchor_ND * cosine_rows(positive_ND)).sum(dim=1) / temperature
        lse_N: Tensor = _BankLogSumExp.apply(anchor_ND, tuple(blocks), temperature, *sources)  # type: ignore[no-untyped-call]
        return torch.nn.functional.softplus(lse_N - positive_N).mean()


class _BankLogSumExp(torch.autograd.Function):
    """Log-sum-exp over the bank, one an anchor; -inf for an empty bank."""

    @staticmethod
    def forward(
        ctx: Any, anchor_ND: Tensor, blocks: tuple[BankBlock, ...], temperature: float, *sources: Tensor
    ) -> Tensor:
        total_N = torch.zeros(len(anchor_ND), dtype=torch.float64, device=anchor_ND.device)
        for block in blocks:
            negative_QD = cosine_rows(block.draw(sources))
            for rows in _tiles(len(anchor_ND), len(negative_QD)):
                total_N[rows] += _exponentials(anchor_ND, negative_QD, block, rows, temperature).sum(1)
        # Cosines are at most 1, so exponentials were taken of cosine - 1, and none is above 1.
        lse_N = total_N.log().add_(1 / temperature).to(anchor_ND.dtype)
        ctx.blocks, ctx.temperature = blocks, temperature
        ctx.save_for_backward(anchor_ND, lse_N, *sources)
        return lse_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        anchor_ND, lse_N, *sources = ctx.saved_tensors
        shifted_N = (lse_N - 1 / ctx.temperature).masked_fill(lse_N == -torch.inf, torch.inf)
        weight_N = gradients[0] * torch.exp(-shifted_N) / ctx.temperature
        of_anchor_ND = torch.zeros_like(anchor_ND)
        needed = [i for i, is_needed in enumerate(ctx.needs_input_grad[3:]) if is_needed]
        of_sources: list[Tensor | None] = [
            torch.zeros_like(source) if i in needed else None for i, source in enumerate(sources)
        ]
        for block in ctx.blocks:
            leaves = [source.detach().requires_grad_(i in needed) for i, source in enumerate(sources)]
            with torch.enable_grad():
                negative_QD = cosine_rows(block.draw(leaves))
            held_QD = negative_QD.detach()
            of_negative_QD = torch.zeros_like(held_QD)
            for rows in _tiles(len(anchor_ND), len(held_QD)):
                tile_bQ = _exponentials(anchor_ND, held_QD, block, rows, ctx.temperature)
                tile_bQ.mul_(weight_N[rows, None])
                of_anchor_ND[rows].addmm_(tile_bQ, held_QD)
                of_negative_QD.addmm_(tile_bQ.T, anchor_ND[rows])
            if not negative_QD.requires_grad:
                continue
            wanted = [leaves[i] for i in needed]
            parts = torch.autograd.grad(negative_QD, wanted, of_negative_QD, allow_unused=True)
            for i, part in zip(needed, parts, strict=True):
                total = of_sources[i]
                if part is not None and total is not None:
                    total += part
        return (of_anchor_ND, None, None, *of_sources)


def _exponentials(
    anchor_ND: Tensor, negative_QD: Tensor, block: BankBlock, rows: slice, temperature: float
) -> Tensor:
    """exp( (cosine - 1) / temperature ) of a tile [b, Q]; 0 where the negative was made from the anchor."""
    tile_bQ = anchor_ND[rows] @ negative_QD.T
    tile_bQ.sub_(1).div_(temperature).exp_()
    if block.source_Q is not None:
        anchor_b = torch.arange(rows.start, rows.stop, device=tile_bQ.device)
        tile_bQ.masked_fill_(anchor_b[:, None] == block.source_Q, 0.0)
    return tile_bQ


def _tiles(num_anchors: int, num_negatives: int) -> list[slice]:
    step = max(1, TILE_PAIRS // max(1, num_negatives))
    return [slice(first, min(first + step, num_anchors)) for first in range(0, num_anchors, step)]
