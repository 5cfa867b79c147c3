"""Attacks without learning: at random, along the gradient, and by trying everything.

Shape legend: G graphs, N places for nodes, C classes.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from gcl.attacks.base import Target
from gcl.attacks.padded import no_pairs
from gcl.random import torch_generator

_GRAPHS_AT_ONCE = 500
_DIGITS = 1e9
"""Gradients that agree to so many parts of the graph's largest are ties; round-off does not choose."""


class RandomSampling:
    """Random sampling: any admissible edge, uniformly."""

    def choose(self, target: Target, *, seed: int) -> Mapping[str, Tensor]:
        """See `gcl.attacks.base.Attack`."""
        weight_GK = torch.triu(target.admissible_GNN).flatten(1).float()
        return {"random": drawn_pairs(weight_GK, 1, torch_generator(seed, "random_sampling"))[:, 0]}


class GradArgmax:
    """GradArgmax: for each other class the edge along whose entry the loss towards it falls fastest.

    White box. Of the classes in their order, the first whose edge makes the victim answer wrongly is taken;
    none if none does. Both directions of an edge are entries of their own. Double precision, and ties broken
    by position, since with two rounds of messages many gradients are equal.
    """

    def choose(self, target: Target, *, seed: int) -> Mapping[str, Tensor]:
        """See `gcl.attacks.base.Attack`; nothing is drawn."""
        candidates = self.candidates(target)
        pair_G2 = no_pairs(len(target.graphs))
        for candidate_G2 in reversed(candidates):
            is_wrong_G = (target.predicted_with(candidate_G2) != target.y_G) & (candidate_G2[:, 0] >= 0)
            pair_G2 = torch.where(is_wrong_G[:, None], candidate_G2, pair_G2)
        return {"grad_argmax": pair_G2}

    def candidates(self, target: Target) -> list[Tensor]:
        """The edge [G, 2] for each class in order; -1, -1 for the true class and where no gradient falls."""
        model = copy.deepcopy(target.model).double()
        parts = []
        for graphs_B in torch.split(torch.arange(len(target.graphs)), _GRAPHS_AT_ONCE):
            part = target.graphs.take(graphs_B)
            adjacency_BNN = part.adjacency_GNN.double().requires_grad_()
            with torch.enable_grad():
                log_p_BC = functional.log_softmax(model(adjacency_BNN, part.x_GN1(torch.float64)), 1)
                gradients = [
                    torch.autograd.grad(-log_p_B.sum(), adjacency_BNN, retain_graph=True)[0]
                    for log_p_B in log_p_BC.unbind(1)
                ]
            y_B, admissible_BNN = target.y_G[graphs_B], target.admissible_GNN[graphs_B]
            parts.append(
                [
                    _steepest(gradient_BNN, admissible_BNN & (y_B != label)[:, None, None])
                    for label, gradient_BNN in enumerate(gradients)
                ]
            )
        return [torch.cat(of_class) for of_class in zip(*parts, strict=True)]


class Exhaustive:
    """The first admissible edge that makes the victim answer wrongly: no attack of one edge does better."""

    def choose(self, target: Target, *, seed: int) -> Mapping[str, Tensor]:
        """See `gcl.attacks.base.Attack`; nothing is drawn."""
        flips_GK = torch.triu(target.outcomes.flips_GNN).flatten(1)
        first_G = flips_GK.int().argmax(1)
        pair_G2 = _ends(first_G, target.graphs.adjacency_GNN.shape[1])
        return {"exhaustive": torch.where(flips_GK.any(1, keepdim=True), pair_G2, -1)}


def drawn_pairs(weight_GK: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Some pairs of each graph, with replacement: int64 [G, count, 2]; -1, -1 where there is none.

    Args:
        weight_GK: float >= 0, K = N^2: how likely each pair is.
        count: pairs a graph.
        draws: CPU generator.
    """
    num_places = round(weight_GK.shape[1] ** 0.5)
    has_any_G = weight_GK.sum(1) > 0
    place_Gc = torch.full((len(weight_GK), count), -1)
    if bool(has_any_G.any()):
        drawn = torch.multinomial(weight_GK[has_any_G], count, replacement=True, generator=draws)
        place_Gc[has_any_G] = drawn
    return torch.where((place_Gc >= 0)[..., None], _ends(place_Gc, num_places), -1)


def _steepest(gradient_BNN: Tensor, is_choice_BNN: Tensor) -> Tensor:
    """The choice of the most negative gradient, the first of equal ones."""
    scale_B11 = gradient_BNN.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    score_BNN = (gradient_BNN / scale_B11 * _DIGITS).round()
    score_BK = score_BNN.masked_fill(~is_choice_BNN | (gradient_BNN > 0), torch.inf).flatten(1)
    least_B1 = score_BK.amin(1, keepdim=True)
    place_B = (score_BK == least_B1).int().argmax(1)
    return torch.where(least_B1.isfinite(), _ends(place_B, gradient_BNN.shape[1]), -1)


def _ends(place: Tensor, num_places: int) -> Tensor:
    return torch.stack([place // num_places, place % num_places], -1)
