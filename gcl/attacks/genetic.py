"""Genetic attack: a population of edges for each graph, selected by the loss of the true class.

Reads the table of outcomes, so that a generation of all graphs is a few lookups. Shape legend: A graphs under
attack, N places for nodes, Q edges of a population.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from gcl.attacks.attack_config import GeneticConfig
from gcl.attacks.base import Target
from gcl.attacks.padded import no_pairs
from gcl.attacks.simple import drawn_pairs
from gcl.random import torch_generator


class Genetic:
    """Genetic search as in Dai et al. (ICML 2018), with single edges for individuals.

    Each generation keeps the half with the largest losses, and fills up with draws in proportion to the
    loss. An edge may then take the second end of another, or a new end; a change that is not admissible is
    not made. A graph is done when one of its edges makes the victim answer wrongly.

    Args:
        config: sizes and rates.
    """

    def __init__(self, config: GeneticConfig) -> None:
        self.config = config

    def choose(self, target: Target, *, seed: int) -> Mapping[str, Tensor]:
        """See `gcl.attacks.base.Attack`; without success the edge of the largest loss of the last round."""
        draws = torch_generator(seed, "genetic")
        found_G2 = no_pairs(len(target.graphs))
        admissible_GNN = target.admissible_GNN
        active_A = torch.nonzero(target.is_right_G & admissible_GNN.any(2).any(1))[:, 0]
        pair_AQ2 = drawn_pairs(admissible_GNN[active_A].flatten(1).float(), self.config.population, draws)
        for number in range(self.config.rounds):
            row_A1 = active_A[:, None]
            flips_AQ = target.outcomes.flips_GNN[row_A1, pair_AQ2[..., 0], pair_AQ2[..., 1]]
            loss_AQ = target.outcomes.loss_GNN[row_A1, pair_AQ2[..., 0], pair_AQ2[..., 1]]
            best_A = torch.where(flips_AQ, torch.inf, loss_AQ).argmax(1)
            found_G2[active_A] = pair_AQ2[torch.arange(len(active_A)), best_A]
            is_left_A = ~flips_AQ.any(1)
            active_A, pair_AQ2, loss_AQ = active_A[is_left_A], pair_AQ2[is_left_A], loss_AQ[is_left_A]
            if not len(active_A) or number + 1 == self.config.rounds:
                break
            allowed_ANN = admissible_GNN[active_A]
            pair_AQ2 = _selected(pair_AQ2, loss_AQ, draws)
            pair_AQ2 = self._crossed(pair_AQ2, allowed_ANN, draws)
            pair_AQ2 = self._mutated(pair_AQ2, allowed_ANN, draws)
        return {"genetic": found_G2}

    def _crossed(self, pair_AQ2: Tensor, allowed_ANN: Tensor, draws: torch.Generator) -> Tensor:
        """Second ends taken from another edge of the same population."""
        shape = pair_AQ2.shape[:2]
        partner_AQ = torch.randint(shape[1], shape, generator=draws)
        end_AQ = pair_AQ2[..., 1].gather(1, partner_AQ)
        is_tried_AQ = torch.rand(shape, generator=draws) < self.config.crossover_rate
        return _with_second_ends(pair_AQ2, end_AQ, is_tried_AQ, allowed_ANN)

    def _mutated(self, pair_AQ2: Tensor, allowed_ANN: Tensor, draws: torch.Generator) -> Tensor:
        """Either end drawn anew among what the other may be joined with."""
        shape = pair_AQ2.shape[:2]
        is_turned_AQ = torch.rand(shape, generator=draws) < 0.5
        pair_AQ2 = torch.where(is_turned_AQ[..., None], pair_AQ2.flip(-1), pair_AQ2)
        row_A1 = torch.arange(len(pair_AQ2))[:, None]
        choice_AQN = allowed_ANN[row_A1, pair_AQ2[..., 0]]
        end_AQ = torch.multinomial(choice_AQN.flatten(0, 1).float(), 1, generator=draws).view(shape)
        is_tried_AQ = torch.rand(shape, generator=draws) < self.config.mutation_rate
        return _with_second_ends(pair_AQ2, end_AQ, is_tried_AQ, allowed_ANN)


def _selected(pair_AQ2: Tensor, loss_AQ: Tensor, draws: torch.Generator) -> Tensor:
    num_kept = (loss_AQ.shape[1] + 1) // 2
    kept_Ak = loss_AQ.argsort(dim=1, descending=True, stable=True)[:, :num_kept]
    weight_AQ = loss_AQ.clamp(min=1e-12)
    drawn = torch.multinomial(weight_AQ, loss_AQ.shape[1] - num_kept, replacement=True, generator=draws)
    order_AQ = torch.cat([kept_Ak, drawn], 1)
    return pair_AQ2.gather(1, order_AQ[..., None].expand(-1, -1, 2))


def _with_second_ends(pair_AQ2: Tensor, end_AQ: Tensor, is_tried_AQ: Tensor, allowed_ANN: Tensor) -> Tensor:
    row_A1 = torch.arange(len(pair_AQ2))[:, None]
    is_taken_AQ = is_tried_AQ & allowed_ANN[row_A1, pair_AQ2[..., 0], end_AQ]
    second_AQ = torch.where(is_taken_AQ, end_AQ, pair_AQ2[..., 1])
    return torch.stack([pair_AQ2[..., 0], second_AQ], -1)
