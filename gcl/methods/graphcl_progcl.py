"""ProGCL on collections: GraphCL whose negatives weigh by how likely they are true ones."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gcl.config import Config
from gcl.losses.affinity_weights import KeptLogWeights
from gcl.losses.grouped import cosine_rows
from gcl.losses.progcl import BetaMixture
from gcl.methods.affinity_estimation import tell_uniform_epochs
from gcl.methods.base import Batch, PairWeights, TrainingData
from gcl.methods.configs.graphcl import ProGclGraphConfig
from gcl.methods.grace import positive_similarity_of
from gcl.methods.graphcl import GraphCl, collection_of, normalised_by, pairs_of
from gcl.methods.mixture_weighted import MixtureWeighted
from gcl.random import numpy_generator


class ProGclGraph(MixtureWeighted, GraphCl):
    """ProGCL in its weighting form for whole graphs: hard negatives count more, unless they are likely false.

    Idea:
        Similarities of negatives are a mixture of two kinds; fitted with two Beta distributions it gives
        each pair the probability that it is a true negative.

    Objective:
        That of `GraphCl` with the positive in the denominator, uniform for `start_epoch` epochs. Then
        B_ij = P(true negative | cos_ij) * cos_ij scaled to [0, 1], and w_ij = B_ij over the mean of B_i.
        over the other graphs of the batch; no gradient passes through w.

    Inputs:
        A collection of graphs with node features; no labels. A single graph is not defined.

    Defaults and their source:
        Those of `GraphCl`; the mixture is fitted as for nodes (junxia97/ProGCL): once, to similarities of
        100 random graphs with all, 10 iterations from shares .95 and .05. It starts after 20 of 40 epochs,
        where `augcl_graph` fits its estimator, so that the two differ in their weights alone (ours).

    Deviations from paper:
        The paper weighs nodes, on GRACE; this is its weight on the base of GraphCL, as a rival of AUGCL.
        Weights come from the similarities of each step. The mixture is fitted to similarities of the graphs
        as they are to views of them, normalised by batches as in training (`fit_statistics`).

    Reference:
        Xia, Wu, Wang, Chen, Li: ProGCL: Rethinking Hard Negative Mining in Graph Contrastive Learning,
        ICML 2022, arXiv 2110.02027; code junxia97/ProGCL.
    """

    name = "progcl_graph"
    Config: ClassVar[type[Config]] = ProGclGraphConfig
    config: ProGclGraphConfig

    def __init__(
        self, config: ProGclGraphConfig, *, num_features: int, num_classes: int | None, seed: int
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        self.make_room_for_mixture()

    def check(self, data: TrainingData) -> None:
        """Say from which epoch on negatives are weighted, beside what GraphCL refuses."""
        super().check(data)
        tell_uniform_epochs(self.config.uniform_epochs, "start_epoch")

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The contrast, weighted after the start; watched: cosine of positives."""
        u_BD, v_BD = self.projected_views(batch, epoch=epoch, step=step, seed=seed)
        mixture = self.mixture if epoch >= self.config.start_epoch else None

        def weights(own_BD: Tensor, other_BD: Tensor) -> KeptLogWeights | None:
            return None if mixture is None else _log_weights(mixture, own_BD, other_BD)

        return {
            "loss": self.contrast(u_BD, v_BD, weights),
            "positive_similarity": positive_similarity_of(u_BD, v_BD),
        }

    def after_epoch(self, data: TrainingData, *, epoch: int, seed: int) -> None:
        """Fit the mixture when the last epoch of uniform weights has ended; note whether one was weighted."""
        if not self.note_epoch(epoch):
            return
        statistics = self.config.fit_statistics
        u_GD = self.projections_of_all(data, statistics, seed=seed)
        drawn = numpy_generator(seed, "mixture_columns").permutation(data.num_nodes)
        columns_C = np.sort(drawn[: self.config.num_fit_columns])
        views = self._augmented(self._graphs(collection_of(data), columns_C), seed, "fit_views", epoch)
        with normalised_by(self, statistics), torch.no_grad():
            cosine_GC = (u_GD @ cosine_rows(self.projected(views)).T).cpu().numpy()
        is_negative_GC = np.arange(data.num_nodes)[:, None] != columns_C
        self.fit_mixture(cosine_GC[is_negative_GC])

    def negative_weights(
        self, data: TrainingData, anchors_A: np.ndarray, candidates_AM: np.ndarray, *, seed: int
    ) -> PairWeights | None:
        """Weights of pairs of graphs as they are, relative to the mean over all others; None unfitted."""
        mixture = self.mixture
        if mixture is None:
            return None
        h_GD = self.projections_of_all(data, self.config.fit_statistics, seed=seed)
        anchors = torch.from_numpy(anchors_A).to(self.device)
        cosine_AG = h_GD[anchors] @ h_GD.T
        weight_AG = mixture.log_weight(cosine_AG).exp()
        weight_AG[torch.arange(len(anchors)), anchors] = 0.0
        weight_AG /= weight_AG.sum(1, keepdim=True) / (data.num_nodes - 1)
        candidates = torch.from_numpy(candidates_AM).to(self.device)
        return pairs_of(cosine_AG, weight_AG, candidates)

    def notes(self, data: TrainingData) -> list[str]:
        """Whether the weights ever played a part, beside what GraphCL notes."""
        found = super().notes(data)
        if not self.training_state.get_buffer("has_weighted"):
            when = "before" if self.mixture is None else "at"
            found.append(
                f"negatives were not weighted: training ended {when} "
                f"method.start_epoch={self.config.start_epoch}, up to which all weigh the same"
            )
        return found


def _log_weights(mixture: BetaMixture, own_BD: Tensor, other_BD: Tensor) -> KeptLogWeights:
    """Log B of all pairs of a batch, over the mean of the other graphs."""
    with torch.no_grad(), torch.autocast(own_BD.device.type, enabled=False):
        cosine_BB = cosine_rows(own_BD.float()) @ cosine_rows(other_BD.float()).T
        weight_BB = mixture.log_weight(cosine_BB).exp()
        return KeptLogWeights.of(weight_BB, mu_includes_diagonal=False)
