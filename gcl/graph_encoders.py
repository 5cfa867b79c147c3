"""Encoders of the whole graph: graph convolutions on `gcl.propagation`, sparse or dense features.

Legend: N nodes, F features, H hidden units, D embedding.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from gcl.feature_rows import FeatureRows, standardised
from gcl.features import normalise_rows
from gcl.graph import Graph
from gcl.methods.configs.graphs import GraphEncoderConfig
from gcl.propagation import Propagation

RRELU_LOWER, RRELU_UPPER = 1 / 8, 1 / 3


class NodeFeatures:
    """The features of all nodes as a factor of products: X W, with gradients for W alone.

    A sparse matrix stays sparse: word counts are 1 % full, so the product costs 1 % of a dense one.

    Attributes:
        num_nodes: N.
        num_features: F.
    """

    def __init__(self, graph: Graph, *, normalise: str = "none", device: torch.device | str = "cpu") -> None:
        """Take the features of `graph`, which must have some, to `device`; rows or columns normalised."""
        if graph.x_NF is None:
            raise ValueError("the graph has no features")
        if normalise == "columns":
            x_NF = standardised(FeatureRows.of(graph.x_NF)).whole()
        else:
            x_NF = normalise_rows(graph.x_NF, normalise)  # type: ignore[arg-type]
        self.num_nodes, self.num_features = x_NF.shape
        self.is_sparse = isinstance(x_NF, sp.csr_matrix)
        if isinstance(x_NF, sp.csr_matrix):
            self._x_NF = _csr_tensor(x_NF).to(device)
            self._x_FN = _csr_tensor(sp.csr_matrix(x_NF.T)).to(device)
        else:
            self._x_NF = torch.from_numpy(np.ascontiguousarray(x_NF, np.float32)).to(device)

    def times(self, weight_FH: Tensor) -> Tensor:
        """X W.

        Args:
            weight_FH: float32 or float64, on the device of the features.
        """
        if not self.is_sparse:
            return self._x_NF.to(weight_FH.dtype) @ weight_FH
        with torch.autocast(weight_FH.device.type, enabled=False):  # sparse products have no half precision
            product: Tensor = _SparseProduct.apply(weight_FH, self._x_NF, self._x_FN)  # type: ignore[no-untyped-call]
        return product


class _SparseProduct(torch.autograd.Function):
    """X W for a constant sparse X; the gradient is a product with the transpose kept beside it."""

    @staticmethod
    def forward(ctx: Any, weight_FH: Tensor, x_NF: Tensor, x_FN: Tensor) -> Tensor:
        ctx.x_FN = x_FN
        return x_NF.to(weight_FH.dtype) @ weight_FH

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient_NH,) = grad_outputs
        return ctx.x_FN.to(gradient_NH.dtype) @ gradient_NH.contiguous(), None, None


class GcnEncoder(nn.Module):
    """Graph convolutions H' = act(S H W + b) with S = D^-1/2 (A + I) D^-1/2 (Kipf and Welling 2017).

    Weights are Xavier-uniform and biases zero, as in the released codes of the methods that use it.
    """

    def __init__(self, config: GraphEncoderConfig, num_features: int, generator: torch.Generator) -> None:
        super().__init__()
        inner = [config.hidden_size] * (config.num_layers - 1)
        widths = [num_features, *inner, config.embedding_size]
        self.weights = nn.ParameterList(
            _xavier(first, second, generator) for first, second in zip(widths[:-1], widths[1:], strict=True)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths[1:])
        num_slopes = config.num_layers if config.activate_last else config.num_layers - 1
        self.slopes = nn.ParameterList(
            nn.Parameter(torch.full((1,), 0.25))
            for _ in range(num_slopes if config.activation == "prelu" else 0)
        )
        self.activation, self.activate_last = config.activation, config.activate_last

    def forward(
        self,
        features: NodeFeatures,
        propagation: Propagation,
        *,
        keep_F: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Embed all nodes.

        Args:
            features: X.
            propagation: A + I.
            keep_F: float, 0 for a masked feature column and 1 for the others; None masks none.
            generator: source of the slopes of rrelu; None takes their mean, as in evaluation.

        Returns:
            float32 [N, D].
        """
        last = len(self.weights) - 1
        h_NH = torch.empty(0)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer == 0:
                # Masking a column of X is masking a row of W, which leaves a sparse X as it is.
                product = features.times(weight if keep_F is None else weight * keep_F[:, None])
            else:
                product = h_NH @ weight
            with torch.autocast(product.device.type, enabled=False):  # half precision is for products alone
                h_NH = propagation.propagate(product.float(), convolution=0.5) + bias
                if layer < last or self.activate_last:
                    h_NH = self._activate(h_NH, layer, generator)
        return h_NH

    def _activate(self, h_NH: Tensor, layer: int, generator: torch.Generator | None) -> Tensor:
        if self.activation == "prelu":
            return functional.prelu(h_NH, self.slopes[layer])
        if self.activation == "rrelu":
            return rrelu(h_NH, generator)
        return functional.elu(h_NH) if self.activation == "elu" else functional.relu(h_NH)


def rrelu(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Leaky ReLU whose negative slopes are uniform in [1/8, 1/3], or their mean without a generator.

    torch's own draws from the global generator, so a resumed run would differ from an unbroken one.

    Args:
        x: float, any shape.
        generator: source of the slopes, on the device of `x`; None for evaluation.
    """
    if generator is None:
        return functional.leaky_relu(x, (RRELU_LOWER + RRELU_UPPER) / 2)
    slope = torch.rand(x.shape, generator=generator, device=x.device)
    slope = slope * (RRELU_UPPER - RRELU_LOWER) + RRELU_LOWER
    return x * slope.masked_fill_(x >= 0, 1.0)


def _xavier(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    limit = (6.0 / (rows + columns)) ** 0.5
    return nn.Parameter(torch.empty(rows, columns).uniform_(-limit, limit, generator=generator))


def _csr_tensor(matrix: sp.csr_matrix) -> Tensor:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR support a beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
            check_invariants=False,
        )
