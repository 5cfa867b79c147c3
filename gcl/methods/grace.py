"""GRACE: contrast of two corrupted views of the graph, exactly over all pairs of nodes."""

from typing import ClassVar

import torch
from torch import Tensor

from gcl.config import Config
from gcl.losses.contrastive import grace_loss
from gcl.losses.grouped import positive_similarity
from gcl.methods.base import Batch
from gcl.methods.configs.grace import GraceConfig, GraceSettings
from gcl.methods.graph_views import GraphViewsMethod, ProjectionHead, graph_of


class Grace(GraphViewsMethod):
    """GRACE, node-level contrast with every other node of both views a negative.

    Idea:
        Corrupt the graph twice by dropping edges and masking feature columns, encode both with one graph
        convolutional network, and ask each node to find itself in the other view among all nodes of both.

    Objective:
        With projections u, v, cosine scores s(a, b) = cos(a, b) / temperature, averaged over the nodes and
        both roles of the views::

            -log( e^s(u_i,v_i) / ( sum_k e^s(u_i,v_k) + sum_{k != i} e^s(u_i,u_k) ) )

        All 2N x 2N pairs count, streamed in blocks: memory is O(N D), see `gcl.losses.streaming`.

    Inputs:
        The graph with features; no labels. N = 1 is not defined. Without edges it is a contrast of masked
        features.

    Defaults and their source:
        Two layers of 2h and h units with relu, projection h, temperature .4, drop rates .2/.4 and .3/.4: the
        released settings for Cora, with h = 256 where they have 128; with Adam at 5e-4, weight decay 1e-5,
        200 epochs. Presets hold the released settings of Cora and CiteSeer.

    Deviations from paper:
        None known in the loss. All weights are Xavier-uniform with zero biases, where the released code has
        torch's default in the projection; prelu has a slope for each layer, not one for all. Above
        `max_exact_nodes` nodes, each step contrasts a random sample of nodes among themselves. The released
        code scales rows of features to sum 1: `normalise_input=l1`, in the presets.

    Reference:
        Zhu, Xu, Yu, Liu, Wu, Wang: Deep Graph Contrastive Representation Learning, arXiv 2006.04131 (2020);
        code CRIPAC-DIG/GRACE.
    """

    name = "grace"
    Config: ClassVar[type[Config]] = GraceConfig
    config: GraceSettings  # type: ignore[assignment]

    def __init__(
        self, config: GraceSettings, *, num_features: int, num_classes: int | None, seed: int
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        self.projector = ProjectionHead(config, config.embedding_size, self.init_generator)

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The loss over all pairs, or over those of the step's sample; watched: cosine of positives."""
        u_ND, v_ND = self.projected_views(batch, epoch=epoch, step=step, seed=seed)
        return {
            "loss": grace_loss(u_ND, v_ND, temperature=self.config.temperature),
            "positive_similarity": positive_similarity_of(u_ND, v_ND),
        }

    def projected_views(self, batch: Batch, *, epoch: int, step: int, seed: int) -> list[Tensor]:
        """Projections [N, D] of both views, or of the step's sample of nodes.

        Args:
            batch: one step's data.
            epoch: counter from 0.
            step: counter from 0 within the epoch.
            seed: run seed.
        """
        graph = graph_of(batch)
        nodes = self.sampled_nodes(graph.num_nodes, epoch=epoch, step=step, seed=seed)
        views = self.encode_views(graph, epoch=epoch, seed=seed)
        return [self.projector(z_ND if nodes is None else z_ND[nodes]) for z_ND in views]


def positive_similarity_of(u_ND: Tensor, v_ND: Tensor) -> Tensor:
    """Mean cosine of a node's two views, detached."""
    return positive_similarity(torch.stack([u_ND.detach(), v_ND.detach()]))
