"""Inner products of rows that are much alike, in a lower precision that keeps what tells them apart.

Next to 1 bfloat16 has steps of 1/256: cosines of rows that all point one way round to a handful of values.
But for any vectors a and c::

    l_i . r_j = (l_i - a) . (r_j - c) + p_i + q_j        with p_i = l_i . c and q_j = a . (r_j - c)

With the mean rows as a and c the product is small, so that rounding it does little harm, and p and q are sums
of float32. The identity is exact, gradients included: a and c are constants in it.

Legend: N left rows, M right rows, R width, b and c rows and columns of a block.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CentredProducts:
    """Products of all pairs of left and right rows.

    Attributes:
        left_NR: left rows without their mean.
        right_MR: right rows without theirs.
        left_N: p, what a left row adds to all its products.
        right_M: q, what a right row adds.
    """

    left_NR: Tensor
    right_MR: Tensor
    left_N: Tensor
    right_M: Tensor

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """The products [b, c] of some rows with some columns, float32 or float64 as the rows are."""
        return centred_tile(
            self.left_NR[rows], self.left_N[rows], self.right_MR[columns], self.right_M[columns]
        )

    def detached(self) -> "CentredProducts":
        """The same without gradients."""
        parts = (self.left_NR, self.right_MR, self.left_N, self.right_M)
        return CentredProducts(*(part.detach() for part in parts))


def centred_products(left_NR: Tensor, right_MR: Tensor) -> CentredProducts:
    """The products of left rows with right rows, in the precision the rows are in.

    Args:
        left_NR: float.
        right_MR: float.
    """
    with torch.autocast(left_NR.device.type, enabled=False):
        of_left_R, of_right_R = (row.detach().mean(dim=0) for row in (left_NR, right_MR))
        right_MR = right_MR - of_right_R
        return CentredProducts(left_NR - of_left_R, right_MR, left_NR @ of_right_R, right_MR @ of_left_R)


def centred_tile(left_bR: Tensor, left_b: Tensor, right_cR: Tensor, right_c: Tensor) -> Tensor:
    """The products [b, c] of a block of `CentredProducts`; under autocast their small part is rounded.

    Args:
        left_bR: centred left rows.
        left_b: what they add.
        right_cR: centred right rows.
        right_c: what they add.
    """
    return _product(left_bR, right_cR) + left_b[:, None] + right_c


def _product(left_bR: Tensor, right_cR: Tensor) -> Tensor:
    device = left_bR.device.type
    if left_bR.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return left_bR @ right_cR.T
    product: Tensor = _LowerProduct.apply(left_bR, right_cR, torch.get_autocast_dtype(device))  # type: ignore[no-untyped-call]
    return product


class _LowerProduct(torch.autograd.Function):
    """A product in a lower precision, float32 outside of it.

    Where weights are nearly uniform the gradient of a block is nearly constant, and what is not would be
    rounded away. So the mean of a row, or column, is taken off it first and multiplied in float32.
    """

    @staticmethod
    def forward(ctx: Any, left_bR: Tensor, right_cR: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = dtype
        ctx.save_for_backward(left_bR, right_cR)
        return (left_bR.to(dtype) @ right_cR.to(dtype).T).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        left_bR, right_cR = ctx.saved_tensors
        gradient_bc = gradients[0]
        return (
            _low_product(gradient_bc, right_cR, ctx.dtype) if ctx.needs_input_grad[0] else None,
            _low_product(gradient_bc.T, left_bR, ctx.dtype) if ctx.needs_input_grad[1] else None,
            None,
        )


def _low_product(gradient_bc: Tensor, row_cR: Tensor, dtype: torch.dtype) -> Tensor:
    mean_b1 = gradient_bc.mean(dim=1, keepdim=True)
    rest_bR = (gradient_bc - mean_b1).to(dtype) @ row_cR.to(dtype)
    return torch.addmm(rest_bR.float(), mean_b1, row_cR.sum(dim=0, keepdim=True))
