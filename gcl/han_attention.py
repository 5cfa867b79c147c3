"""Attention over the neighbours of one metapath, without keeping a weight of any pair for the backward pass.

Weights are softmax_j leaky_relu(l_i + r_j) over the neighbours j of i (Velickovic et al. 2018), a head at a
time. Forward keeps one normaliser a node and head; backward computes the weights, and the numbers that
dropped some of them, again. There are two ways, equal to rounding: edge by edge, and, where many pairs are
neighbours, as masked products of dense matrices, a block of rows at a time.

Legend: N nodes, E edges, K heads, d width of a head, b rows and c columns of a block.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional

from gcl.dropout import Dropout
from gcl.propagation import BackendName
from gcl.weighted_edges import WeightedEdges

NEGATIVE_SLOPE = 0.2
"""Of the leaky ReLU on attention logits."""
DENSE_DENSITY = 0.04
"""Share of pairs that are neighbours from which the dense way is taken; see benchmarks/attention.py."""
MAX_DENSE_NODES = 20_000
"""Nodes above which pairs are never masked in a dense matrix: N^2 bytes a metapath."""
SMALLEST_GATHER = 0.5
"""Share of the nodes from which a block takes all columns as they lie: to gather would cost more."""
CPU_BLOCK_PAIRS, CUDA_BLOCK_PAIRS = 1 << 19, 1 << 25
"""Pairs whose weights are held at once: few enough for the CPU's cache, enough to fill a GPU."""

_LARGEST_SPREAD = 60.0  # of logits in a row, below which a bound on the largest serves as the shift of exp


class Neighbours(Protocol):
    """The neighbours of one metapath; computes one head."""

    def forward(
        self, value_Nd: Tensor, left_N: Tensor, right_N: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor]:
        """Weighted sums [N, d], and log-sum-exps [N] of the logits; zeros and +inf for a lonely node."""

    def backward(
        self, head: "Head", gradient_Nd: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value [N, d], left [N] and right [N]."""


@dataclass(frozen=True, eq=False)
class Head:
    """What the backward pass of a head is given."""

    value_Nd: Tensor
    left_N: Tensor
    right_N: Tensor
    lse_N: Tensor
    sum_Nd: Tensor


def prepare_neighbours(
    adjacency_NN: sp.csr_matrix, *, device: str = "cpu", backend: BackendName = "auto"
) -> Neighbours:
    """The way that suits a metapath: dense from `DENSE_DENSITY` on, edge by edge below.

    Args:
        adjacency_NN: sorted CSR; only its pattern counts.
        device: torch device that computes.
        backend: of the sums over edges.
    """
    num_nodes = adjacency_NN.shape[0]
    is_dense = adjacency_NN.nnz >= DENSE_DENSITY * num_nodes**2 and num_nodes <= MAX_DENSE_NODES
    if is_dense:
        return DenseNeighbours(adjacency_NN, device=device)
    return EdgeNeighbours(adjacency_NN, device=device, backend=backend)


def attend(
    neighbours: Neighbours,
    value_NKd: Tensor,
    left_NK: Tensor,
    right_NK: Tensor,
    dropout: Dropout | None = None,
) -> Tensor:
    """Each node's attention-weighted sum of its neighbours, [N, K, d], differentiable.

    Args:
        neighbours: of the metapath.
        value_NKd: float32, or bfloat16: the precision of the products.
        left_NK: float32, share of the node that looks in the logit.
        right_NK: float32, share of the neighbour.
        dropout: of single weights; None for none.
    """
    summed: Tensor = _Attention.apply(neighbours, dropout, value_NKd, left_NK, right_NK)  # type: ignore[no-untyped-call]
    return summed


class _Attention(torch.autograd.Function):
    """All heads of one metapath, one after the other."""

    @staticmethod
    def forward(
        ctx: Any,
        neighbours: Neighbours,
        dropout: Dropout | None,
        value_NKd: Tensor,
        left_NK: Tensor,
        right_NK: Tensor,
    ) -> Tensor:
        summed_NKd, lse_NK = torch.empty_like(value_NKd), torch.empty_like(left_NK)
        for k in range(value_NKd.shape[1]):
            # Kernels are several times as slow on what lies apart in memory.
            value_Nd, left_N, right_N = (t[:, k].contiguous() for t in (value_NKd, left_NK, right_NK))
            found = neighbours.forward(value_Nd, left_N, right_N, dropout and dropout.numbered(k))
            summed_NKd[:, k], lse_NK[:, k] = found
        ctx.neighbours, ctx.dropout = neighbours, dropout
        ctx.save_for_backward(value_NKd, left_NK, right_NK, lse_NK, summed_NKd)
        return summed_NKd

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        found = [torch.empty_like(tensor) for tensor in tensors[:3]]
        for k in range(tensors[0].shape[1]):
            head = Head(*(tensor[:, k].contiguous() for tensor in tensors))
            dropout = ctx.dropout and ctx.dropout.numbered(k)
            parts = ctx.neighbours.backward(head, gradients[0][:, k].contiguous(), dropout)
            for whole, part in zip(found, parts, strict=True):
                whole[:, k] = part
        return (None, None, *found)


def _logits(left: Tensor, right: Tensor) -> Tensor:
    return functional.leaky_relu(left + right, NEGATIVE_SLOPE, inplace=True)


class DenseNeighbours:
    """All pairs of some rows and the columns that any of them has as a neighbour; the others are masked.

    Rows with the same neighbours come into the same block, so that its columns are few: where a metapath
    joins all nodes of a group, a block is little more than its group.

    Masks are bytes, and comparisons write floats: on a CPU, bools take several times as long to make and to
    multiply with as floats do.
    """

    def __init__(self, adjacency_NN: sp.csr_matrix, *, device: str = "cpu") -> None:
        mask_NN = np.zeros(adjacency_NN.shape, bool)
        mask_NN[np.repeat(np.arange(len(mask_NN)), np.diff(adjacency_NN.indptr)), adjacency_NN.indices] = True
        pairs = CUDA_BLOCK_PAIRS if torch.device(device).type == "cuda" else CPU_BLOCK_PAIRS
        step, order = max(1, pairs // max(1, len(mask_NN))), _alike_together(mask_NN)
        self._blocks: list[tuple[Tensor, Tensor | slice, Tensor]] = []
        for first in range(0, len(mask_NN), step):
            rows = order[first : first + step]
            mask_bN = mask_NN[rows]
            columns = np.flatnonzero(mask_bN.any(axis=0))
            on_device = [torch.from_numpy(part).to(device) for part in (rows, columns)]
            if len(columns) >= SMALLEST_GATHER * len(mask_NN):
                self._blocks.append((on_device[0], slice(None), _as_bytes(mask_bN).to(device)))
                continue
            mask_bc = _as_bytes(mask_bN[:, columns]).to(device)
            self._blocks.append((on_device[0], on_device[1], mask_bc))

    def forward(
        self, value_Nd: Tensor, left_N: Tensor, right_N: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor]:
        """See `Neighbours`."""
        summed_Nd, lse_N = torch.empty_like(value_Nd), torch.empty_like(left_N)
        generator = None if dropout is None else dropout.generator(value_Nd.device)
        exponentials = _Exponentials(left_N, right_N)
        for rows, columns, mask_bc in self._blocks:
            weight_bc, offset_b = exponentials.block(rows, columns, mask_bc)
            total_b = weight_bc.sum(1)
            lse_N[rows] = (total_b.log() + offset_b).masked_fill(total_b == 0, torch.inf)
            factor_b = total_b.clamp_(min=torch.finfo(torch.float32).tiny).reciprocal_()
            if dropout is not None and generator is not None:
                weight_bc.mul_(dropout.kept(tuple(weight_bc.shape), generator))
                factor_b.mul_(dropout.scale)
            summed_bd = weight_bc.to(value_Nd.dtype) @ value_Nd[columns]
            summed_Nd[rows] = (summed_bd * factor_b[:, None]).to(value_Nd.dtype)
        return summed_Nd, lse_N

    def backward(
        self, head: Head, gradient_Nd: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Neighbours`."""
        value_Nd, left_N, right_N = head.value_Nd, head.left_N, head.right_N
        generator = None if dropout is None else dropout.generator(value_Nd.device)
        # sum_j weight_ij dL/dweight_ij, which the softmax takes off, is the gradient times the sum itself.
        taken_off_N = (gradient_Nd * head.sum_Nd).sum(1, dtype=torch.float32)
        value_gradient_Nd = torch.zeros_like(value_Nd, dtype=torch.float32)
        left_gradient_N, right_gradient_N = torch.empty_like(left_N), torch.zeros_like(right_N)
        exponentials = _Exponentials(left_N, right_N)
        for rows, columns, mask_bc in self._blocks:
            gradient_bd, taken_off_b = gradient_Nd[rows], taken_off_N[rows]
            weight_bc, offset_b = exponentials.block(rows, columns, mask_bc)
            # Factors of whole rows are left to the sides of the products and to the sums.
            factor_b = (offset_b - head.lse_N[rows]).exp_()
            logit_gradient_bc = (gradient_bd @ value_Nd[columns].T).float()
            dropped_bc = weight_bc
            if dropout is not None and generator is not None:
                kept_bc = dropout.kept(tuple(weight_bc.shape), generator)
                logit_gradient_bc.mul_(kept_bc)
                dropped_bc = weight_bc * kept_bc
                factor_b.mul_(dropout.scale)
                taken_off_b = taken_off_b / dropout.scale
            weighted_bd = (gradient_bd * factor_b[:, None]).to(gradient_bd.dtype)
            value_gradient_Nd[columns] += dropped_bc.to(gradient_bd.dtype).T @ weighted_bd
            logit_gradient_bc.sub_(taken_off_b[:, None]).mul_(weight_bc)
            logit_gradient_bc.mul_(exponentials.slopes(rows, columns))
            left_gradient_N[rows] = logit_gradient_bc.sum(1).mul_(factor_b)
            right_gradient_N[columns] += factor_b @ logit_gradient_bc
        return value_gradient_Nd.to(value_Nd.dtype), left_gradient_N, right_gradient_N


class _Exponentials:
    """exp(leaky_relu(l_i + r_j)) of a block of pairs, up to a factor a row, from exponentials of nodes.

    As exp grows and the slope is below 1, exp(leaky_relu(s)) is the larger of exp(s) and exp(slope s), and
    each of them is a product of one number a row and one a column: no exponential is taken of a pair.
    """

    def __init__(self, left_N: Tensor, right_N: Tensor) -> None:
        self._left_N, self._right_N = left_N, right_N
        self._is_wide = _is_wide(right_N)
        largest = right_N.max()
        below_N = right_N - largest
        self._steep_N, self._flat_N = below_N.exp(), (NEGATIVE_SLOPE * below_N).exp()
        sum_N = left_N + largest
        # Of a row that is cut off here, no pair is steep: l_i + r_j < 0 for all j, and the factor is free.
        log_flat_N = ((NEGATIVE_SLOPE - 1) * sum_N).clamp_(max=0)
        self._row_N, self._offset_N = log_flat_N.exp(), NEGATIVE_SLOPE * sum_N - log_flat_N

    def block(self, rows: Tensor, columns: Tensor | slice, mask_bc: Tensor) -> tuple[Tensor, Tensor]:
        """Exponentials [b, c], zero where masked, and the logarithm [b] of each row's factor."""
        if self._is_wide:
            return self._wide_block(rows, columns, mask_bc)
        exponential_bc = self._row_N[rows, None] * self._flat_N[columns]
        torch.maximum(exponential_bc, self._steep_N[columns], out=exponential_bc)
        return exponential_bc.mul_(mask_bc.float()), self._offset_N[rows]

    def slopes(self, rows: Tensor, columns: Tensor | slice) -> Tensor:
        """Derivative [b, c] of the leaky ReLU."""
        return _slopes(self._left_N[rows, None] + self._right_N[columns])

    def _wide_block(self, rows: Tensor, columns: Tensor | slice, mask_bc: Tensor) -> tuple[Tensor, Tensor]:
        """The same where numbers of columns could leave nothing of a row: by the row's own largest."""
        logit_bc = _logits(self._left_N[rows, None], self._right_N[columns])
        if not mask_bc.shape[1]:
            return logit_bc, self._left_N[rows]
        shift_b = logit_bc.masked_fill(mask_bc == 0, -torch.inf).amax(1).nan_to_num(neginf=0)
        logit_bc.clamp_(max=shift_b[:, None])
        return logit_bc.sub_(shift_b[:, None]).exp_().mul_(mask_bc.float()), shift_b


class EdgeNeighbours:
    """The edges alone, by `gcl.weighted_edges.WeightedEdges`."""

    def __init__(
        self, adjacency_NN: sp.csr_matrix, *, device: str = "cpu", backend: BackendName = "auto"
    ) -> None:
        self.edges = WeightedEdges(adjacency_NN.indptr, adjacency_NN.indices, backend=backend, device=device)

    def forward(
        self, value_Nd: Tensor, left_N: Tensor, right_N: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor]:
        """See `Neighbours`."""
        edges = self.edges
        logit_E = _logits(left_N[edges.row_E], right_N[edges.column_E])
        shift_N = functional.leaky_relu(left_N + right_N.max(), NEGATIVE_SLOPE)
        if _is_wide(right_N):
            shift_N = edges.row_maxima(logit_E).nan_to_num(neginf=0)
        weight_E = logit_E.sub_(shift_N[edges.row_E]).exp_()
        total_N = edges.row_sums(weight_E)
        lse_N = (total_N.log() + shift_N).masked_fill(total_N == 0, torch.inf)
        weight_E.mul_(total_N.clamp(min=torch.finfo(torch.float32).tiny).reciprocal()[edges.row_E])
        if dropout is not None:
            weight_E.mul_(_kept(dropout, weight_E)).mul_(dropout.scale)
        return edges.weighted_sum(weight_E, value_Nd.float()).to(value_Nd.dtype), lse_N

    def backward(
        self, head: Head, gradient_Nd: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Neighbours`."""
        edges = self.edges
        gradient_Nd, value_Nd = gradient_Nd.float(), head.value_Nd.float()
        taken_off_N = (gradient_Nd * head.sum_Nd.float()).sum(1)
        sum_E = head.left_N[edges.row_E] + head.right_N[edges.column_E]
        slope_E = _slopes(sum_E.clone())
        weight_E = functional.leaky_relu_(sum_E, NEGATIVE_SLOPE).sub_(head.lse_N[edges.row_E]).exp_()
        logit_gradient_E = edges.products(gradient_Nd, value_Nd)
        dropped_E = weight_E
        if dropout is not None:
            kept_E = _kept(dropout, weight_E)
            logit_gradient_E.mul_(kept_E).mul_(dropout.scale)
            dropped_E = weight_E.mul(kept_E).mul_(dropout.scale)
        value_gradient_Nd = edges.transposed_sum(dropped_E, gradient_Nd)
        logit_gradient_E.sub_(taken_off_N[edges.row_E]).mul_(weight_E).mul_(slope_E)
        return (
            value_gradient_Nd.to(head.value_Nd.dtype),
            edges.row_sums(logit_gradient_E),
            edges.column_sums(logit_gradient_E),
        )


def _kept(dropout: Dropout, weight_E: Tensor) -> Tensor:
    return dropout.kept(tuple(weight_E.shape), dropout.generator(weight_E.device))


def _alike_together(mask_NN: np.ndarray) -> np.ndarray:
    """int64 order of the rows in which those with the same neighbours stand together."""
    by_degree = np.argsort(-mask_NN.sum(axis=0), kind="stable")
    packed = np.ascontiguousarray(np.packbits(mask_NN[:, by_degree], axis=1))
    return np.argsort(packed.view(f"S{packed.shape[1]}").ravel(), kind="stable")


def _is_wide(right_N: Tensor) -> bool:
    """Whether logits of a row may lie so far apart that a bound on the largest is no safe shift."""
    return bool((right_N.max() - right_N.min()) > _LARGEST_SPREAD)


def _slopes(sums: Tensor) -> Tensor:
    """Derivative of the leaky ReLU, in the place of its argument."""
    return sums.gt_(0).mul_(1 - NEGATIVE_SLOPE).add_(NEGATIVE_SLOPE)


def _as_bytes(mask: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask).view(np.uint8))
