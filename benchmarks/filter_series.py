"""Smoothing as repeated products with S = D^-1/2 A D^-1/2, and its float64 references, for `filters.py`.

Each of the three iterations yields its result after 0, 1, 2, ... products.
"""

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
import torch

from gcl.graph import Graph
from gcl.propagation import Propagation, csr_arrays

ALPHA, CONVOLUTION = 0.1, 0.5


def power(propagation: Propagation, x_NF: torch.Tensor, alpha: float) -> Iterator[torch.Tensor]:
    """Partial sums of the series, the tail's mass on the last level."""
    scaled_NF, mass = x_NF, 1.0
    sum_NF = torch.zeros_like(x_NF)
    while True:
        yield sum_NF + mass * scaled_NF
        sum_NF.add_(scaled_NF, alpha=alpha * mass)
        scaled_NF, mass = propagation.propagate(scaled_NF, convolution=CONVOLUTION), mass * (1 - alpha)


def chebyshev(propagation: Propagation, x_NF: torch.Tensor, alpha: float) -> Iterator[torch.Tensor]:
    """A / (1 - (1-a) s) = sum_k c_k T_k(s) on [-1, 1], where S has its eigenvalues.

    c_k = 2a q^k / root, half of it for k = 0, with root^2 = 1 - (1-a)^2 and q = (1 - root) / (1-a).
    """
    root = (1 - (1 - alpha) ** 2) ** 0.5
    ratio = (1 - root) / (1 - alpha)
    coefficient = 2 * alpha / root
    before_NF, now_NF = x_NF, propagation.propagate(x_NF, convolution=CONVOLUTION)
    sum_NF = coefficient / 2 * x_NF
    while True:
        yield sum_NF
        coefficient *= ratio
        sum_NF.add_(now_NF, alpha=coefficient)
        after_NF = propagation.propagate(now_NF, convolution=CONVOLUTION).mul_(2).sub_(before_NF)
        before_NF, now_NF = now_NF, after_NF


def conjugate_gradients(
    product: Callable[[torch.Tensor], torch.Tensor], x_NF: torch.Tensor, alpha: float
) -> Iterator[torch.Tensor]:
    """(I - (1-a) S) P = a X by Hestenes and Stiefel 1952, each column with its own step lengths."""
    tiny = torch.finfo(x_NF.dtype).tiny
    result_NF = x_NF.clone()  # right where neighbours agree
    residual_NF = (1 - alpha) * (product(x_NF) - x_NF)
    direction_NF = residual_NF.clone()
    square_F = (residual_NF**2).sum(0)
    yield result_NF
    while True:
        image_NF = direction_NF - (1 - alpha) * product(direction_NF)
        step_F = square_F / (direction_NF * image_NF).sum(0).clamp_min(tiny)
        result_NF.addcmul_(direction_NF, step_F)
        residual_NF.addcmul_(image_NF, step_F, value=-1)
        yield result_NF
        square_F, before_F = (residual_NF**2).sum(0), square_F
        direction_NF.mul_(square_F / before_F.clamp_min(tiny)).add_(residual_NF)


def after(results: Iterator[torch.Tensor], num_steps: int) -> torch.Tensor:
    return next(result for step, result in enumerate(results) if step == num_steps)


def symmetric_operator(graph: Graph) -> sp.csr_matrix:
    indptr, indices, _ = csr_arrays(graph, self_loops=True)
    degree_N = np.diff(indptr).astype(np.float64)
    values = 1 / np.sqrt(np.repeat(degree_N, np.diff(indptr)) * degree_N[indices])
    return sp.csr_matrix((values, indices, indptr), shape=(graph.num_nodes,) * 2)


def converged(operator: sp.csr_matrix, x_NF: np.ndarray) -> np.ndarray:
    """The whole series, float64."""

    def product(y_NF: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(operator @ y_NF.numpy())

    wide_NF = torch.from_numpy(x_NF.astype(np.float64))
    before_NF = torch.full_like(wide_NF, np.inf)
    for result_NF in conjugate_gradients(product, wide_NF, ALPHA):
        if float((result_NF - before_NF).abs().max()) < 1e-9:
            break
        before_NF = result_NF.clone()
    residual_NF = result_NF - (1 - ALPHA) * product(result_NF) - ALPHA * wide_NF
    assert float(residual_NF.abs().max()) < 1e-8, "the reference solves the equation"
    return result_NF.numpy()


def truncated(operator: sp.csr_matrix, x_NF: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum_l w_l S^l X, float64."""
    power_NF = x_NF.astype(np.float64)
    sum_NF = weights[0] * power_NF
    for weight in weights[1:]:
        power_NF = operator @ power_NF
        sum_NF += weight * power_NF
    return sum_NF
