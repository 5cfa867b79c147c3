"""How pairs of rows are cut into blocks, and how log-sum-exps grow over them: the parts of `streaming`.

Legend: N rows, M columns, b rows and c columns of a block.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Tile = Callable[[Sequence[Tensor], Sequence[Tensor], int, int], tuple[Tensor, ...]]
"""`tile(rows_b, columns_c, first_row, first_column)`: logits [b, c] of a block of pairs, one or more."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Block:
    """Rows, columns, and whether their logits serve the sums of the columns too."""

    rows: slice
    columns: slice
    serves_columns: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """What stays the same for every block."""

    tile: Tile
    num_row_operands: int
    num_rows: int
    num_columns: int
    is_symmetric: bool
    exclude_self: bool
    over_rows: bool
    is_bounded: bool
    block_size: int
    keep_tiles_bytes: int
    device_type: str
    autocast_dtype: torch.dtype | None

    def blocks(self) -> Iterator[Block]:
        """All blocks, or those on and above the diagonal."""
        for first_row in range(0, self.num_rows, self.block_size):
            rows = slice(first_row, min(first_row + self.block_size, self.num_rows))
            for first in range(first_row if self.is_symmetric else 0, self.num_columns, self.block_size):
                columns = slice(first, min(first + self.block_size, self.num_columns))
                yield Block(rows, columns, self.over_rows or (self.is_symmetric and first != first_row))

    def logits(self, block: Block, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tile of a block, in the precision of the forward pass."""
        with self._autocast():
            tiles = self.tile(rows, columns, block.rows.start, block.columns.start)
        shape = (block.rows.stop - block.rows.start, block.columns.stop - block.columns.start)
        for logit_bc in tiles:
            if logit_bc.shape != shape:
                raise ValueError(f"tile gave logits of shape {tuple(logit_bc.shape)} for a block {shape}")
        return tiles

    def reducible(self, logit_bc: Tensor, block: Block) -> Tensor:
        """The logits to sum over: detached, float32 at least, the pairs (i, i) taken out."""
        reducible_bc = logit_bc.detach()
        if reducible_bc.dtype != torch.float64:
            reducible_bc = reducible_bc.float()
        if self.exclude_self and block.rows.start == block.columns.start:
            if reducible_bc.data_ptr() == logit_bc.data_ptr():
                reducible_bc = reducible_bc.clone()  # the tile's own memory belongs to its graph
            reducible_bc.fill_diagonal_(-torch.inf)
        return reducible_bc

    def _autocast(self) -> AbstractContextManager[Any]:
        # No cache: it would hold the converted copy of every block until the context ends.
        return torch.autocast(
            self.device_type,
            dtype=self.autocast_dtype,
            enabled=self.autocast_dtype is not None,
            cache_enabled=False,
        )


class RunningSum:
    """Log-sum-exps that grow block by block.

    Bounded logits are summed as they are. Others are summed relative to the largest one met so far, and the
    sum is scaled when a larger one comes.
    """

    def __init__(self, size: int, like: Tensor, *, is_bounded: bool) -> None:
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        self.sum_N = torch.zeros(size, dtype=dtype, device=like.device)
        self.max_N = None if is_bounded else torch.full_like(self.sum_N, -torch.inf)

    def add(self, part: slice, logit_bc: Tensor, buffer_bc: Tensor, *, dim: int) -> None:
        """Add a block's sums over `dim`; `buffer_bc` holds exp(logit_bc) if bounded, and is free if not."""
        if self.max_N is None:
            self.sum_N[part] += buffer_bc.sum(dim)
            return
        old = self.max_N[part]
        new = torch.maximum(old, logit_bc.amax(dim))
        shift = new.masked_fill(new == -torch.inf, 0.0)
        torch.sub(logit_bc, shift.unsqueeze(dim), out=buffer_bc).exp_()
        self.sum_N[part] = self.sum_N[part] * torch.exp(old - shift) + buffer_bc.sum(dim)
        self.max_N[part] = new

    def logsumexp(self) -> Tensor:
        """One a row, or a column; -inf for a sum over nothing."""
        log_sum_N = self.sum_N.log()
        return log_sum_N if self.max_N is None else log_sum_N + self.max_N


class Scratch:
    """Memory for a block, taken once: fresh memory for every block costs as much as the arithmetic."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def like(self, block_bc: Tensor, name: str = "") -> Tensor:
        """Uninitialised memory of the shape and dtype of a block."""
        memory = self._memory.get(name)
        if memory is None or memory.numel() < block_bc.numel() or memory.dtype != block_bc.dtype:
            memory = self._memory[name] = torch.empty_like(block_bc).flatten()
        return memory[: block_bc.numel()].view(block_bc.shape)


def leaves_of(
    plan: Plan, block: Block, operands: Sequence[Tensor], needs_gradient: Sequence[bool]
) -> tuple[list[Tensor], list[Tensor]]:
    """Blocks of the operands as leaves of a graph of their own."""
    rows, columns = sides(plan, operands)
    row_needs, column_needs = sides(plan, needs_gradient)
    return (
        [x.requires_grad_(n) for x, n in zip(cut(rows, block.rows), row_needs, strict=True)],
        [x.requires_grad_(n) for x, n in zip(cut(columns, block.columns), column_needs, strict=True)],
    )


def sides(plan: Plan, values: Sequence[Value]) -> tuple[Sequence[Value], Sequence[Value]]:
    """The values that belong to row operands, and to column operands."""
    rows = values[: plan.num_row_operands]
    return rows, rows if plan.is_symmetric else values[plan.num_row_operands :]


def cut(operands: Sequence[Tensor], part: slice) -> list[Tensor]:
    """The rows of a block, without history."""
    return [operand[part].detach() for operand in operands]
