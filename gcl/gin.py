"""Graph isomorphism network over collections: sums over neighbours, perceptrons, sums over nodes.

Legend: G graphs, N nodes of all of them, F features, H hidden units, L layers, D = L H embedding.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from gcl.graph_collection import GraphCollection
from gcl.methods.graph_views import xavier_linear
from gcl.propagation import Propagation


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """A collection made ready for the encoder, on its device.

    Attributes:
        num_graphs: G.
        propagation: over the edges of all graphs.
        x_NF: float32 features.
        graph_N: int64 graph of each node, ascending.
    """

    num_graphs: int
    propagation: Propagation
    x_NF: Tensor
    graph_N: Tensor

    @classmethod
    def of(cls, collection: GraphCollection, device: torch.device | str = "cpu") -> "GraphBatch":
        """The collection, which has features.

        Args:
            collection: graphs.
            device: where the encoder is.

        Raises:
            ValueError: nodes without features.
        """
        x_NF = collection.union.x_NF
        if x_NF is None:
            raise ValueError("the nodes of the collection have no features")
        rows_NF = x_NF.toarray() if sp.issparse(x_NF) else x_NF
        return cls(
            collection.num_graphs,
            Propagation.from_graph(collection.union, device=str(device)),
            torch.from_numpy(np.ascontiguousarray(rows_NF, np.float32)).to(device),
            torch.from_numpy(np.asarray(collection.graph_N, np.int64)).to(device),
        )

    def sums(self, h_NH: Tensor) -> Tensor:
        """[G, H] sums over the nodes of each graph, zeros for a graph without nodes.

        Args:
            h_NH: a row a node.
        """
        return h_NH.new_zeros(self.num_graphs, h_NH.shape[1]).index_add(0, self.graph_N, h_NH)


class GinEncoder(nn.Module):
    """Layers h' = BatchNorm(ReLU(MLP(h + sum of the neighbours' h))), MLP a linear, ReLU, linear.

    A graph's embedding is the sum over its nodes of every layer's output, side by side (Xu et al. 2019, as
    the released code of GraphCL has it). Weights are Xavier-uniform and biases zero.
    """

    def __init__(
        self, num_features: int, *, hidden_size: int, num_layers: int, generator: torch.Generator
    ) -> None:
        """Draw the weights.

        Args:
            num_features: F.
            hidden_size: H.
            num_layers: L.
            generator: CPU generator of the weights.
        """
        super().__init__()
        widths = [num_features, *[hidden_size] * (num_layers - 1)]
        self.mlps = nn.ModuleList(
            nn.Sequential(
                xavier_linear(width, hidden_size, generator),
                nn.ReLU(),
                xavier_linear(hidden_size, hidden_size, generator),
            )
            for width in widths
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden_size) for _ in widths)

    def forward(self, batch: GraphBatch) -> Tensor:
        """Embed graphs.

        Args:
            batch: graphs on the device of the encoder.

        Returns:
            float32 [G, L H]; zeros for a graph without nodes.
        """
        h_NH, pooled = batch.x_NF, []
        for mlp, norm in zip(self.mlps, self.norms, strict=True):
            with torch.autocast(h_NH.device.type, enabled=False):  # half precision is for products alone
                summed_NH = h_NH + batch.propagation.neighbour_sum(h_NH)
            out_NH = mlp(summed_NH)
            with torch.autocast(h_NH.device.type, enabled=False):
                h_NH = _normalised(norm, functional.relu(out_NH.float()))
                pooled.append(batch.sums(h_NH))
        return torch.cat(pooled, dim=1)


def _normalised(norm: nn.Module, h_NH: Tensor) -> Tensor:
    """Batch norm; a single node has no variance, so it is normalised by the running moments."""
    assert isinstance(norm, nn.BatchNorm1d)  # noqa: S101  what the encoder is made of
    if len(h_NH) > 1 or not norm.training:
        normalised: Tensor = norm(h_NH)
        return normalised
    return functional.batch_norm(
        h_NH, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
    )
