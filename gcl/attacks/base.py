"""What an attack is: a choice of at most one edge a graph, within a component; and how it is judged.

Every attack works on the same target and is judged by the same lookup, so accuracies can be compared graph
by graph: none can be below that of the exhaustive one, or above the clean one.

Shape legend: G graphs, N places for nodes, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from gcl.attacks.padded import PaddedGraphs
from gcl.attacks.structure2vec import GraphClassifier
from gcl.attacks.victim import logits_of

_ENTRIES_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Target:
    """A victim and the graphs on which it is attacked.

    Attributes:
        model: the victim.
        graphs: G of them.
        y_G: int64 classes.
        exclude_existing: whether an edge that is there already is no choice.
    """

    model: GraphClassifier
    graphs: PaddedGraphs
    y_G: Tensor
    exclude_existing: bool = True

    @cached_property
    def clean_G(self) -> Tensor:
        """int64 classes predicted for the graphs as they are."""
        return logits_of(self.model, self.graphs).argmax(1)

    @cached_property
    def is_right_G(self) -> Tensor:
        """bool, which graphs are classified rightly; the others count as errors and are left alone."""
        return self.clean_G == self.y_G

    @cached_property
    def admissible_GNN(self) -> Tensor:
        """bool, symmetric: the choices an attack has."""
        return self.graphs.admissible_GNN(exclude_existing=self.exclude_existing)

    @cached_property
    def outcomes(self) -> "Outcomes":
        """What the victim says after every choice, computed once for all attacks that ask often."""
        return _all_outcomes(self)

    def predicted_with(self, pair_G2: Tensor) -> Tensor:
        """int64 [G] classes predicted for the graphs with one edge more each; -1, -1 adds none."""
        return logits_of(self.model, self.graphs.with_edges(pair_G2)).argmax(1)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The victim on every rightly classified graph with every admissible edge; symmetric.

    Attributes:
        flips_GNN: bool, whether its answer is wrong then; False where there is no such choice.
        loss_GNN: float32 negative log-probability of the true class; NaN where there is no such choice.
    """

    flips_GNN: Tensor
    loss_GNN: Tensor


class Attack(Protocol):
    """A way to choose edges."""

    def choose(self, target: Target, *, seed: int) -> Mapping[str, Tensor]:
        """Choose an edge for each graph.

        Args:
            target: victim and graphs.
            seed: of whatever is drawn.

        Returns:
            int64 [G, 2] ends by the attack's name, -1, -1 for no edge; two entries of an attack that stops
            in two ways.
        """
        ...


@dataclass(frozen=True, eq=False)
class Attacked:
    """What an attack came to.

    Attributes:
        pair_G2: int64 ends of the added edges; -1, -1 for none.
        predicted_G: int64 classes predicted afterwards.
    """

    pair_G2: Tensor
    predicted_G: Tensor

    def accuracy(self, y_G: Tensor) -> float:
        """Share of all graphs still classified rightly."""
        return float((self.predicted_G == y_G).double().mean())


def judge(target: Target, pair_G2: Tensor) -> Attacked:
    """Add the edges to the graphs that are classified rightly, and ask the victim.

    Args:
        target: victim and graphs.
        pair_G2: int64 choices.

    Raises:
        ValueError: a choice that the threat model does not allow.
    """
    pair_G2 = torch.where(target.is_right_G[:, None], pair_G2, -1)
    (changed,) = torch.nonzero(pair_G2.amax(1) >= 0, as_tuple=True)
    chosen = pair_G2[changed]
    if bool((chosen < 0).any()) or not bool(target.admissible_GNN[changed, chosen[:, 0], chosen[:, 1]].all()):
        raise ValueError("an attack chose an edge between components, or from a node to itself")
    predicted_G = torch.where(pair_G2[:, 0] >= 0, target.predicted_with(pair_G2), target.clean_G)
    return Attacked(pair_G2, predicted_G)


def _all_outcomes(target: Target) -> Outcomes:
    num_places = target.graphs.adjacency_GNN.shape[1]
    is_asked_GNN = torch.triu(target.admissible_GNN) & target.is_right_G[:, None, None]
    graph_P, u_P, v_P = torch.nonzero(is_asked_GNN, as_tuple=True)
    flips_GNN = torch.zeros_like(is_asked_GNN)
    loss_GNN = torch.full(is_asked_GNN.shape, torch.nan)
    at_once = max(1, _ENTRIES_AT_ONCE // num_places**2)
    for part in torch.split(torch.arange(len(graph_P)), at_once):
        graph, u, v = graph_P[part], u_P[part], v_P[part]
        logit_PC = logits_of(target.model, target.graphs.take(graph).with_edges(torch.stack([u, v], 1)))
        flips = logit_PC.argmax(1) != target.y_G[graph]
        loss = functional.cross_entropy(logit_PC, target.y_G[graph], reduction="none")
        for row, column in ((u, v), (v, u)):
            flips_GNN[graph, row, column] = flips
            loss_GNN[graph, row, column] = loss
    return Outcomes(flips_GNN, loss_GNN)
