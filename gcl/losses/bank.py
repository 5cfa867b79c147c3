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
    again. Gradients reach anchors, positives, and through the negatives the sources. Under `torch.autocast`
    the products of anchors with the bank run in the lower precision, everything else in float32.

    Args:
        anchor_ND: float, not normalised.
        positive_ND: float, a row for each anchor.
        sources: float tensors that the blocks are drawn from.
        blocks: of the bank; their order plays no part. None: the loss is 0.
        temperature: tau > 0.
    """
    device = anchor_ND.device.type
    lower = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    with torch.autocast(device, enabled=False):
        anchor_ND = cosine_rows(anchor_ND)
        positive_N = (anchor_ND * cosine_rows(positive_ND)).sum(dim=1) / temperature
        lse_N: Tensor = _BankLogSumExp.apply(anchor_ND, _Bank(tuple(blocks), temperature, lower), *sources)  # type: ignore[no-untyped-call]
        return torch.nn.functional.softplus(lse_N - positive_N).mean()


@dataclass(frozen=True, eq=False)
class _Bank:
    """What is no tensor: blocks, temperature, and the precision of products, None for that of the rows."""

    blocks: tuple[BankBlock, ...]
    temperature: float
    lower: torch.dtype | None

    def operand(self, row_ND: Tensor) -> Tensor:
        """The rows as products take them."""
        return row_ND if self.lower is None else row_ND.to(self.lower)

    def exponentials(self, anchor_bD: Tensor, negative_QD: Tensor, block: BankBlock, first: int) -> Tensor:
        """exp( (cosine - 1) / temperature ) of a tile [b, Q]; 0 where the negative was made from the anchor.

        Args:
            anchor_bD: operand, anchors from number `first` on.
            negative_QD: operand, the negatives of the block.
            block: where they are from.
            first: number of the first anchor.
        """
        tile_bQ = anchor_bD @ negative_QD.T
        tile_bQ = tile_bQ if self.lower is None else tile_bQ.float()
        tile_bQ.sub_(1).div_(self.temperature).exp_()
        if block.source_Q is not None:
            anchor_b = torch.arange(first, first + len(anchor_bD), device=tile_bQ.device)
            tile_bQ.masked_fill_(anchor_b[:, None] == block.source_Q, 0.0)
        return tile_bQ


class _BankLogSumExp(torch.autograd.Function):
    """Log-sum-exp over the bank, one an anchor; -inf for an empty bank."""

    @staticmethod
    def forward(ctx: Any, anchor_ND: Tensor, bank: _Bank, *sources: Tensor) -> Tensor:
        total_N = torch.zeros(len(anchor_ND), dtype=torch.float64, device=anchor_ND.device)
        operand_ND = bank.operand(anchor_ND)
        for block in bank.blocks:
            negative_QD = bank.operand(cosine_rows(block.draw(sources)))
            for rows in _tiles(len(anchor_ND), len(negative_QD)):
                total_N[rows] += bank.exponentials(operand_ND[rows], negative_QD, block, rows.start).sum(1)
        # Cosines are at most 1, so exponentials were taken of cosine - 1, and none is above 1.
        lse_N = total_N.log().add_(1 / bank.temperature).to(anchor_ND.dtype)
        ctx.bank = bank
        ctx.save_for_backward(anchor_ND, lse_N, *sources)
        return lse_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        anchor_ND, lse_N, *sources = ctx.saved_tensors
        bank: _Bank = ctx.bank
        shifted_N = (lse_N - 1 / bank.temperature).masked_fill(lse_N == -torch.inf, torch.inf)
        weight_N = gradients[0] * torch.exp(-shifted_N) / bank.temperature
        operand_ND, of_anchor_ND = bank.operand(anchor_ND), torch.zeros_like(anchor_ND)
        needed = [i for i, is_needed in enumerate(ctx.needs_input_grad[2:]) if is_needed]
        of_sources: list[Tensor | None] = [
            torch.zeros_like(source) if i in needed else None for i, source in enumerate(sources)
        ]
        for block in bank.blocks:
            leaves = [source.detach().requires_grad_(i in needed) for i, source in enumerate(sources)]
            with torch.enable_grad():
                negative_QD = cosine_rows(block.draw(leaves))
            held_QD = bank.operand(negative_QD.detach())
            of_negative_QD = torch.zeros_like(negative_QD, requires_grad=False)
            for rows in _tiles(len(anchor_ND), len(held_QD)):
                tile_bQ = bank.exponentials(operand_ND[rows], held_QD, block, rows.start)
                tile_bQ = bank.operand(tile_bQ.mul_(weight_N[rows, None]))
                of_anchor_ND[rows] += tile_bQ @ held_QD
                of_negative_QD += tile_bQ.T @ operand_ND[rows]
            if not negative_QD.requires_grad:
                continue
            wanted = [leaves[i] for i in needed]
            parts = torch.autograd.grad(negative_QD, wanted, of_negative_QD, allow_unused=True)
            for i, part in zip(needed, parts, strict=True):
                total = of_sources[i]
                if part is not None and total is not None:
                    total += part
        return (of_anchor_ND, None, *of_sources)


def _tiles(num_anchors: int, num_negatives: int) -> list[slice]:
    step = max(1, TILE_PAIRS // max(1, num_negatives))
    return [slice(first, min(first + step, num_anchors)) for first in range(0, num_anchors, step)]
