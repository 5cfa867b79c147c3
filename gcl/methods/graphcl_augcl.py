"""AUGCL on collections: GraphCL whose negatives weigh by how uncertain their affinity to the anchor is."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gcl.config import Config
from gcl.losses.affinity_weights import LogWeights
from gcl.losses.grouped import cosine_rows
from gcl.methods.affinity_estimation import WATCHED_ROWS, Views, weighted_share
from gcl.methods.affinity_weighted import AffinityWeighted, FitViews
from gcl.methods.base import Batch, PairWeights, TrainingData, shuffled_batches
from gcl.methods.configs.graphcl import AugclGraphConfig
from gcl.methods.grace import positive_similarity_of
from gcl.methods.graphcl import FIT_BATCH, GraphCl, collection_of, normalised_by
from gcl.random import torch_generator

COMPARED_GRAPHS = 2048
"""Graphs that the groups and the mean uncertainty of a written pair are taken over, at most."""


class AugclGraph(AffinityWeighted, GraphCl):
    """AUGCL on GraphCL, contrast of whole graphs with negatives weighted by affinity uncertainty.

    Idea:
        Part each graph's similarities to the batch in two by 2-means, its own kind and the rest, and let a
        classifier that may abstain tell from two projections which it is. Where it abstains the pair is
        uncertain: as a negative it is pushed harder; a plain false negative may stay.

    Objective:
        With projections u of the graphs and v of their views, s_ij = cos(u_i, v_j) / temperature, the mean
        over the graphs i of a batch of::

            -log( e^s_ii / ( e^s_ii + sum_{j != i} w_ij e^s_ij ) )

        w_ij = alpha_i u_ij, u_ij the uncertainty of the pair, alpha_i = alpha_scale / mean_j u_ij; no
        gradient passes through w. For `warmup_epochs` w = 1. Then the encoder stands still for `fit_passes`
        passes over fresh views of all graphs, in which the estimator is trained on all pairs of each batch,
        and the training goes on with its weights. It is never fitted again unless `refresh_every` is set.

    Inputs:
        A collection of graphs with node features; no labels. A single graph is not defined.

    Defaults and their source:
        20 epochs, 10 passes, 20 epochs; Adam at .01 for both, batches of 128, 2048 pairs a step of the
        estimator, two hidden layers of 128, reward 1.9, alpha = 1/mu, three layers of 32 units, temperature
        .2, the positive in the denominator: the released code, its README and arguments. It reports the last
        epoch, as we do. It has no values for single data sets; the presets' are theirs for MUTAG.

    Deviations from paper:
        The estimator is fitted to projections normalised by their batch, as those that it then weighs are.
        The released code fits it in evaluation mode, by running moments (`fit_statistics=running`): those
        are other projections. On MUTAG it then answers 34 and 67 % of a step's pairs (seeds 0 and 1), 76 and
        68 % of them rightly; fitted to batches 64 and 94 %, 92 and 90 % of them rightly.
        2-means is exact; spectral clustering in its place is not there. The estimator reads projections of
        unit length rather than raw ones. Where it ends up abstaining on everything, which is warned of,
        `pretrain_passes` of cross-entropy before its fit help. Pairs are
        those of batches of 128, whatever the batches of training. The views, the order of the graphs and
        what else is the base's deviate as GraphCL's do; the released views re-number what is left, as ours.
        Estimators in closed form, such as analytic, need no fitting and are read from each batch.

    Reference:
        Niu, Pang, Chen: Affinity Uncertainty-based Hard Negative Mining in Graph Contrastive Learning,
        arXiv 2301.13340, TNNLS (2024); code mala-lab/AUGCL. Deep Gamblers: Liu et al., arXiv 1907.00208.
    """

    name = "augcl_graph"
    Config: ClassVar[type[Config]] = AugclGraphConfig
    config: AugclGraphConfig

    def __init__(
        self, config: AugclGraphConfig, *, num_features: int, num_classes: int | None, seed: int
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        self._add_estimator(config.embedding_size, self.init_generator)

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The contrast, weighted after the warm-up; watched: positives, and the spread of the weights."""
        u_BD, v_BD = self.projected_views(batch, epoch=epoch, step=step, seed=seed)
        share = torch.ones((), device=self.device)
        if epoch < self.config.warmup_epochs:
            loss = self.contrast(u_BD, v_BD, lambda own_BD, other_BD: None)
        else:
            found: list[LogWeights] = []

            def weights(own_BD: Tensor, other_BD: Tensor) -> LogWeights:
                found.append(self._weighing.log_weights(own_BD, other_BD, len(own_BD)))
                return found[-1]

            loss = self.contrast(u_BD, v_BD, weights)
            share = weighted_share(found[0], u_BD, v_BD, min(len(u_BD), WATCHED_ROWS))
        return {
            "loss": loss,
            "positive_similarity": positive_similarity_of(u_BD, v_BD),
            "weighted_share": share,
        }

    def negative_weights(
        self, data: TrainingData, anchors_A: np.ndarray, candidates_AM: np.ndarray, *, seed: int
    ) -> PairWeights | None:
        """Weights of pairs by the projections of the graphs as they are; None if the warm-up never ended.

        Groups and mean uncertainty of an anchor are taken over itself and the other graphs, or a sample.
        """
        if not self._is_weighting:
            return None
        h_GD = self.projections_of_all(data, self.config.fit_statistics, seed=seed)
        others = np.setdiff1d(np.arange(data.num_nodes), anchors_A)
        draws = torch_generator(seed, "negative_weights")
        drawn = torch.randperm(len(others), generator=draws)[: max(1, COMPARED_GRAPHS - len(anchors_A))]
        compared = np.concatenate([anchors_A, others[drawn.numpy()]])
        rows = (torch.from_numpy(part).to(self.device) for part in (anchors_A, candidates_AM, compared))
        similarity_AM, weight_AM = self._weighing.of_pairs(h_GD, *rows)
        return PairWeights(similarity_AM.cpu().numpy(), weight_AM.cpu().numpy())

    def fit_views(self, data: TrainingData, *, epoch: int, seed: int) -> FitViews:
        """All pairs of batches of graphs, in fresh views."""
        collection = collection_of(data)

        def views_of(number: int) -> Iterator[tuple[Views, torch.Generator]]:
            batches = shuffled_batches(
                np.arange(data.num_nodes), epoch=epoch, seed=seed, batch_size=FIT_BATCH, purpose="fit_batches"
            )
            for step, rows in enumerate(batches):
                graphs = self._graphs(collection, rows.numpy())
                view = self._augmented(graphs, seed, "fit_views", epoch, number, step)
                with normalised_by(self, self.config.fit_statistics), torch.no_grad():
                    views = cosine_rows(self.projected(graphs)), cosine_rows(self.projected(view))
                yield views, torch_generator(seed, "fit_order", epoch, number, step)

        return views_of
