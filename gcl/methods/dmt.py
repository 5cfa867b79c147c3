"""DMT: semi-supervised deep metric learning on smoothed attributes, positives known through labels."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gcl.config import Config
from gcl.errors import NotDefined
from gcl.losses.grouped import anchors_of, grouped_tuplet_loss, views_tuplet_loss
from gcl.methods.base import Batch, TrainingData, shuffled_batches
from gcl.methods.configs.dmat import DmtConfig
from gcl.methods.smoothed_rows import SmoothedRowsMethod, rows_of
from gcl.random import numpy_generator


class Dmt(SmoothedRowsMethod):
    """DMT, multi-class tuplets whose positives are labelled nodes of the anchor's class.

    Idea:
        The loss of DMAT-i with the class in the place of the node: labelled nodes of one class attract,
        those of other classes repel. With few labels, labelled nodes are drawn apart from the others and
        balanced over the classes, so that every batch has positives and negatives.

    Objective:
        For a labelled anchor with m positives and q negatives in the batch (form B), Q = q or K - 1::

            log(1 + Q * mean_j exp(s_j^-) * mean_i exp(-s_i^+))

        The rows are as they are; with V > 1 they are augmented, and an anchor's own views are positives
        too (DMAT). ``unlabelled="instance"`` adds
        instance_weight times the DMAT-i loss of all rows of the batch.

    Inputs:
        x_NF float32, smoothed rows; y_N int32 *training* labels, -1 elsewhere: the method declares
        `uses_labels`, and whoever hands them over leaves validation and test labels out. Needs two
        classes, one of them with two labelled nodes; without edges it runs on the attributes.

    Defaults and their source:
        temperature .2 and 256 balanced labelled draws a batch: our own choice for 20 labels a class;
        the paper's values are not known to us. One view, so no augmentation, and unlabelled rows left out:
        the plain DMT. An epoch is a pass over the labelled nodes, a single step where they are few: 100
        epochs of Adam at 1e-4, ours, after which the loss has fallen by 15 to 90 %. Chosen with 20 labels a
        class by validation accuracy, which is flat from 50 to 200 epochs on generated graphs and the digits;
        100 epochs at 1e-3 lose 6 to 7 points on the generated ones. Where columns are many, so few labels
        are soon learned by heart: on validation nodes of Cora and CiteSeer 20 epochs gave 2 to 3 points more.

    Deviations from paper:
        The body of the paper was not at hand, see `DmatI`. Drawing labelled nodes apart is ours. A class
        with fewer labels than its share of the draws is used whole, never with repeats: a node would be
        its own positive.

    Reference:
        Li, Agrawal, Ramnath, Jin: arXiv 2411.13014 (2024).
    """

    name = "dmt"
    Config: ClassVar[type[Config]] = DmtConfig
    uses_labels = True
    config: DmtConfig

    def __init__(self, config: DmtConfig, *, num_features: int, num_classes: int | None, seed: int) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        if num_classes is None or num_classes < 2:
            raise NotDefined(f"dmt compares classes and needs at least two, not {num_classes}")
        self.negative_mass = float(num_classes - 1) if config.negative_mass == "num_classes" else None

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The class-wise tuplet loss, plus the weighted instance loss if it is on."""
        if batch.y_B is None:
            raise ValueError("dmt needs training labels, and the batch has none")
        config = self.config
        share = batch.share
        z_VBD = self.project_views(rows_of(batch), epoch=epoch, step=step, seed=seed, share=share)
        classes = grouped_tuplet_loss(
            z_VBD.flatten(0, 1),
            batch.y_B.repeat(config.num_views),
            temperature=config.temperature,
            form=config.form,
            negative_mass=self.negative_mass,
            debias_prior=config.debias_prior,
            ungrouped="negatives" if config.unlabelled == "negatives" else "ignored",
            anchors=anchors_of(share.rows, num_views=config.num_views, num_nodes=len(batch.rows_B)),
        )
        class_loss = share.total(classes.loss)
        if config.unlabelled != "instance":
            return {"loss": class_loss}
        instances = views_tuplet_loss(
            z_VBD,
            temperature=config.temperature,
            form=config.form,
            debias_prior=config.debias_prior,
            nodes=share.rows,
        )
        instance_loss = share.total(instances.loss)
        return {
            "loss": class_loss + config.instance_weight * instance_loss,
            "class_loss": class_loss,
            "instance_loss": instance_loss,
        }

    def epoch_batches(
        self, data: TrainingData, *, epoch: int, seed: int, batch_size: int
    ) -> Iterator[Tensor]:
        """Balanced labelled draws, joined by shuffled unlabelled nodes unless those are ignored.

        An epoch is one pass over the unlabelled nodes, or over as many labelled draws as there are
        labelled nodes when unlabelled ones are ignored.
        """
        y_N = np.asarray(data.y_N)
        num_drawn = min(self.config.num_labelled, batch_size)
        if self.config.unlabelled == "ignore":
            num_batches = max(1, int((y_N >= 0).sum()) // num_drawn)
            for step in range(num_batches):
                yield torch.from_numpy(_draw_balanced(y_N, num_drawn, epoch=epoch, step=step, seed=seed))
            return
        num_drawn = min(num_drawn, max(4, batch_size // 2))
        others = shuffled_batches(
            np.flatnonzero(y_N < 0), epoch=epoch, seed=seed, batch_size=max(1, batch_size - num_drawn)
        )
        step = -1
        for step, other_B in enumerate(others):
            labelled_B = torch.from_numpy(_draw_balanced(y_N, num_drawn, epoch=epoch, step=step, seed=seed))
            yield torch.cat([labelled_B, other_B])
        if step < 0:  # every node is labelled
            yield torch.from_numpy(_draw_balanced(y_N, num_drawn, epoch=epoch, step=0, seed=seed))

    def check(self, data: TrainingData) -> None:
        """Refuse data without two classes, one of them with two labelled nodes."""
        super().check(data)
        y_N = np.asarray(data.y_N)
        counts = np.bincount(y_N[y_N >= 0])
        if (counts > 0).sum() < 2 or counts.max() < 2:
            raise NotDefined("dmt needs labelled nodes of two classes, and two nodes of one of them")
        if len(counts) > (self.num_classes or 0):
            raise ValueError(
                f"labels reach class {len(counts) - 1} of {self.num_classes} classes, counted from 0"
            )


def _draw_balanced(y_N: np.ndarray, num_drawn: int, *, epoch: int, step: int, seed: int) -> np.ndarray:
    """About `num_drawn` distinct labelled nodes, the same number of each class as far as it reaches.

    A class never gets fewer than two draws if it has two labelled nodes, so every batch has positives.
    """
    generator = numpy_generator(seed, "labelled", epoch, step)
    classes = np.unique(y_N[y_N >= 0])
    share = max(2, num_drawn // len(classes))
    drawn = [generator.permutation(np.flatnonzero(y_N == label))[:share] for label in classes]
    return generator.permutation(np.concatenate(drawn))
