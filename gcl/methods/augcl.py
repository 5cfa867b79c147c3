"""AUGCL: GRACE whose negatives weigh by how uncertain their affinity to the anchor is."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gcl.config import Config
from gcl.graph import Graph
from gcl.graph_augment import GraphView
from gcl.losses.affinity import affinity_loss
from gcl.losses.grouped import cosine_rows
from gcl.methods.affinity_estimation import WATCHED_ROWS, Views, weighted_share
from gcl.methods.affinity_weighted import AffinityWeighted, FitViews
from gcl.methods.base import Batch, PairWeights, TrainingData, evaluation
from gcl.methods.configs.augcl import AugclConfig
from gcl.methods.grace import Grace, positive_similarity_of
from gcl.methods.graph_views import graph_of
from gcl.random import torch_generator


class Augcl(AffinityWeighted, Grace):
    """AUGCL, contrast with negatives weighted by affinity uncertainty, on the encoder and views of GRACE.

    Idea:
        Part each anchor's similarities to all candidates in two by 2-means, its own kind and the rest. A
        candidate that could be of either group is an informative negative and is pushed harder; one that is
        plainly of the anchor's own kind, a false negative, may stay; so may one that is far already. Whether
        false negatives are plain is a matter of the graph: on Cora, after 60 epochs of which 30 weighted,
        nodes of the anchor's class weighed more than others (1.45 to .89 analytic, 1.03 to .96 gambler).

    Objective:
        With h = cosine / temperature and both roles of the views averaged, for anchor i of view a::

            -log( e^h(a_i,b_i) / ( e^h(a_i,b_i) + sum_{j!=i} w_ij ( e^h(a_i,b_j) + e^h(a_i,a_j) ) ) )

        w_ij = alpha_i u_ij, u_ij the uncertainty of the pair, alpha_i = alpha_scale / mean_j u_ij; no
        gradient passes through w. For the first `warmup_epochs` w = 1, which is GRACE to the last bit.
        A trained estimator is then fitted to the groups, on both views of fresh draws, and left as it is
        unless `refresh_every` is set. Its ideal is known in closed form (`gcl.gambler`), which `analytic`
        uses, with the posterior of two Gaussians a row in the place of a network, exact over all pairs.

    Inputs:
        The graph with features; no labels. N = 1 is not defined. Without edges it contrasts masked features.

    Defaults and their source:
        Encoder, views, temperature and training as `Grace`, the first 100 of its 200 epochs plain. Reward
        1.9, ten passes, Adam at .01, batches of 2048 pairs, two hidden layers of 128, alpha = 1/mu: the
        released code for graphs. The estimator is the analytic one: it is exact over all pairs, where a
        network would cost tens of times the step it weighs.

    Deviations from paper:
        The node level is not in the released code, and its body was not at hand: weights of intra-view
        negatives shared with the other view's, and the warm-up, follow what ProGCL's code does. A trained
        estimator weighs `num_anchors` anchors against `num_candidates` nodes a step, both drawn anew, not
        all pairs. It reads projections of unit length rather than raw ones, and has `pretrain_passes` of
        cross-entropy first, as Deep Gamblers advises for small rewards: without either it may end up
        abstaining on everything (on Cora it did). 2-means is exact.
        softmax and entropy read the same network trained with cross-entropy; the uncertainty that distance
        gives to the anchor's own group, which is nowhere stated, is the least of its row.

    Reference:
        Niu, Pang, Chen: Affinity Uncertainty-based Hard Negative Mining in Graph Contrastive Learning,
        arXiv 2301.13340, TNNLS (2024); code mala-lab/AUGCL. Deep Gamblers: Liu et al., arXiv 1907.00208.
    """

    name = "augcl"
    Config: ClassVar[type[Config]] = AugclConfig
    uniform_is = "augcl is grace"
    config: AugclConfig

    def __init__(self, config: AugclConfig, *, num_features: int, num_classes: int | None, seed: int) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        # A projection is as wide as an embedding, whatever the width between its layers.
        self._add_estimator(config.embedding_size, self.init_generator)

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """GRACE during the warm-up, the weighted loss after it; watched besides: the spread of the weights.

        `weighted_share` is the share of the negatives that would carry all weight if it were equal among
        them, see `gcl.methods.affinity_estimation`: 1 for uniform weights.
        """
        if epoch < self.config.warmup_epochs:
            terms = super().training_loss(batch, epoch=epoch, step=step, seed=seed)
            return {**terms, "weighted_share": torch.ones_like(terms["loss"])}
        u_MD, v_MD = self.projected_views(batch, epoch=epoch, step=step, seed=seed)
        num_anchors = len(u_MD) if self.estimator is None else min(len(u_MD), self.config.num_anchors)
        losses, shares = [], []
        for own_MD, other_MD in ((u_MD, v_MD), (v_MD, u_MD)):
            log_weights = self._weighing.log_weights(own_MD, other_MD, num_anchors)
            loss = affinity_loss(
                own_MD,
                other_MD,
                temperature=self.config.temperature,
                log_weights=log_weights,
                num_anchors=num_anchors,
                intra=self.config.intra,
                positive_in_denominator=self.config.denominator_includes_positive,
            )
            losses.append(loss)
            shares.append(weighted_share(log_weights, own_MD, other_MD, min(num_anchors, WATCHED_ROWS)))
        return {
            "loss": torch.stack(losses).mean(),
            "positive_similarity": positive_similarity_of(u_MD, v_MD),
            "weighted_share": torch.stack(shares).mean(),
        }

    def sampled_nodes(self, num_nodes: int, *, epoch: int, step: int, seed: int) -> Tensor | None:
        """Nodes that a step contrasts: under a trained estimator the candidates, the anchors first."""
        if self.estimator is None or epoch < self.config.warmup_epochs:
            return super().sampled_nodes(num_nodes, epoch=epoch, step=step, seed=seed)
        return self._candidates(num_nodes, torch_generator(seed, "negatives", epoch, step))

    def negative_weights(
        self, data: TrainingData, anchors_A: np.ndarray, candidates_AM: np.ndarray, *, seed: int
    ) -> PairWeights | None:
        """Weights of pairs of nodes by their unaugmented projections; None if the warm-up never ended.

        Groups and mean uncertainty of an anchor are taken over itself and all other nodes, above
        `max_exact_nodes` over a sample of them.
        """
        if not self._is_weighting:
            return None
        h_ND = self._projected(graph_of(data))
        anchors = torch.from_numpy(anchors_A).to(self.device)
        candidates = torch.from_numpy(candidates_AM).to(self.device)
        compared = self._compared_with(anchors, data.num_nodes, seed)
        similarity_AM, weight_AM = self._weighing.of_pairs(h_ND, anchors, candidates, compared)
        return PairWeights(similarity_AM.cpu().numpy(), weight_AM.cpu().numpy())

    def notes(self, data: TrainingData) -> list[str]:
        """What is sampled, and whether the weights ever played a part."""
        found = super().notes(data)
        if self._has_weighted and self.estimator is not None:
            num_candidates = min(self.config.num_candidates, data.num_nodes)
            found.append(
                f"weighted steps: {min(self.config.num_anchors, num_candidates):,} anchors against "
                f"{num_candidates:,} of {data.num_nodes:,} nodes, drawn anew, after "
                f"{self.config.warmup_epochs} epochs of all pairs"
            )
        return found

    def fit_views(self, data: TrainingData, *, epoch: int, seed: int) -> FitViews:
        """Groups of sampled anchors in fresh views of the graph; each pass swaps the roles."""
        graph, config = graph_of(data), self.config

        def views_of(number: int) -> Iterator[tuple[Views, torch.Generator]]:
            nodes = self._candidates(graph.num_nodes, torch_generator(seed, "fit_nodes", epoch, number))
            views = []
            with evaluation(self), torch.no_grad():
                for view in (0, 1):
                    drawn = self._draw(graph, torch_generator(seed, "fit_views", epoch, number, view), view)
                    views.append(cosine_rows(self.projector(self.encode(graph, drawn)[nodes])))
            own_MD, other_MD = views if number % 2 == 0 else views[::-1]
            order = torch_generator(seed, "fit_order", epoch, number)
            yield (own_MD[: config.num_fit_anchors], other_MD), order

        return views_of

    def _candidates(self, num_nodes: int, draws: torch.Generator) -> Tensor:
        return torch.randperm(num_nodes, generator=draws)[: self.config.num_candidates].to(self.device)

    def _compared_with(self, anchors: Tensor, num_nodes: int, seed: int) -> Tensor:
        """The anchors, then other nodes that their rows are taken over."""
        is_other_N = torch.ones(num_nodes, dtype=torch.bool, device=self.device)
        is_other_N[anchors] = False
        others = is_other_N.nonzero()[:, 0]
        most = self.config.num_candidates
        if self.estimator is None:
            is_exact = num_nodes <= self.config.max_exact_nodes
            most = num_nodes if is_exact else self.config.num_sampled_nodes
        draws = torch_generator(seed, "negative_weights")
        kept = torch.randperm(len(others), generator=draws)[: max(1, most - len(anchors))]
        return torch.cat([anchors, others[kept.to(self.device)]])

    def _projected(self, graph: Graph) -> Tensor:
        """Unit projections [N, D] of the unaugmented graph."""
        with evaluation(self), torch.no_grad():
            whole = GraphView(self._ready(graph).propagation, None)
            return cosine_rows(self.projector(self.encode(graph, whole)))
