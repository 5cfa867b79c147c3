"""Heterogeneous graph attention (HAN): attention over the neighbours of each metapath, then over metapaths.

Legend: N nodes, M metapaths, F features or width of a layer's input, K heads, d width of a head, D = K d.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gcl.dropout import Dropout
from gcl.han_attention import Neighbours, attend

SEMANTIC_SIZE = 128
"""Width of the hidden layer that weighs metapaths."""


class HanLayer(nn.Module):
    """One layer: a graph attention network a metapath, and a weighted sum of them (Wang et al. 2019).

    With U = H W_m a head, e_ij = leaky_relu(a_l.U_i + a_r.U_j) over the neighbours j of i by metapath m, and
    w_m = mean_i q.tanh(W_s O_i^m + b)::

        O_i^m = act( sum_j softmax_j(e_ij) U_j + bias ),    output = sum_m softmax_m(w_m) O^m

    Weights of both kinds are drawn as dgl's GATConv draws them: Xavier-normal with gain sqrt(2).

    Attributes:
        size: D, width of the output.
    """

    def __init__(
        self,
        in_size: int,
        head_size: int,
        *,
        num_metapaths: int,
        num_heads: int,
        is_activated: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.num_heads, self.head_size, self.size = num_heads, head_size, num_heads * head_size

        def drawn(rows: int, columns: int, *shape: int) -> nn.Parameter:
            spread = (4.0 / (rows + columns)) ** 0.5
            return nn.Parameter(torch.empty(*shape).normal_(0, spread, generator=generator))

        each = range(num_metapaths)
        self.weights = nn.ParameterList(drawn(in_size, self.size, in_size, self.size) for _ in each)
        self.lefts, self.rights = (
            nn.ParameterList(drawn(self.size, head_size, num_heads, head_size) for _ in each)
            for _ in range(2)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(self.size)) for _ in each)
        self.slope = nn.Parameter(torch.full((1,), 0.25)) if is_activated else None
        self.semantic = SemanticAttention(self.size, generator) if num_metapaths > 1 else None

    def forward(
        self,
        h_NF: Tensor,
        neighbours: Sequence[Neighbours],
        *,
        feature_dropout: Dropout | None = None,
        attention_dropout: Dropout | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Output float32 [N, D], and the metapaths' weights [M], which sum to 1.

        Args:
            h_NF: float32 input.
            neighbours: of each metapath.
            feature_dropout: of input entries, drawn for each metapath; None in evaluation.
            attention_dropout: of single attention weights; None in evaluation.
        """
        sums = []
        for m, of_metapath in enumerate(neighbours):
            value_ND = _dropped_product(h_NF, self.weights[m], feature_dropout, m)
            value_NKd = value_ND.view(len(h_NF), self.num_heads, self.head_size)
            with torch.autocast(h_NF.device.type, enabled=False):
                # As one product: einsum would copy the values, and keep the copies.
                vectors = [_block_diagonal(kind[m]) for kind in (self.lefts, self.rights)]
                left_NK, right_NK = (value_ND.float() @ torch.cat(vectors, dim=1)).chunk(2, dim=1)
                dropout = attention_dropout and attention_dropout.numbered(m)
                sums.append(attend(of_metapath, value_NKd, left_NK, right_NK, dropout))
        if not torch.is_grad_enabled():
            return self._join(*sums)
        # What follows is cheap and would keep three arrays of N x D a metapath, so it is computed again.
        joined: tuple[Tensor, Tensor] = checkpoint(
            self._join, *sums, use_reentrant=False, preserve_rng_state=False
        )
        return joined

    def _join(self, *sums: Tensor) -> tuple[Tensor, Tensor]:
        """Bias and activation, and the metapaths' weighted sum."""
        outputs = []
        for summed_NKd, bias_D in zip(sums, self.biases, strict=True):
            out_ND = summed_NKd.float().flatten(1) + bias_D
            outputs.append(out_ND if self.slope is None else functional.prelu(out_ND, self.slope))
        if self.semantic is None:
            return outputs[0], torch.ones(1, device=outputs[0].device)
        share_M = self.semantic(outputs)
        total_ND = outputs[0] * share_M[0]
        for out_ND, share in zip(outputs[1:], share_M[1:], strict=True):
            total_ND = torch.addcmul(total_ND, out_ND, share)
        return total_ND, share_M


class SemanticAttention(nn.Module):
    """How much each metapath counts: softmax over metapaths of mean_i q.tanh(W_s O_i + b)."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__()
        limit = (6.0 / (size + SEMANTIC_SIZE)) ** 0.5
        self.weight = nn.Parameter(
            torch.empty(SEMANTIC_SIZE, size).uniform_(-limit, limit, generator=generator)
        )
        self.bias = nn.Parameter(torch.zeros(SEMANTIC_SIZE))
        limit = (6.0 / (1 + SEMANTIC_SIZE)) ** 0.5
        self.query = nn.Parameter(torch.empty(SEMANTIC_SIZE).uniform_(-limit, limit, generator=generator))

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """float32 [M] weights that sum to 1.

        Args:
            outputs: float32 [N, D] of each metapath.
        """
        scores = [
            (functional.linear(out_ND, self.weight, self.bias).float().tanh() @ self.query).float().mean()
            for out_ND in outputs
        ]
        return torch.stack(scores).softmax(dim=0)


class HanEncoder(nn.Module):
    """HAN layers on top of each other, all of one width and each activated."""

    def __init__(
        self,
        num_features: int,
        head_size: int,
        *,
        num_layers: int,
        num_metapaths: int,
        num_heads: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        widths = [num_features] + [num_heads * head_size] * (num_layers - 1)
        self.layers = nn.ModuleList(
            HanLayer(
                width,
                head_size,
                num_metapaths=num_metapaths,
                num_heads=num_heads,
                is_activated=True,
                generator=generator,
            )
            for width in widths
        )

    def forward(
        self,
        x_NF: Tensor,
        neighbours: Sequence[Neighbours],
        *,
        feature_dropout: Dropout | None = None,
        attention_dropout: Dropout | None = None,
    ) -> Tensor:
        """float32 [N, D]; arguments as of `HanLayer.forward`, draws differing by layer."""
        h_ND, _ = self.with_shares(
            x_NF, neighbours, feature_dropout=feature_dropout, attention_dropout=attention_dropout
        )
        return h_ND

    def with_shares(
        self,
        x_NF: Tensor,
        neighbours: Sequence[Neighbours],
        *,
        feature_dropout: Dropout | None = None,
        attention_dropout: Dropout | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The same, and the metapaths' weights [M] in each layer."""
        h_ND, shares = x_NF, []
        for number, layer in enumerate(self.layers):
            h_ND, share_M = layer(
                h_ND,
                neighbours,
                feature_dropout=feature_dropout and feature_dropout.numbered(number),
                attention_dropout=attention_dropout and attention_dropout.numbered(number),
            )
            shares.append(share_M)
        return h_ND, shares


def _block_diagonal(vector_Kd: Tensor) -> Tensor:
    """[K d, K] whose column k holds vector k in the rows of head k."""
    num_heads, head_size = vector_Kd.shape
    own_DK = torch.eye(num_heads, device=vector_Kd.device).repeat_interleave(head_size, dim=0)
    return own_DK * vector_Kd.reshape(-1, 1)


def _dropped_product(h_NF: Tensor, weight_FD: Tensor, dropout: Dropout | None, number: int) -> Tensor:
    """dropout(H) W in the precision of products."""
    device = h_NF.device.type
    is_half = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_half else h_NF.dtype
    if dropout is None or not dropout.levels:
        return h_NF.to(dtype) @ weight_FD.to(dtype)
    product: Tensor = _DroppedProduct.apply(h_NF, weight_FD, dropout.numbered(number), dtype)  # type: ignore[no-untyped-call]
    return product


class _DroppedProduct(torch.autograd.Function):
    """dropout(H) W that keeps H alone for the backward pass, not a dropped copy for each metapath."""

    @staticmethod
    def forward(ctx: Any, h_NF: Tensor, weight_FD: Tensor, dropout: Dropout, dtype: torch.dtype) -> Tensor:
        ctx.dropout, ctx.dtype = dropout, dtype
        ctx.save_for_backward(h_NF, weight_FD)
        return _dropped(h_NF, dropout).to(dtype) @ weight_FD.to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        h_NF, weight_FD = ctx.saved_tensors
        gradient_ND = gradients[0].to(ctx.dtype)
        of_weight = (_dropped(h_NF, ctx.dropout).to(ctx.dtype).T @ gradient_ND).to(weight_FD.dtype)
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None, None
        of_h = _dropped((gradient_ND @ weight_FD.to(ctx.dtype).T).to(h_NF.dtype), ctx.dropout)
        return of_h, of_weight, None, None


def _dropped(h_NF: Tensor, dropout: Dropout) -> Tensor:
    kept_NF = dropout.kept(tuple(h_NF.shape), dropout.generator(h_NF.device))
    return (h_NF * kept_NF.to(h_NF.dtype)).mul_(dropout.scale)
