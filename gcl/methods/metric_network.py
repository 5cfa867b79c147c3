"""The network of NML-GCL's metric.

Legend: N nodes, D embedding, H hidden units, M width of the metric.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcl.graph_encoders import rrelu
from gcl.methods.configs.nml_gcl import NmlGclConfig
from gcl.methods.graph_views import xavier_linear


class MetricNetwork(nn.Module):
    """Linear - activation - Linear: the space whose cosines weigh the negatives."""

    def __init__(self, config: NmlGclConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = xavier_linear(config.embedding_size, config.metric_hidden_size, generator)
        self.output = xavier_linear(config.metric_hidden_size, config.metric_size, generator)
        self.activation = config.metric_activation

    def forward(self, z_ND: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Map embeddings, float [N, D], to rows of the metric, float [N, M].

        Args:
            z_ND: float, embeddings.
            generator: source of the slopes of rrelu, on the device; None takes their mean.
        """
        h_NH = self.hidden(z_ND)
        if self.activation == "rrelu":
            h_NH = rrelu(h_NH, generator)
        else:
            h_NH = functional.elu(h_NH) if self.activation == "elu" else functional.relu(h_NH)
        mapped_NM: Tensor = self.output(h_NH)
        return mapped_NM
