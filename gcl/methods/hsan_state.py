"""What HSAN carries from step to step beside its weights: the last refresh, and sums of gradients.

All of it is buffers, so checkpoints hold it and a resumed run is equal to an unbroken one.

Legend: N nodes.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gcl.losses.hsan import ViewPair

NamedParameters = Iterable[tuple[str, nn.Parameter]]


class HsanState(nn.Module):
    """The state of training, all on the device of the method.

    Attributes:
        has_refreshed: bool scalar, whether there was a refresh.
        is_pending: bool scalar, whether the weights of pairs of the last refresh were not computed yet.
        cluster_N: int64 clusters of the last refresh.
        is_confident_N: bool, nodes whose cluster is trusted.
    """

    has_refreshed: Tensor
    is_pending: Tensor
    cluster_N: Tensor
    is_confident_N: Tensor

    def __init__(
        self,
        parameters: NamedParameters,
        *,
        num_nodes: int,
        sums_gradients: bool,
        stale_pairs: Sequence[ViewPair],
    ) -> None:
        super().__init__()
        self.stale_pairs = tuple(stale_pairs)
        self.register_buffer("has_refreshed", torch.tensor(False))
        self.register_buffer("is_pending", torch.tensor(False))
        self.register_buffer("cluster_N", torch.zeros(num_nodes, dtype=torch.int64))
        self.register_buffer("is_confident_N", torch.zeros(num_nodes, dtype=torch.bool))
        self.names = []
        for name, parameter in parameters:
            self.names.append(name)
            self.register_buffer(_buffer("frozen", name), torch.zeros_like(parameter, requires_grad=False))
            if sums_gradients:
                zeros = torch.zeros_like(parameter, requires_grad=False)
                self.register_buffer(_buffer("gradient_sum", name), zeros)
        for pair in self.stale_pairs:
            self.register_buffer(_weight_buffer(pair), torch.ones(num_nodes, num_nodes))

    def refresh(self, parameters: NamedParameters, cluster_N: np.ndarray, is_confident_N: np.ndarray) -> None:
        """Take over a clustering, and a copy of the weights it was made with."""
        with torch.no_grad():
            self.cluster_N.copy_(torch.from_numpy(cluster_N.astype(np.int64)))
            self.is_confident_N.copy_(torch.from_numpy(is_confident_N))
            for name, parameter in parameters:
                self.get_buffer(_buffer("frozen", name)).copy_(parameter)
        self.has_refreshed.fill_(True)
        self.is_pending.fill_(True)

    def frozen_parameters(self) -> dict[str, Tensor]:
        """The weights of the last refresh, by the parameters' names."""
        return {name: self.get_buffer(_buffer("frozen", name)) for name in self.names}

    def sum_gradients(self, parameters: NamedParameters) -> None:
        """Add the gradients to the sums, and put the sums in their place."""
        for name, parameter in parameters:
            if parameter.grad is not None:
                total = self.get_buffer(_buffer("gradient_sum", name))
                total += parameter.grad
                parameter.grad.copy_(total)

    def stale_weights(self) -> dict[ViewPair, Tensor] | None:
        """Weights of pairs [N, N] that outlive a refresh, a pair of views; None where none do."""
        return {pair: self.get_buffer(_weight_buffer(pair)) for pair in self.stale_pairs} or None


def _buffer(kind: str, parameter: str) -> str:
    return f"{kind}_{parameter.replace('.', '_')}"


def _weight_buffer(pair: ViewPair) -> str:
    return f"weight_{pair[0]}{pair[1]}_NN"
