"""What ProGCL keeps on either base, nodes of a graph or whole graphs: the mixture it has fitted."""

import numpy as np
import torch
from torch import nn

from gcl.losses.progcl import BetaMixture, fit_beta_mixture
from gcl.methods.configs.graphcl import ProGclGraphConfig
from gcl.methods.configs.progcl import ProGclConfig

_NOT_FITTED = [0.0] * 7


class MixtureWeighted:
    """Part of a method whose negatives weigh by a mixture that is fitted once, during training."""

    training_state: nn.Module
    config: ProGclConfig | ProGclGraphConfig

    def make_room_for_mixture(self) -> None:
        """Register what checkpoints keep: the mixture, and whether an epoch was trained with it."""
        self.training_state.register_buffer("mixture", torch.tensor(_NOT_FITTED, dtype=torch.float64))
        self.training_state.register_buffer("has_weighted", torch.tensor(False))

    @property
    def mixture(self) -> BetaMixture | None:
        """The fitted mixture; None before `start_epoch`, and in a model read from a file."""
        values = self.training_state.get_buffer("mixture").tolist()
        return None if values == _NOT_FITTED else BetaMixture(*values)

    def note_epoch(self, epoch: int) -> bool:
        """Remember that an epoch was weighted; whether the mixture is to be fitted after this one.

        Args:
            epoch: counter from 0 of the epoch that has ended.
        """
        if epoch >= self.config.start_epoch:
            self.training_state.get_buffer("has_weighted").fill_(True)
        return epoch + 1 == self.config.start_epoch

    def fit_mixture(self, cosines: np.ndarray) -> None:
        """Fit to the cosines of pairs of negatives, float [pairs], and keep what was found."""
        mixture = fit_beta_mixture(
            cosines,
            num_iterations=self.config.num_fit_iterations,
            initial_false_share=self.config.initial_false_share,
            bounds=(-1.0, 1.0) if self.config.similarity_scaling == "cosine" else None,
        )
        values = [getattr(mixture, name) for name in BetaMixture.__dataclass_fields__]
        self.training_state.get_buffer("mixture").copy_(torch.tensor(values, dtype=torch.float64))
