"""What the methods on two views of the graph share: encoder, views, embedding. The losses are theirs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from gcl.config import Config
from gcl.errors import NotDefined
from gcl.graph import Graph
from gcl.graph_augment import GraphView, draw_view
from gcl.graph_encoders import GcnEncoder, NodeFeatures
from gcl.losses.grouped import cosine_rows
from gcl.methods.base import EMBED_ROWS, Batch, Method, PairWeights, TrainingData, TrainingSize, evaluation
from gcl.methods.configs.graphs import GraphEncoderConfig, GraphViewConfig, NegativesConfig, ProjectionConfig
from gcl.propagation import Propagation
from gcl.random import torch_generator

WeightsOf = Callable[[Tensor], Tensor]
"""Of anchors of the first view, int64 [A]: their weights over the nodes of the second, [A, N], near 1."""
WEIGHED_ANCHORS, WEIGHED_PAIRS = 256, 1 << 24
"""Anchors whose weights over all nodes are held at once: at most so many, as few as have so many pairs."""

_COPIES = 4  # of encodings: values, gradients, what is kept between


class GraphMethodConfig(GraphEncoderConfig, GraphViewConfig, NegativesConfig):
    """What `GraphViewsMethod` asks of a method's settings."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A graph made ready for the encoder; kept, because every epoch needs it."""

    graph: Graph
    device: torch.device
    features: NodeFeatures
    propagation: Propagation


class GraphViewsMethod(Method):
    """A method whose encoder reads the whole graph, and whose loss compares two views of it.

    An epoch is one step over all nodes, unless the method says otherwise.
    """

    inputs = "graph"
    config: GraphMethodConfig

    def __init__(self, config: Config, *, num_features: int, num_classes: int | None, seed: int) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        if num_features < 1:
            raise NotDefined(
                f"{self.name} needs node features, and the graph has none: give it some, or take a method on "
                "smoothed rows, such as dmat_i with smooth.features=degree"
            )
        self.config = config  # type: ignore[assignment]
        self.num_features, self.num_classes = num_features, num_classes
        self.init_generator = torch_generator(seed, "init")
        self.encoder = GcnEncoder(self.config, num_features, self.init_generator)
        self._prepared: _Prepared | None = None
        self._views: tuple[tuple[int, int], list[GraphView]] | None = None

    @classmethod
    def memory_estimate(cls, config: Config, size: TrainingSize) -> dict[str, int]:
        """Two views of the graph, and what the encoder keeps of every node for the backward pass."""
        assert isinstance(config, GraphEncoderConfig)  # noqa: S101  what `Config` is here
        width = config.hidden_size + 2 * config.embedding_size
        return {
            "the graph and its views": 3 * 12 * (size.num_edges + size.num_nodes),
            "features": 4 * size.num_nodes * size.num_features,
            "encodings": 4 * 2 * _COPIES * size.num_nodes * width,
        }

    def views(self, graph: Graph, *, epoch: int, seed: int) -> list[GraphView]:
        """The two views of an epoch, the same for each of its steps.

        Args:
            graph: what they are views of.
            epoch: counter from 0.
            seed: run seed.
        """
        self._ready(graph)  # forgets the views of another graph
        if self._views is None or self._views[0] != (epoch, seed):
            views = [self._draw(graph, torch_generator(seed, "augment", epoch, v), v) for v in (0, 1)]
            self._views = ((epoch, seed), views)
        return self._views[1]

    def encode(self, graph: Graph, view: GraphView, generator: torch.Generator | None = None) -> Tensor:
        """float32 [N, D] embeddings of a view, with gradients.

        Args:
            graph: what `view` is a view of.
            view: edges and columns left.
            generator: source of the slopes of rrelu, on the device; None for evaluation.
        """
        z_ND: Tensor = self.encoder(
            self._ready(graph).features, view.propagation, keep_F=view.keep_F, generator=generator
        )
        return z_ND

    def encode_views(self, graph: Graph, *, epoch: int, seed: int) -> list[Tensor]:
        """Embeddings [N, D] of the two views of an epoch, with gradients.

        Args:
            graph: the graph.
            epoch: counter from 0.
            seed: run seed.
        """
        return [
            self.encode(graph, view, self.generator(seed, "rrelu", epoch, number))
            for number, view in enumerate(self.views(graph, epoch=epoch, seed=seed))
        ]

    def sampled_nodes(self, num_nodes: int, *, epoch: int, step: int, seed: int) -> Tensor | None:
        """Nodes that a step contrasts, int64 on the device; None for all of them.

        Args:
            num_nodes: N.
            epoch: counter from 0.
            step: counter from 0.
            seed: run seed.
        """
        if num_nodes <= self.config.max_exact_nodes:
            return None
        draws = torch_generator(seed, "negatives", epoch, step)
        return torch.randperm(num_nodes, generator=draws)[: self.config.num_sampled_nodes].to(self.device)

    def notes(self, data: TrainingData) -> list[str]:
        """Whether negatives are sampled."""
        if data.num_nodes <= self.config.max_exact_nodes:
            return []
        sample = min(self.config.num_sampled_nodes, data.num_nodes)
        return [
            f"negatives: {sample:,} of {data.num_nodes:,} nodes a step, drawn anew; the exact loss is taken "
            f"up to method.max_exact_nodes={self.config.max_exact_nodes:,}"
        ]

    def epoch_batches(
        self, data: TrainingData, *, epoch: int, seed: int, batch_size: int
    ) -> Iterator[Tensor]:
        """One batch of all nodes, in order; the batch size plays no part."""
        yield torch.arange(data.num_nodes)

    def embed(self, data: TrainingData, *, batch_size: int = EMBED_ROWS) -> np.ndarray:
        """float32 [N, D] embeddings of the unaugmented graph, without projector, rrelu at its mean."""
        graph = graph_of(data)
        ready = self._ready(graph)
        return self._embed(graph, GraphView(ready.propagation, None))

    def embed_view(
        self, data: TrainingData, *, view: int, seed: int, batch_size: int = EMBED_ROWS
    ) -> np.ndarray:
        """float32 [N, D] embeddings of one more view; even numbers are drawn like the first of training."""
        graph = graph_of(data)
        return self._embed(graph, self._draw(graph, torch_generator(seed, "embed_view", view), view % 2))

    def weigh_in_fresh_views(
        self,
        graph: Graph,
        anchors_A: np.ndarray,
        candidates_AM: np.ndarray,
        weighing: Callable[[Tensor, Tensor], WeightsOf],
        *,
        seed: int,
        project: Callable[[Tensor], Tensor] | None = None,
    ) -> PairWeights:
        """Weights and cosines of pairs, anchors in one fresh view and candidates in another.

        A weight may rest on all nodes, so each anchor costs O(N), and memory is O(N) for a few at a time.

        Args:
            graph: what was trained on.
            anchors_A: int64 nodes.
            candidates_AM: int64 nodes, M for each anchor.
            weighing: of the rows [N, D] of both views, without gradients: how anchors weigh the nodes.
            seed: run seed.
            project: what the loss reads of embeddings; None for the embeddings.
        """
        found = PairWeights(
            np.empty(candidates_AM.shape, np.float32), np.empty(candidates_AM.shape, np.float32)
        )
        num_anchors = max(1, min(WEIGHED_ANCHORS, WEIGHED_PAIRS // graph.num_nodes))
        with evaluation(self), torch.no_grad():
            views = [self._draw(graph, torch_generator(seed, "negative_weights", v), v) for v in (0, 1)]
            rows = [self.encode(graph, view) for view in views]
            u_ND, v_ND = rows if project is None else map(project, rows)
            weights_of = weighing(u_ND, v_ND)
            u_ND, v_ND = cosine_rows(u_ND), cosine_rows(v_ND)
            for first in range(0, len(anchors_A), num_anchors):
                part = slice(first, first + num_anchors)
                anchors = torch.from_numpy(anchors_A[part]).to(self.device)
                candidates = torch.from_numpy(candidates_AM[part]).to(self.device)
                found.weight_AM[part] = weights_of(anchors).gather(1, candidates).cpu().numpy()
                cosine_AN = u_ND[anchors] @ v_ND.T
                found.similarity_AM[part] = cosine_AN.gather(1, candidates).cpu().numpy()
        return found

    def check(self, data: TrainingData) -> None:
        """Refuse features of another width than the encoder's, beside what every method refuses."""
        super().check(data)
        num_features = graph_of(data).num_features
        if num_features != self.num_features:
            raise ValueError(f"{self.name} was built for {self.num_features} columns, not {num_features}")

    def generator(self, seed: int, purpose: str, *counters: int) -> torch.Generator:
        """A generator on the method's device."""
        return torch_generator(seed, purpose, *counters, device=str(self.device))

    def _draw(self, graph: Graph, generator: torch.Generator, number: int) -> GraphView:
        return draw_view(
            graph,
            edge_drop_rate=self.config.edge_drop_rates[number],
            feature_mask_rate=self.config.feature_mask_rates[number],
            both_directions=self.config.drop_both_directions,
            generator=generator,
            device=str(self.device),
        )

    def _embed(self, graph: Graph, view: GraphView) -> np.ndarray:
        with evaluation(self), torch.no_grad():
            z_ND = self.encode(graph, view)
            z_ND = cosine_rows(z_ND) if self.config.output == "l2" else z_ND
            return z_ND.cpu().numpy()

    def _ready(self, graph: Graph) -> _Prepared:
        known = self._prepared
        if known is None or known.graph is not graph or known.device != self.device:
            known = _Prepared(
                graph,
                self.device,
                NodeFeatures(graph, normalise=self.config.normalise_input, device=self.device),
                Propagation.from_graph(graph, self_loops=True, device=str(self.device)),
            )
            self._prepared, self._views = known, None
        return known


class ProjectionHead(nn.Module):
    """Linear - ELU - Linear between embedding and loss (GRACE); Xavier-uniform weights, zero biases."""

    def __init__(self, config: ProjectionConfig, embedding_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layers: nn.Module = nn.Identity()
        self.size = embedding_size
        if config.projector == "mlp":
            self.size = config.projection_size
            self.layers = nn.Sequential(
                xavier_linear(embedding_size, self.size, generator),
                nn.ELU(),
                xavier_linear(self.size, embedding_size, generator),
            )

    def forward(self, z_ND: Tensor) -> Tensor:
        """Project embeddings."""
        projected: Tensor = self.layers(z_ND)
        return projected


def xavier_linear(in_size: int, out_size: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with Xavier-uniform weights and zero bias, drawn from `generator` alone."""
    layer: nn.Linear = skip_init(nn.Linear, in_size, out_size)  # type: ignore[no-untyped-call]
    limit = (6.0 / (in_size + out_size)) ** 0.5
    with torch.no_grad():
        layer.weight.uniform_(-limit, limit, generator=generator)
        layer.bias.zero_()
    return layer


def graph_of(data: TrainingData | Batch) -> Graph:
    """The graph of the data.

    Raises:
        ValueError: there is none.
    """
    if data.graph is None:
        raise ValueError("the method reads the graph, and none was given")
    return data.graph
