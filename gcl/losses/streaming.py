"""Exact log-sum-exps over all pairs of two sets of rows, without ever holding the N x M matrix of logits.

A contrastive loss over all pairs needs of its logits only log-sum-exps by row and by column. The forward
pass streams over blocks of pairs and keeps the sums; the backward pass computes each block again and takes
its gradient at once (the recomputation of FlashAttention, for any logit that plain torch can express).
Memory is O(N D + block^2) in both passes instead of O(N M), time is that of one more forward product; a set
contrasted with itself gives half of it back, as each block on or above the diagonal serves both sides.

Legend: N rows, M columns, b rows and c columns of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gcl.losses.streaming_blocks import Block, Plan, RunningSum, Scratch, Tile, cut, leaves_of, sides

CPU_BLOCK = 1024
"""Rows and columns of a block on the CPU: a float32 block is 4 MiB, so it stays in the last cache."""
CUDA_BLOCK = 4096
"""Rows and columns of a block on CUDA: large enough that launching kernels costs nothing beside them."""
LARGEST_UNSHIFTED = 40.0
"""Logits up to this size need no shift: e^40 summed over 10^9 columns, and its inverse, fit in float32."""


@dataclass(frozen=True)
class RowsAndColumns:
    """The log-sum-exps of one logit.

    Attributes:
        over_columns_N: one a row, the sum running over columns; -inf where it runs over nothing.
        maybe_over_rows_M: one a column, the sum running over rows; None when not asked for.
    """

    over_columns_N: Tensor
    maybe_over_rows_M: Tensor | None

    @property
    def over_rows_M(self) -> Tensor:
        """One log-sum-exp a column. ValueError when it was not asked for."""
        if self.maybe_over_rows_M is None:
            raise ValueError("the log-sum-exp over rows was switched off by over_rows=False")
        return self.maybe_over_rows_M


def streaming_logsumexp(
    tile: Tile,
    rows: Sequence[Tensor],
    columns: Sequence[Tensor] | None = None,
    *,
    exclude_self: bool = False,
    over_rows: bool = True,
    logit_bound: float | None = None,
    block_size: int | None = None,
    keep_tiles_bytes: int = 0,
) -> list[RowsAndColumns]:
    """Log-sum-exps of all pairs' logits by row and by column, differentiable in the operands.

    Under `torch.autocast` the products inside `tile` run in the lower precision, in the forward pass and in
    the recomputation; exponentials and sums are float32 always, float64 for float64 logits. Results are
    equal to the last bit from run to run for one number of threads and one block size. There is no second
    derivative.

    Args:
        tile: logits of a block, from blocks of the operands, in plain differentiable torch; called for
            every block, so it must be a pure function. A tensor that needs a gradient must be an operand (a
            scalar as `scalar.expand(N)`): one that is only captured is refused. A logit of -inf leaves its
            pair out.
        rows: operands with N rows each, of any dtype; their blocks are `tile`'s first argument.
        columns: operands with M rows each; None for pairs of a set with itself, where `tile` must be
            symmetric: only blocks on and above the diagonal are computed.
        exclude_self: leave the pair (i, i) out.
        over_rows: whether the sums by column are wanted too; always there when `columns` is None.
        logit_bound: an upper bound of |logit|, if one is known (1/temperature for cosines). Up to
            `LARGEST_UNSHIFTED` it spares the search for maxima, and one exponential serves both sides.
        block_size: rows and columns at a time; None for what is fast on the device.
        keep_tiles_bytes: when all blocks of logits fit in this many bytes they are kept, with the graph
            that made them, instead of computed again: for dear logits of few pairs.

    Returns:
        One result for each tensor of `tile`'s.

    Raises:
        ValueError: operands of different length, a captured tensor that needs a gradient, or logits of
            another shape than the block's.

    Example:
        >>> z = torch.eye(3)
        >>> inner = lambda rows, columns, first_row, first_column: (rows[0] @ columns[0].T,)
        >>> streaming_logsumexp(inner, [z], exclude_self=True)[0].over_columns_N  # log(e^0 + e^0)
        tensor([0.6931, 0.6931, 0.6931])
    """
    num_rows = _common_length(rows, "rows")
    num_columns = num_rows if columns is None else _common_length(columns, "columns")
    device = rows[0].device
    if block_size is None:
        block_size = CUDA_BLOCK if device.type == "cuda" else CPU_BLOCK
    if block_size < 1:
        raise ValueError(f"block_size must be positive, not {block_size}")
    is_autocast = torch.is_autocast_enabled(device.type)
    plan = Plan(
        tile=tile,
        num_row_operands=len(rows),
        num_rows=num_rows,
        num_columns=num_columns,
        is_symmetric=columns is None,
        exclude_self=exclude_self,
        over_rows=over_rows and columns is not None,
        is_bounded=logit_bound is not None and logit_bound <= LARGEST_UNSHIFTED,
        block_size=block_size,
        keep_tiles_bytes=keep_tiles_bytes,
        device_type=device.type,
        autocast_dtype=torch.get_autocast_dtype(device.type) if is_autocast else None,
    )
    operands = [*rows, *(columns or ())]
    sums: tuple[Tensor, ...] = _StreamedLogSumExp.apply(plan, *operands)  # type: ignore[no-untyped-call]
    if plan.is_symmetric:
        return [RowsAndColumns(lse_N, lse_N) for lse_N in sums]
    if not plan.over_rows:
        return [RowsAndColumns(lse_N, None) for lse_N in sums]
    return [RowsAndColumns(*pair) for pair in zip(sums[::2], sums[1::2], strict=True)]


class _StreamedLogSumExp(torch.autograd.Function):
    """Forward: sums over streamed blocks. Backward: every block once more, and its gradient."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *operands: Tensor) -> tuple[Tensor, ...]:
        needs_gradient = ctx.needs_input_grad[1:]
        rows, columns = sides(plan, operands)
        sums: list[tuple[RunningSum, RunningSum]] = []
        kept: list[tuple[Block, list[Tensor], list[Tensor], tuple[Tensor, ...]]] | None = None
        scratch = Scratch()
        for block in plan.blocks():
            if not sums:
                first_tiles = _first_tile(plan, block, rows, columns)
                sums = [_running_sums(plan, logit_bc) for logit_bc in first_tiles]
                kept = [] if any(needs_gradient) and _fits(plan, first_tiles) else None
            if kept is None:
                tiles = plan.logits(block, cut(rows, block.rows), cut(columns, block.columns))
            else:
                leaves = leaves_of(plan, block, operands, needs_gradient)
                with torch.enable_grad():
                    tiles = plan.logits(block, *leaves)
                kept.append((block, *leaves, tiles))
            for (by_row, by_column), logit_bc in zip(sums, tiles, strict=True):
                reducible_bc = plan.reducible(logit_bc, block)
                buffer_bc = scratch.like(reducible_bc)
                if plan.is_bounded:
                    torch.exp(reducible_bc, out=buffer_bc)
                by_row.add(block.rows, reducible_bc, buffer_bc, dim=1)
                if block.serves_columns:
                    by_column.add(block.columns, reducible_bc, buffer_bc, dim=0)
        results = [side.logsumexp() for pair in sums for side in (pair if plan.over_rows else pair[:1])]
        ctx.plan, ctx.kept = plan, kept
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*operands, *results)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # only with create_graph=True; the result would be a silent zero
            raise RuntimeError("streaming_logsumexp has no second derivative: leave create_graph out")
        plan: Plan = ctx.plan
        needs_gradient = ctx.needs_input_grad[1:]
        operands = ctx.saved_tensors[: len(needs_gradient)]
        results = ctx.saved_tensors[len(needs_gradient) :]
        weights = _weights(plan, results, gradients)
        totals = [
            torch.zeros_like(operand) if needed else None
            for operand, needed in zip(operands, needs_gradient, strict=True)
        ]
        row_totals, column_totals = sides(plan, totals)
        scratch = Scratch()
        for block, row_leaves, column_leaves, tiles in ctx.kept or _recomputed(
            plan, operands, needs_gradient
        ):
            gradient_tiles = [
                _tile_gradient(plan, block, logit_bc, pair, scratch, str(k))
                for k, (logit_bc, pair) in enumerate(zip(tiles, weights, strict=True))
            ]
            targets = [
                (leaf, total[part])
                for side, side_totals, part in (
                    (row_leaves, row_totals, block.rows),
                    (column_leaves, column_totals, block.columns),
                )
                for leaf, total in zip(side, side_totals, strict=True)
                if total is not None
            ]
            active = [
                (logit_bc, gradient_bc.to(logit_bc.dtype))
                for logit_bc, gradient_bc in zip(tiles, gradient_tiles, strict=True)
                if gradient_bc is not None and logit_bc.requires_grad
            ]
            if not active:
                continue
            parts = torch.autograd.grad(
                [logit_bc for logit_bc, _ in active],
                [leaf for leaf, _ in targets],
                [gradient_bc for _, gradient_bc in active],
                retain_graph=ctx.kept is not None,
                allow_unused=True,
            )
            for (_, total), part in zip(targets, parts, strict=True):
                if part is not None:
                    total += part
        return (None, *totals)


Weights = tuple[Tensor, Tensor] | None


def _weights(
    plan: Plan, results: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> list[tuple[Weights, Weights]]:
    """For each logit and side: the gradient of its log-sum-exps, with what makes softmax weights of logits.

    The second tensor is exp(-LSE) times the gradient for bounded logits, else the LSE itself, with +inf for a
    sum over nothing, whose weights are 0.
    """
    found: list[Weights] = []
    for lse_N, gradient_N in zip(results, gradients, strict=True):
        if gradient_N is None:
            found.append(None)
            continue
        lse_N = lse_N.masked_fill(lse_N == -torch.inf, torch.inf)
        found.append((gradient_N, gradient_N * torch.exp(-lse_N) if plan.is_bounded else lse_N))
    if plan.is_symmetric:
        return [(side, side) for side in found]
    if not plan.over_rows:
        return [(side, None) for side in found]
    return list(zip(found[::2], found[1::2], strict=True))


def _tile_gradient(
    plan: Plan,
    block: Block,
    logit_bc: Tensor,
    weights: tuple[Weights, Weights],
    scratch: Scratch,
    name: str,
) -> Tensor | None:
    """Gradient with respect to a block of logits: softmax weights by row and by column, times theirs."""
    by_row = None if weights[0] is None else [weight_N[block.rows, None] for weight_N in weights[0]]
    by_column = None
    if block.serves_columns and weights[1] is not None:
        by_column = [weight_M[None, block.columns] for weight_M in weights[1]]
    wanted = [side for side in (by_row, by_column) if side is not None]
    if not wanted:
        return None
    reducible_bc = plan.reducible(logit_bc, block)
    gradient_bc = scratch.like(reducible_bc, name)
    second_bc = scratch.like(reducible_bc, "second") if len(wanted) == 2 else None
    if plan.is_bounded:
        torch.exp(reducible_bc, out=gradient_bc)
        if second_bc is None:
            return gradient_bc.mul_(wanted[0][1])
        return gradient_bc.mul_(torch.add(wanted[0][1], wanted[1][1], out=second_bc))
    torch.sub(reducible_bc, wanted[0][1], out=gradient_bc).exp_().mul_(wanted[0][0])
    if second_bc is not None:
        torch.sub(reducible_bc, wanted[1][1], out=second_bc).exp_()
        gradient_bc.addcmul_(second_bc, wanted[1][0])
    return gradient_bc


def _recomputed(
    plan: Plan, operands: Sequence[Tensor], needs_gradient: Sequence[bool]
) -> Iterator[tuple[Block, list[Tensor], list[Tensor], tuple[Tensor, ...]]]:
    """Every block with leaves for its operands and the graph of its logits."""
    for block in plan.blocks():
        row_leaves, column_leaves = leaves_of(plan, block, operands, needs_gradient)
        with torch.enable_grad():
            tiles = plan.logits(block, row_leaves, column_leaves)
        yield block, row_leaves, column_leaves, tiles


def _first_tile(
    plan: Plan, block: Block, rows: Sequence[Tensor], columns: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The first block's logits, which tell how many there are and whether the tile hides a gradient."""
    with torch.enable_grad():
        tiles = plan.logits(block, cut(rows, block.rows), cut(columns, block.columns))
    if any(logit_bc.requires_grad for logit_bc in tiles):
        raise ValueError(
            "tile captures a tensor that needs a gradient, which would be lost: hand it over as an operand"
        )
    return tiles


def _running_sums(plan: Plan, logit_bc: Tensor) -> tuple[RunningSum, RunningSum]:
    by_row = RunningSum(plan.num_rows, logit_bc, is_bounded=plan.is_bounded)
    if plan.is_symmetric:
        return by_row, by_row
    return by_row, RunningSum(plan.num_columns, logit_bc, is_bounded=plan.is_bounded)


def _fits(plan: Plan, tiles: Sequence[Tensor]) -> bool:
    num_pairs = sum(
        (block.rows.stop - block.rows.start) * (block.columns.stop - block.columns.start)
        for block in plan.blocks()
    )
    return bool(num_pairs * sum(logit_bc.element_size() for logit_bc in tiles) <= plan.keep_tiles_bytes)


def _common_length(operands: Sequence[Tensor], side: str) -> int:
    lengths = {len(operand) for operand in operands}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"{side} must be operands of one length above 0, not of {sorted(lengths)}")
    return lengths.pop()
