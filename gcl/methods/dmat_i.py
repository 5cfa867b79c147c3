"""DMAT-i: unsupervised deep metric learning on smoothed attributes."""

from typing import ClassVar

from torch import Tensor

from gcl.config import Config
from gcl.losses.grouped import hard_negative_similarity, positive_similarity, views_tuplet_loss
from gcl.methods.base import Batch
from gcl.methods.configs.dmat import DmatIConfig
from gcl.methods.smoothed_rows import SmoothedRowsMethod, rows_of

WATCHED_ROWS = 128
"""Rows of a batch on which the hardness of negatives is watched, so that watching costs nothing."""


class DmatI(SmoothedRowsMethod):
    """DMAT-i, instance-wise multi-class tuplets on rows of a Generalised PageRank filter.

    Idea:
        Smooth the attributes over the graph once, then forget the graph. A shuffled batch of nodes is the
        tuplet: the views of a node are its positives, all views of all other nodes its negatives, so
        nothing is sampled. Smoothed rows of neighbours are alike, which makes the negatives hard.

    Objective:
        With B nodes, V views, cosine scores s = cos(z_a, z_b) / temperature, m = V - 1 positives and
        q = V (B - 1) negatives, averaged over all V B anchors (form B)::

            log(1 + q * mean_j exp(s_j^-) * mean_i exp(-s_i^+))

        Forms A and C, and the debiased negative mass, are in `gcl.losses.tuplet`. V = 2 is NT-Xent.

    Inputs:
        x_NF float32, smoothed rows (`gcl.smoothing`), possibly memory-mapped. No labels, no graph.
        N = 1 is not defined (no negative); a graph without edges is fine, its rows being the attributes.

    Defaults and their source:
        One linear layer without bias, entry dropout .5, temperature 1, two views, batch 512; with the
        trainer's Adam at 1e-4 for 20 epochs. Ours, from validation accuracy on Cora and CiteSeer (71
        configurations, means over seeds): a hidden layer cost 1.5 to 5 points, training long or with a
        small temperature 1.5 to 4; between .5 and 1 the temperature, and between .5 and .8 the dropout, made
        no difference. The paper's encoder, augmentation and hyper-parameters are not known to us; the
        batch size is the default of a summary of it. jitter_scale .05 and feature_mask_rate .2 are ours.

    Deviations from paper:
        The body of the paper was not at hand: form B is the reading that satisfies the claimed bound on
        the cross-entropy, "i" is read as instance-wise, and the augmentations are a pluggable list.

    Reference:
        Li, Agrawal, Ramnath, Jin: arXiv 2411.13014 (2024); CSoNet 2023, LNCS 14479,
        doi 10.1007/978-981-97-0669-3_35. Debiasing: Chuang et al., arXiv 2007.00224.
    """

    name = "dmat_i"
    Config: ClassVar[type[Config]] = DmatIConfig
    config: DmatIConfig

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The tuplet loss; watched: cosine of positives, and of the hardest tenth of negatives."""
        share = batch.share
        z_VBD = self.project_views(rows_of(batch), epoch=epoch, step=step, seed=seed, share=share)
        tuplets = views_tuplet_loss(
            z_VBD,
            temperature=self.config.temperature,
            form=self.config.form,
            debias_prior=self.config.debias_prior,
            nodes=share.rows,
        )
        return {
            "loss": share.total(tuplets.loss),
            "positive_similarity": positive_similarity(z_VBD),
            "hard_negative_similarity": hard_negative_similarity(z_VBD[0, :WATCHED_ROWS]),
        }
