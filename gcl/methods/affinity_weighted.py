"""What AUGCL does on either base, nodes or whole graphs: an estimator, and when it is fitted and used."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch

from gcl.gambler import GamblerHead
from gcl.methods.affinity_estimation import (
    AffinityWeighing,
    Views,
    answered_note,
    build_head,
    fit_head,
    tell_uniform_epochs,
)
from gcl.methods.base import Method, ParameterGroup, TrainingData
from gcl.methods.configs.affinity import AffinityConfig

FitViews = Callable[[int], Iterable[tuple[Views, torch.Generator]]]
"""Number of a pass -> views of its batches, with the order of their pairs."""


class AffinityWeighted(Method):
    """A method whose negatives weigh by affinity uncertainty after a warm-up; its base comes next to it.

    The estimator, its weights and what is known of its fit are in the state of the method; the base knows
    nothing of them.
    """

    uniform_is: ClassVar[str] = "all weigh the same"
    """What the method is during the warm-up, for notes."""
    config: AffinityConfig
    estimator: GamblerHead | None

    @abstractmethod
    def fit_views(self, data: TrainingData, *, epoch: int, seed: int) -> FitViews:
        """The views that a fit after an epoch goes through, drawn anew for each pass.

        Args:
            data: what is trained on.
            epoch: the epoch that ended, counted from 0.
            seed: run seed.
        """

    def check(self, data: TrainingData) -> None:
        """Say from which epoch on negatives are weighted, beside what the base refuses."""
        super().check(data)
        tell_uniform_epochs(self.config.uniform_epochs, "warmup_epochs")

    def parameter_groups(self) -> list[ParameterGroup]:
        """Encoder and projection; the estimator has an optimiser of its own."""
        own = set() if self.estimator is None else set(self.estimator.parameters())
        return [ParameterGroup("all", [weight for weight in self.parameters() if weight not in own])]

    def after_epoch(self, data: TrainingData, *, epoch: int, seed: int) -> None:
        """Fit the estimator when the warm-up ends, and again every `refresh_every` epochs."""
        since = epoch + 1 - self.config.warmup_epochs
        if since < 0:
            return
        self.training_state.get_buffer("is_weighting").fill_(True)
        if since > 0:
            self.training_state.get_buffer("has_weighted").fill_(True)
        if self.estimator is None:
            return
        if since == 0:
            self._fit(data, self.config.fit_passes, epoch=epoch, seed=seed)
        elif self.config.refresh_every and since % self.config.refresh_every == 0:
            self._fit(data, self.config.refresh_passes, epoch=epoch, seed=seed)

    def notes(self, data: TrainingData) -> list[str]:
        """Whether the weights ever played a part, and of how many pairs the estimator could tell."""
        found = super().notes(data)
        if not self._has_weighted:
            when = "at" if self._is_weighting else "before"
            return [
                *found,
                f"negatives were not weighted: training ended {when} "
                f"method.warmup_epochs={self.config.warmup_epochs}, up to which {self.uniform_is}",
            ]
        if self.config.estimator == "gambler":
            found.append(answered_note(float(self.training_state.get_buffer("answered_share"))))
        return found

    @property
    def _is_weighting(self) -> bool:
        return bool(self.training_state.get_buffer("is_weighting"))

    @property
    def _has_weighted(self) -> bool:
        return bool(self.training_state.get_buffer("has_weighted"))

    @property
    def _weighing(self) -> AffinityWeighing:
        return AffinityWeighing(self.config, self.estimator)

    def _add_estimator(self, row_size: int, generator: torch.Generator) -> None:
        """To be called once, when the base is built: its weights are drawn before the estimator's."""
        self.estimator = build_head(self.config, row_size, generator)
        for name in ("is_weighting", "has_weighted"):
            self.training_state.register_buffer(name, torch.zeros((), dtype=torch.bool))
        self.training_state.register_buffer("answered_share", torch.ones((), dtype=torch.float64))

    def _fit(self, data: TrainingData, num_passes: int, *, epoch: int, seed: int) -> None:
        assert self.estimator is not None  # noqa: S101  asked of trained estimators alone
        share = fit_head(
            self.estimator,
            self.config,
            self.fit_views(data, epoch=epoch, seed=seed),
            num_passes=num_passes,
            is_first=epoch + 1 == self.config.warmup_epochs,
        )
        self.training_state.get_buffer("answered_share").fill_(share)
