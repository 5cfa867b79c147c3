"""ProGCL: GRACE whose negatives weigh by how likely they are true ones."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gcl.config import Config
from gcl.losses.contrastive import grace_loss
from gcl.losses.grouped import cosine_rows
from gcl.losses.progcl import progcl_loss
from gcl.methods.base import Batch, PairWeights, TrainingData
from gcl.methods.configs.progcl import ProGclConfig
from gcl.methods.grace import Grace, positive_similarity_of
from gcl.methods.graph_views import WeightsOf, graph_of
from gcl.methods.mixture_weighted import MixtureWeighted
from gcl.random import numpy_generator


class ProGcl(MixtureWeighted, Grace):
    """ProGCL in its weighting form: hard negatives count more, unless a mixture says they are false ones.

    Idea:
        On graphs most of the hardest negatives are of the anchor's own class, so weighing by similarity
        alone hurts. Similarities of negatives are a mixture of two kinds; fitted with two Beta
        distributions it gives each pair the probability that it is a true negative.

    Objective:
        That of GRACE for `start_epoch` epochs. Then, with B_ij = P(true negative | cos_ij) * cos_ij scaled
        to [0, 1], and w_ij = B_ij over the mean of B_i. over the negatives of i::

            -log( e^s(u_i,v_i) / (e^s(u_i,v_i) + sum_{k != i} w e^s(u_i,v_k) + sum_{k != i} w e^s(u_i,u_k)) )

        averaged over the nodes and both roles of the views. All pairs count, streamed: memory is O(N D).

    Inputs:
        The graph with features; no labels. N = 1 is not defined.

    Defaults and their source:
        The mixture as released: fitted once at epoch 400 to similarities between the views in 100 random
        columns, 10 iterations from Beta(1, 2), Beta(2, 1) and shares .95, .05. They are scaled by their
        extremes, as the paper has it; `similarity_scaling=cosine` takes (1 + cos) / 2, as the released code
        does. Encoder, views and training as our GRACE; without a preset it starts at 100 of 200 epochs.
        Presets hold the released settings of two data sets.

    Deviations from paper:
        Weights come from the similarities of each step; the released code computes its matrix at the start
        epoch and keeps it, which takes N x N memory. A pair within a view weighs by its own similarity, not
        by that of the same nodes across views. The mean of the weights runs over the negatives alone, those
        of both views together; positives are left out of the fit. Similarities beyond those fitted to
        count as the nearest, weights below e^-20 as e^-20. The second parameter of the false component is
        not held above 1. Edges and features are dropped uniformly, not by centrality. The variant that mixes
        synthetic negatives is not there.

    Reference:
        Xia, Wu, Wang, Chen, Li: ProGCL: Rethinking Hard Negative Mining in Graph Contrastive Learning,
        ICML 2022, arXiv 2110.02027; code junxia97/ProGCL.
    """

    name = "progcl"
    Config: ClassVar[type[Config]] = ProGclConfig
    config: ProGclConfig

    def __init__(
        self, config: ProGclConfig, *, num_features: int, num_classes: int | None, seed: int
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        self.make_room_for_mixture()

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """GRACE before the start, weighted after it; watched: cosine of positives."""
        u_ND, v_ND = self.projected_views(batch, epoch=epoch, step=step, seed=seed)
        mixture = self.mixture if epoch >= self.config.start_epoch else None
        if mixture is None:
            loss = grace_loss(u_ND, v_ND, temperature=self.config.temperature)
        else:
            loss = progcl_loss(u_ND, v_ND, mixture=mixture, temperature=self.config.temperature)
        return {"loss": loss, "positive_similarity": positive_similarity_of(u_ND, v_ND)}

    def after_epoch(self, data: TrainingData, *, epoch: int, seed: int) -> None:
        """Fit the mixture when the last epoch of plain GRACE has ended; note whether one was weighted."""
        if not self.note_epoch(epoch):
            return
        batch = Batch(rows_B=torch.arange(data.num_nodes), graph=data.graph)
        with torch.no_grad():
            u_ND, v_ND = map(cosine_rows, self.projected_views(batch, epoch=epoch, step=0, seed=seed))
            num_nodes = len(u_ND)
            columns = numpy_generator(seed, "mixture_columns").permutation(num_nodes)
            columns_C = np.sort(columns[: self.config.num_fit_columns])
            cosine_NC = (u_ND @ v_ND[torch.from_numpy(columns_C).to(self.device)].T).cpu().numpy()
        is_negative_NC = np.arange(num_nodes)[:, None] != columns_C
        self.fit_mixture(cosine_NC[is_negative_NC])

    def negative_weights(
        self, data: TrainingData, anchors_A: np.ndarray, candidates_AM: np.ndarray, *, seed: int
    ) -> PairWeights | None:
        """Weights of pairs, anchors in one fresh view and candidates in another; None before the fit.

        A weight is relative to the mean over all negatives of both views, so each anchor costs O(N).
        """
        mixture = self.mixture
        if mixture is None:
            return None
        graph = graph_of(data)

        def weighing(u_ND: Tensor, v_ND: Tensor) -> WeightsOf:
            u_ND, v_ND = cosine_rows(u_ND), cosine_rows(v_ND)

            def weights_of(anchors_A: Tensor) -> Tensor:
                both_2AN = torch.stack([u_ND[anchors_A] @ z_ND.T for z_ND in (v_ND, u_ND)])
                both_2AN = mixture.log_weight(both_2AN).exp()
                both_2AN[:, torch.arange(len(anchors_A)), anchors_A] = (
                    0.0  # neither the node nor its positive
                )
                return both_2AN[0] / (both_2AN.sum(dim=(0, 2))[:, None] / (2 * graph.num_nodes - 2))

            return weights_of

        return self.weigh_in_fresh_views(
            graph, anchors_A, candidates_AM, weighing, seed=seed, project=self.projector
        )

    def notes(self, data: TrainingData) -> list[str]:
        """Whether the weights ever played a part, beside what GRACE notes."""
        notes = super().notes(data)
        start = f"method.start_epoch={self.config.start_epoch}"
        if self.mixture is None:
            notes.append(
                f"negatives were not weighted: training ended before {start}, up to which progcl is grace"
            )
        elif not self.training_state.get_buffer("has_weighted"):
            notes.append(
                f"negatives were not weighted: training ended at {start}, up to which progcl is grace; the "
                "mixture was fitted then and trained nothing"
            )
        return notes
