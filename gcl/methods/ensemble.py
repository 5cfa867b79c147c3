"""Several encoders trained side by side: the same method from other weights and views, embeddings joined."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from gcl.config import Config
from gcl.methods.base import (
    EMBED_ROWS,
    Batch,
    Method,
    PairWeights,
    ParameterGroup,
    TrainingData,
    TrainingSize,
)
from gcl.random import derive_seed

# What each member keeps between its turns, by the names of the estimates. The rest is a step's: one member's
# is gone before the next begins.
_KEPT_BY_EACH = ("structure encoders", "the graph and its views", "weights", "weights of pairs")


class Ensemble(Method):
    """K members of one method that share batches and nothing else.

    Each has initial weights, views and other draws of its own; the first is, to the bit, what the method
    is without the others. Their losses add up, and the optimiser works element by element, so no member
    feels another. The embedding is theirs side by side, K D wide: what a single seed gives by luck, several
    give more often, at K times the cost of one.
    """

    member_class: ClassVar[type[Method]]

    def __init__(
        self,
        config: Config,
        *,
        num_features: int,
        num_classes: int | None,
        seed: int,
        num_encoders: int,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__(config, num_features=num_features, num_classes=num_classes, seed=seed)
        self.config = config
        sizes = {"num_features": num_features, "num_classes": num_classes}
        if self.is_transductive:
            sizes["num_nodes"] = num_nodes
        self.members = nn.ModuleList(
            self.member_class(config, **sizes, seed=member_seed(seed, number))  # type: ignore[arg-type]
            for number in range(num_encoders)
        )

    @classmethod
    def memory_estimate(cls, config: Config, size: TrainingSize) -> dict[str, int]:
        """A member's, with what each of them keeps as often as there are members."""
        one, count = cls.member_class.memory_estimate(config, size), int(getattr(config, "num_encoders", 1))
        return {what: num_bytes * (count if what in _KEPT_BY_EACH else 1) for what, num_bytes in one.items()}

    def training_loss(self, batch: Batch, *, epoch: int, step: int, seed: int) -> dict[str, Tensor]:
        """The sum of the members' losses, and the means of what else they watch."""
        found = list(self.losses(batch, epoch=epoch, step=step, seed=seed))
        terms = {name: sum(terms[name] for terms in found) for name in found[0]}
        return {
            name: term if name == "loss" else term / len(found)  # type: ignore[misc]
            for name, term in terms.items()
        }

    def losses(self, batch: Batch, *, epoch: int, step: int, seed: int) -> Iterator[dict[str, Tensor]]:
        """The members' losses, so that one member's graph is in memory at a time."""
        for member, own in self._seeded(seed):
            yield from member.losses(batch, epoch=epoch, step=step, seed=own)

    def embed(self, data: TrainingData, *, batch_size: int = EMBED_ROWS) -> np.ndarray:
        """float32 [N, K D] embeddings of the members, side by side."""
        return np.hstack([member.embed(data, batch_size=batch_size) for member in self._members()])

    def embed_view(
        self, data: TrainingData, *, view: int, seed: int, batch_size: int = EMBED_ROWS
    ) -> np.ndarray:
        """float32 [N, K D] embeddings of a view of each member's own."""
        return np.hstack(
            [
                member.embed_view(data, view=view, seed=own, batch_size=batch_size)
                for member, own in self._seeded(seed)
            ]
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """The members' groups, those of one name together."""
        joined = []
        for same in zip(*(member.parameter_groups() for member in self._members()), strict=True):
            parameters = [parameter for group in same for parameter in group.parameters]
            joined.append(
                ParameterGroup(same[0].name, parameters, same[0].learning_rate, same[0].weight_decay)
            )
        return joined

    def moving_group(self, *, epoch: int, step: int) -> str | None:
        """Members take turns alike."""
        return self._members()[0].moving_group(epoch=epoch, step=step)

    def epoch_batches(
        self, data: TrainingData, *, epoch: int, seed: int, batch_size: int
    ) -> Iterator[Tensor]:
        """The first member's, for all."""
        return self._members()[0].epoch_batches(data, epoch=epoch, seed=seed, batch_size=batch_size)

    def after_backward(self, *, epoch: int, step: int) -> None:
        """Each member's own."""
        for member in self._members():
            member.after_backward(epoch=epoch, step=step)

    def after_epoch(self, data: TrainingData, *, epoch: int, seed: int) -> None:
        """Each member's own."""
        for member, own in self._seeded(seed):
            member.after_epoch(data, epoch=epoch, seed=own)

    def negative_weights(
        self, data: TrainingData, anchors_A: np.ndarray, candidates_AM: np.ndarray, *, seed: int
    ) -> PairWeights | None:
        """Means over the members; a mean may reach as far as the freest of them."""
        found = [
            member.negative_weights(data, anchors_A, candidates_AM, seed=own)
            for member, own in self._seeded(seed)
        ]
        pairs = [weights for weights in found if weights is not None]
        if not pairs:
            return None
        return PairWeights(
            np.stack([weights.similarity_AM for weights in pairs]).mean(axis=0),
            np.stack([weights.weight_AM for weights in pairs]).mean(axis=0),
            bound=max(weights.bound for weights in pairs),
        )

    def notes(self, data: TrainingData) -> list[str]:
        """How many encoders there are, and what the method notes."""
        return [f"{len(self.members)} encoders side by side", *self._members()[0].notes(data)]

    def check(self, data: TrainingData) -> None:
        """Refuse what the method refuses."""
        super().check(data)
        self._members()[0].check(data)

    def _members(self) -> list[Method]:
        return list(self.members)  # type: ignore[arg-type]

    def _seeded(self, seed: int) -> list[tuple[Method, int]]:
        return [(member, member_seed(seed, number)) for number, member in enumerate(self._members())]


def ensemble_class(member: type[Method]) -> type[Ensemble]:
    """The class of ensembles of `member`, with what it declares.

    Args:
        member: a method's class.
    """
    declared = ("name", "Config", "inputs", "uses_labels", "min_num_nodes", "needs_edges", "is_transductive")
    attributes = {name: getattr(member, name) for name in declared} | {"member_class": member}
    return type(f"{member.__name__}Ensemble", (Ensemble,), attributes)


def member_seed(seed: int, number: int) -> int:
    """The seed of a member; that of the first is the run's.

    Args:
        seed: run seed.
        number: counter from 0.
    """
    return seed if number == 0 else derive_seed(seed, "member", number)
