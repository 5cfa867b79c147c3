"""GraphCL: contrast of whole graphs with augmented views of them, and hard negatives on the same base."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gcl.collection_augment import POLICIES, Strengths, augment, refuse_undefined, with_released_loops
from gcl.config import Config
from gcl.errors import NotDefined
from gcl.gin import GinEncoder, GraphBatch
from gcl.graph_collection import GraphCollection, check_values
from gcl.losses.affinity import affinity_loss
from gcl.losses.affinity_weights import KeptLogWeights, LogWeights
from gcl.losses.grouped import cosine_rows
from gcl.methods.base import (
    EMBED_ROWS,
    Batch,
    Method,
    PairWeights,
    TrainingData,
    evaluation,
    shuffled_batches,
)
from gcl.methods.configs.graphcl import FitStatistics, GraphClConfig, GraphClSettings
from gcl.methods.grace import positive_similarity_of
from gcl.methods.graph_views import xavier_linear
from gcl.random import numpy_generator, torch_generator

WeightsOf = Callable[[Tensor, Tensor], LogWeights | None]
"""Of projections [B, D] of anchors and of the other view: the log-weights of their pairs; None for 1."""
EMBED_GRAPHS = 256
"""Graphs embedded at a time, at most: large ones have hundreds of nodes each."""
FIT_BATCH = 128
"""Graphs whose moments normalise each other outside of training: a batch of training, as released."""


class GraphCl(Method):
    """GraphCL, graph-level contrast with the other graphs of a batch as negatives.

    Idea:
        Drop some nodes of each graph, or keep a small part of it, and ask the graph as it is to find this
        view of itself among those of all graphs of the batch: what survives is what the graph is about.

    Objective:
        With projections u of the graphs and v of their views, s_ij = cos(u_i, v_j) / temperature, the mean
        over the graphs i of a batch of::

            -log( e^s_ii / sum_{j != i} w_ij e^s_ij )

        one direction, the positive left out of the denominator (`denominator_includes_positive` puts it in).
        w = 1, or with `hardness` b > 0 the weights of HCL, w_ij = e^(b s_ij) over its mean over the
        negatives of i, through which no gradient passes. `augcl_graph` and `progcl_graph` have weights of
        their own on this very base; on a collection `method.name=augcl` means the first and `progcl` the
        second. They are classes of their own because what a method reads is declared by its configuration,
        before any data are opened, and because nearly all settings of the node-level methods (edge and
        column rates, convolutions, sampled anchors) say nothing about whole graphs, and the other way round.

    Inputs:
        A collection of graphs with node features; no labels. A single graph is not defined. Graphs without
        edges are embedded by the labels of their nodes.

    Defaults and their source:
        Three layers of 32 units, temperature .2, random2 with 10 % of the nodes dropped and parts of 20 %,
        Adam at .01, batches of 128, 20 epochs: the released code and run script. Presets hold the
        augmentations for each data set.

    Deviations from paper:
        Subgraphs are random walks, edges are dropped and added, masked features are zero, as the paper says;
        `bug_compat` has what the released code does, with its self-loops. The graphs are shuffled for every
        epoch, and a last batch of fewer than 32 is left out (`same_batches`: shuffled once, and all batches
        of two or more, as released). HCL's correction for false negatives is not there, and its weights are
        constants.

    Reference:
        You, Chen, Sui, Chen, Wang, Shen: Graph Contrastive Learning with Augmentations, NeurIPS 2020,
        arXiv 2010.13902; code Shen-Lab/GraphCL. Encoder: Xu et al., arXiv 1810.00826. Hard negatives:
        Robinson et al., arXiv 2010.04592.
    """

    name = "graphcl"
    Config: ClassVar[type[Config]] = GraphClConfig
    inputs = "collection"
    config: GraphClSettings

    def __init__(
        self, config: GraphClSettings, *, num_features: int, num_classes: int | None, seed: int
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        if num_features < 1:
            raise NotDefined(f"{self.name} needs node features: set dataset.node_features=constant or degree")
        self.config, self.num_features = config, num_features
        self.init_generator = torch_generator(seed, "init")
        size = config.embedding_size
        self.encoder = GinEncoder(
            num_features,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            generator=self.init_generator,
        )
        self.projector = nn.Sequential(
            xavier_linear(size, size, self.init_generator),
            nn.ReLU(),
            xavier_linear(size, size, self.init_generator),
        )

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The contrast of the batch; watched: mean cosine of positives."""
        u_BD, v_BD = self.projected_views(batch, epoch=epoch, step=step, seed=seed)
        return {
            "loss": self.contrast(u_BD, v_BD, self._hardness_weights),
            "positive_similarity": positive_similarity_of(u_BD, v_BD),
        }

    def projected_views(self, batch: Batch, *, epoch: int, step: int, seed: int) -> tuple[Tensor, Tensor]:
        """Projections [B, D] of the graphs of a batch and of their augmented views.

        Args:
            batch: one step's data.
            epoch: counter from 0.
            step: counter from 0 within the epoch.
            seed: run seed.
        """
        graphs = self._graphs(collection_of(batch), batch.rows_B.cpu().numpy())
        first, second = (self._augmented(graphs, seed, "augment", epoch, step, side) for side in (0, 1))
        if not self.config.fresh_view_both_sides:
            first = graphs
        return self.projected(first), self.projected(second)

    def projected(self, graphs: GraphCollection) -> Tensor:
        """Projections [G, D], with gradients where they are on.

        Args:
            graphs: with features.
        """
        projected_GD: Tensor = self.projector(self.encoder(GraphBatch.of(graphs, self.device)))
        return projected_GD

    def contrast(self, u_BD: Tensor, v_BD: Tensor, weights: WeightsOf) -> Tensor:
        """The loss of a batch, in one direction or the mean of both.

        Args:
            u_BD: float, projections of the anchors.
            v_BD: float, those of the other view.
            weights: of the views in either role: the log-weights of the pairs, or None for weights of 1.
        """
        roles = [(u_BD, v_BD), (v_BD, u_BD)] if self.config.both_directions else [(u_BD, v_BD)]
        losses = [
            affinity_loss(
                own_BD,
                other_BD,
                temperature=self.config.temperature,
                log_weights=weights(own_BD, other_BD),
                intra="none",
                positive_in_denominator=self.config.denominator_includes_positive,
            )
            for own_BD, other_BD in roles
        ]
        return torch.stack(losses).mean()

    def epoch_batches(
        self, data: TrainingData, *, epoch: int, seed: int, batch_size: int
    ) -> Iterator[Tensor]:
        """All graphs, shuffled for the epoch, or once for the run: then a short last batch is one too."""
        rows_G = np.arange(data.num_nodes)
        if not self.config.same_batches:
            return shuffled_batches(rows_G, epoch=epoch, seed=seed, batch_size=batch_size)
        # The same graphs would be left out of every epoch; one alone has no negatives.
        return shuffled_batches(rows_G, epoch=0, seed=seed, batch_size=batch_size, least=2)

    def embed(self, data: TrainingData, *, batch_size: int = EMBED_ROWS) -> np.ndarray:
        """float32 [G, D] sums over the nodes of all layers, of the graphs as they are, without projector.

        With `input_readout` [G, F + D], the sums of the features first.
        """
        return np.concatenate(
            [self._embedded(graphs) for _, graphs in self._blocks(collection_of(data), batch_size)]
        )

    def embed_view(
        self, data: TrainingData, *, view: int, seed: int, batch_size: int = EMBED_ROWS
    ) -> np.ndarray:
        """float32 [G, D] or [G, F + D] embeddings of one more augmented view of every graph."""
        return np.concatenate(
            [
                self._embedded(self._augmented(graphs, seed, "embed_view", view, first))
                for first, graphs in self._blocks(collection_of(data), batch_size)
            ]
        )

    def projections_of_all(
        self, data: TrainingData, statistics: FitStatistics = "running", *, seed: int = 0
    ) -> Tensor:
        """Projections [G, D] of unit length of the graphs as they are, on the device.

        Args:
            data: the collection.
            statistics: what normalises them: running moments, or those of random batches of `FIT_BATCH` or
                fewer, all of about one size; files are often sorted by class, and training shuffles.
            seed: run seed, of the batches.
        """
        collection = collection_of(data)
        with normalised_by(self, statistics), torch.no_grad():
            if statistics == "running":
                blocks = self._blocks(collection, EMBED_GRAPHS)
                return cosine_rows(torch.cat([self.projected(graphs) for _, graphs in blocks]))
            order_G = numpy_generator(seed, "projected_batches").permutation(data.num_nodes)
            parts = np.array_split(order_G, math.ceil(data.num_nodes / FIT_BATCH))
            shuffled_GD = torch.cat([self.projected(self._graphs(collection, rows)) for rows in parts])
            return cosine_rows(shuffled_GD[torch.from_numpy(np.argsort(order_G)).to(self.device)])

    def negative_weights(
        self, data: TrainingData, anchors_A: np.ndarray, candidates_AM: np.ndarray, *, seed: int
    ) -> PairWeights | None:
        """Weights by hardness of pairs of graphs as they are, relative to the mean over all; None without."""
        if self._hardness == 0:
            return None
        h_GD = self.projections_of_all(data)
        anchors = torch.from_numpy(anchors_A).to(self.device)
        similarity_AG = h_GD[anchors] @ h_GD.T
        log_weight_AG = _relative(self._hardness / self.config.temperature * similarity_AG, anchors)
        candidates = torch.from_numpy(candidates_AM).to(self.device)
        return pairs_of(similarity_AG, log_weight_AG.exp(), candidates)

    def notes(self, data: TrainingData) -> list[str]:
        """How a graph of the collection is embedded."""
        with_input = f"the {self.num_features} node features and " if self.config.input_readout else ""
        return [
            f"graph embeddings: node sums of {with_input}{self.config.num_layers} layers of "
            f"{self.config.hidden_size}, side by side, from {self.num_features} node features"
        ]

    def check(self, data: TrainingData) -> None:
        """Refuse what views and encoder are not defined for, beside what every method refuses.

        Raises:
            InvalidGraph: features that are not finite, or undirected graphs with an edge in one direction.
            NotDefined: directed graphs, or edge weights.
            ValueError: features of another width than the encoder's.
        """
        super().check(data)
        refuse_undefined(collection_of(data))
        check_values(collection_of(data))
        num_features = collection_of(data).union.num_features
        if num_features != self.num_features:
            raise ValueError(f"{self.name} was built for {self.num_features} columns, not {num_features}")

    @property
    def _hardness(self) -> float:
        return self.config.hardness if isinstance(self.config, GraphClConfig) else 0.0

    def _hardness_weights(self, own_BD: Tensor, other_BD: Tensor) -> LogWeights | None:
        if self._hardness == 0:
            return None
        with torch.no_grad(), torch.autocast(own_BD.device.type, enabled=False):
            score_BB = cosine_rows(own_BD.detach().float()) @ cosine_rows(other_BD.detach().float()).T
            anchors = torch.arange(len(own_BD), device=own_BD.device)
            return KeptLogWeights(_relative(self._hardness / self.config.temperature * score_BB, anchors))

    def _graphs(self, collection: GraphCollection, rows: np.ndarray) -> GraphCollection:
        graphs = collection.take(rows)
        return with_released_loops(graphs) if self.config.bug_compat else graphs

    def _augmented(self, graphs: GraphCollection, seed: int, purpose: str, *counters: int) -> GraphCollection:
        config = self.config
        return augment(
            graphs,
            POLICIES[config.augmentation],
            Strengths(
                node_drop=config.node_drop_rate,
                edge_perturb=config.edge_perturb_rate,
                attribute_mask=config.attribute_mask_rate,
                subgraph=config.subgraph_rate,
            ),
            numpy_generator(seed, purpose, *counters),
            bug_compat=config.bug_compat,
        )

    def _blocks(self, collection: GraphCollection, batch_size: int) -> Iterator[tuple[int, GraphCollection]]:
        """First number and graphs of consecutive blocks."""
        size = min(batch_size, EMBED_GRAPHS)
        for first in range(0, collection.num_graphs, size):
            rows = np.arange(first, min(first + size, collection.num_graphs))
            yield first, self._graphs(collection, rows)

    def _embedded(self, graphs: GraphCollection) -> np.ndarray:
        with evaluation(self), torch.no_grad():
            batch = GraphBatch.of(graphs, self.device)
            z_GD = self.encoder(batch)
            if self.config.input_readout:
                z_GD = torch.cat([batch.sums(batch.x_NF), z_GD], dim=1)
            z_GD = cosine_rows(z_GD) if self.config.output == "l2" else z_GD
            found: np.ndarray = z_GD.cpu().numpy()
            return found


@contextmanager
def normalised_by(module: nn.Module, statistics: FitStatistics) -> Iterator[None]:
    """Batch norm by running moments, or by those of what it is given, for a while; its buffers stay.

    Args:
        module: a method.
        statistics: "running", as embeddings are computed, or "batch", as in a training step.
    """
    if statistics == "running":
        with evaluation(module):
            yield
        return
    was_training, kept = module.training, [buffer.clone() for buffer in module.buffers()]
    module.train()
    try:
        yield
    finally:
        module.train(was_training)
        for buffer, before in zip(module.buffers(), kept, strict=True):
            buffer.copy_(before)


def collection_of(data: TrainingData | Batch) -> GraphCollection:
    """The collection of the data.

    Raises:
        ValueError: there is none.
    """
    if data.collection is None:
        raise ValueError("the method reads a collection of graphs, and none was given")
    return data.collection


def pairs_of(similarity_AG: Tensor, weight_AG: Tensor, candidates_AM: Tensor) -> PairWeights:
    """Of rows over all graphs, the entries of some candidates.

    Args:
        similarity_AG: float.
        weight_AG: float.
        candidates_AM: int64 graphs.
    """
    return PairWeights(
        similarity_AG.gather(1, candidates_AM).cpu().numpy(), weight_AG.gather(1, candidates_AM).cpu().numpy()
    )


def _relative(log_weight_AM: Tensor, anchors_A: Tensor) -> Tensor:
    """Logarithms of weights over their mean in the row, that of the anchor itself left out."""
    own_AM = torch.zeros_like(log_weight_AM, dtype=torch.bool)
    own_AM[torch.arange(len(anchors_A)), anchors_A] = True
    log_sum_A1 = log_weight_AM.masked_fill(own_AM, -torch.inf).logsumexp(1, keepdim=True)
    return log_weight_AM - (log_sum_A1 - math.log(log_weight_AM.shape[1] - 1))
