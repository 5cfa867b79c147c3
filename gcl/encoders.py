"""Encoders of smoothed rows: the graph entered in the filter, so a plain map of rows is all that is left."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from gcl.methods.configs.rows import RowEncoderConfig


class LinearEncoder(nn.Module):
    """One linear map, no batch norm: z = W x (+ b); the default on small graphs."""

    def __init__(
        self, num_features: int, embedding_size: int, *, bias: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.linear = linear_layer(num_features, embedding_size, bias=bias, generator=generator)

    def forward(self, x_BF: Tensor, dropout_generator: torch.Generator | None = None) -> Tensor:
        """Embed rows; there is no dropout to draw for.

        Args:
            x_BF: float32, rows.
            dropout_generator: ignored.

        Returns:
            float32 [B, D].
        """
        z_BD: Tensor = self.linear(x_BF)
        return z_BD


class MlpEncoder(nn.Module):
    """Linear - BatchNorm - PReLU or ReLU - Dropout - Linear; no bias before the batch norm."""

    def __init__(
        self,
        num_features: int,
        embedding_size: int,
        *,
        hidden_size: int,
        activation: str,
        dropout_rate: float,
        bias: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dropout_rate = dropout_rate
        self.hidden = linear_layer(num_features, hidden_size, bias=False, generator=generator)
        self.norm = nn.BatchNorm1d(hidden_size)
        self.activation = nn.PReLU() if activation == "prelu" else nn.ReLU()
        self.output = linear_layer(hidden_size, embedding_size, bias=bias, generator=generator)

    def forward(self, x_BF: Tensor, dropout_generator: torch.Generator | None = None) -> Tensor:
        """Embed rows; given a generator, the hidden layer drops units, in evaluation mode too.

        Args:
            x_BF: float32, rows.
            dropout_generator: source of the dropout, on the rows' device; None for no dropout.

        Returns:
            float32 [B, D].
        """
        h_BH = self.activation(self.norm(self.hidden(x_BF)))
        if self.dropout_rate > 0 and dropout_generator is not None:
            uniform_BH = torch.rand(h_BH.shape, generator=dropout_generator, device=h_BH.device)
            h_BH = h_BH * (uniform_BH >= self.dropout_rate) / (1.0 - self.dropout_rate)
        z_BD: Tensor = self.output(h_BH)
        return z_BD


def build_encoder(config: RowEncoderConfig, num_features: int, generator: torch.Generator) -> nn.Module:
    """The encoder that `config` describes, with weights drawn from `generator`.

    Args:
        config: the encoder fields of a method's configuration.
        num_features: F, width of the rows.
        generator: CPU generator of the initial weights.
    """
    if config.encoder == "linear":
        return LinearEncoder(num_features, config.embedding_size, bias=config.use_bias, generator=generator)
    return MlpEncoder(
        num_features,
        config.embedding_size,
        hidden_size=config.hidden_size,
        activation=config.activation,
        dropout_rate=config.dropout_rate,
        bias=config.use_bias,
        generator=generator,
    )


def build_projector(size: int, generator: torch.Generator) -> nn.Module:
    """Linear(D, D) - ReLU - Linear(D, D), for the loss alone."""
    return nn.Sequential(
        linear_layer(size, size, bias=True, generator=generator),
        nn.ReLU(),
        linear_layer(size, size, bias=True, generator=generator),
    )


def linear_layer(in_size: int, out_size: int, *, bias: bool, generator: torch.Generator) -> nn.Linear:
    """A linear layer whose weights are uniform in +-1/sqrt(in_size), torch's own default distribution.

    `skip_init` keeps the constructor from drawing from the global generator.
    """
    layer: nn.Linear = skip_init(nn.Linear, in_size, out_size, bias=bias)  # type: ignore[no-untyped-call]
    limit = 1.0 / math.sqrt(in_size)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-limit, limit, generator=generator)
    return layer
