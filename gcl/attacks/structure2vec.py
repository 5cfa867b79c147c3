"""structure2vec in its mean-field form: the classifier of graphs that is attacked, and the attacker's eyes.

Dai et al., Discriminative Embeddings of Latent Variable Models for Structured Data (ICML 2016).

Shape legend: B graphs, N places for nodes, F features, D embedding, C classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Structure2Vec(nn.Module):
    """Rounds of messages with one shared weight: h <- relu(W2 (A h) + W1 x), h0 = relu(W1 x).

    W1 and W2 have no bias: a constant feature makes W1 x one, and places without a node, whose features are
    zero, stay zero through all rounds, so that padding needs no mask.

    Args:
        num_features: F.
        embedding_size: D.
        num_rounds: K, rounds of messages.
        generator: CPU generator of the initial weights.
    """

    def __init__(
        self, num_features: int, *, embedding_size: int, num_rounds: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.num_rounds = num_rounds
        self.own_FD = _glorot(num_features, embedding_size, generator)
        self.message_DD = _glorot(embedding_size, embedding_size, generator)

    def nodes(self, adjacency_BNN: Tensor, x_BNF: Tensor) -> Tensor:
        """Embeddings of nodes [B, N, D]; zero in empty places.

        Args:
            adjacency_BNN: float; entry (u, v) weighs the message from v to u.
            x_BNF: float features of the nodes, zero in empty places.
        """
        own_BND = x_BNF @ self.own_FD
        h_BND = functional.relu(own_BND)
        for _ in range(self.num_rounds):
            h_BND = functional.relu(torch.bmm(adjacency_BNN, h_BND) @ self.message_DD + own_BND)
        return h_BND

    def forward(self, adjacency_BNN: Tensor, x_BNF: Tensor) -> Tensor:
        """Embeddings of graphs [B, D]: relu of the sum over nodes; arguments as of `nodes`."""
        return pooled(self.nodes(adjacency_BNN, x_BNF))


class GraphClassifier(nn.Module):
    """structure2vec, then linear, relu, linear: scores of classes.

    Args:
        embedding_size: D.
        num_rounds: K.
        hidden_size: units between embedding and scores.
        num_classes: C.
        generator: CPU generator of the initial weights.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        num_rounds: int,
        hidden_size: int,
        num_classes: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder = Structure2Vec(
            1, embedding_size=embedding_size, num_rounds=num_rounds, generator=generator
        )
        self.scores = two_layers(embedding_size, hidden_size, num_classes, generator)

    def forward(self, adjacency_BNN: Tensor, x_BN1: Tensor) -> Tensor:
        """Logits [B, C]; arguments as of `Structure2Vec.nodes`."""
        logit_BC: Tensor = self.scores(self.encoder(adjacency_BNN, x_BN1))
        return logit_BC


def pooled(h_BND: Tensor) -> Tensor:
    """Sum over nodes, then relu: [B, D]."""
    return functional.relu(h_BND.sum(1))


def two_layers(in_size: int, hidden_size: int, out_size: int, generator: torch.Generator) -> nn.Sequential:
    """Linear, relu, linear with Glorot-uniform weights and zero biases.

    Args:
        in_size: width of the input.
        hidden_size: units between.
        out_size: width of the output.
        generator: CPU generator of the weights.
    """
    first, second = _linear(in_size, hidden_size, generator), _linear(hidden_size, out_size, generator)
    return nn.Sequential(first, nn.ReLU(), second)


def _linear(in_size: int, out_size: int, generator: torch.Generator) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, in_size, out_size)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        layer.weight.copy_(_glorot(in_size, out_size, generator).T)
        layer.bias.zero_()
    return layer


def _glorot(in_size: int, out_size: int, generator: torch.Generator) -> nn.Parameter:
    limit = (6 / (in_size + out_size)) ** 0.5
    return nn.Parameter(torch.empty(in_size, out_size).uniform_(-limit, limit, generator=generator))
