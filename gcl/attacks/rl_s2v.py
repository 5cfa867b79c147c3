"""RL-S2V: an edge as two decisions, learned from the victim's answers alone.

Shape legend: G graphs, B episodes of a step, N places for nodes, D embedding.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gcl.attacks.attack_config import RlS2vConfig
from gcl.attacks.base import Target
from gcl.attacks.padded import PaddedGraphs, no_pairs
from gcl.attacks.structure2vec import Structure2Vec, pooled, two_layers
from gcl.random import torch_generator
from gcl.threads import one_thread

_GRAPHS_AT_ONCE = 500


class RlS2v:
    """RL-S2V (Dai et al., ICML 2018): Q-learning with horizon 2 on the graphs that are attacked.

    First a node is chosen, then another of its component; the reward, +1 where the victim then answers
    wrongly and -1 where not, comes at the end and is not discounted. Behaviour is uniformly random
    throughout, so episodes are drawn from the table of outcomes. Both decisions of an episode are in one
    replay memory. Learned on the very graphs that are attacked (the original's setting I), those classified
    rightly.

    Args:
        config: sizes and steps.
    """

    def __init__(self, config: RlS2vConfig) -> None:
        self.config = config

    def choose(self, target: Target, *, seed: int) -> Mapping[str, Tensor]:
        """See `gcl.attacks.base.Attack`.

        Two choices: `rl_s2v` is that of the last evaluation. `rl_s2v_best` is that of the evaluation with
        the lowest accuracy, which is what the original reports; it is chosen by its result and flatters the
        attack.
        """
        attacked_A = torch.nonzero(target.is_right_G & target.admissible_GNN.any(2).any(1))[:, 0]
        last_G2, best_G2 = no_pairs(len(target.graphs)), no_pairs(len(target.graphs))
        if len(attacked_A):
            with one_thread():
                learning = _Learning(self.config, target, attacked_A, seed)
                last_G2[attacked_A], best_G2[attacked_A] = learning.run()
        return {"rl_s2v": last_G2, "rl_s2v_best": best_G2}


class _QNetwork(nn.Module):
    """Values of choosing each node: a head a decision on [node embedding; graph embedding]."""

    def __init__(self, config: RlS2vConfig, generator: torch.Generator) -> None:
        super().__init__()
        size = config.embedding_size
        self.encoder = Structure2Vec(
            2, embedding_size=size, num_rounds=config.num_rounds, generator=generator
        )
        self.heads = nn.ModuleList(two_layers(2 * size, config.hidden_size, 1, generator) for _ in range(2))

    def forward(self, graphs: PaddedGraphs, first_B: Tensor | None) -> Tensor:
        """Q [B, N] of the first decision, or with `first_B`, the node chosen, of the second."""
        is_node_BN = graphs.is_node_GN
        is_first_BN = torch.zeros_like(is_node_BN)
        if first_B is not None:
            is_first_BN[torch.arange(len(first_B)), first_B] = True
        x_BN2 = torch.stack([is_node_BN & ~is_first_BN, is_first_BN], -1).float()
        h_BND = self.encoder.nodes(graphs.adjacency_GNN.float(), x_BN2)
        g_BND = pooled(h_BND)[:, None].expand_as(h_BND)
        head = self.heads[0 if first_B is None else 1]
        q_BN: Tensor = head(torch.cat([h_BND, g_BND], -1))[..., 0]
        return q_BN


class _Learning:
    """Learning on the graphs under attack; G counts these."""

    def __init__(self, config: RlS2vConfig, target: Target, attacked_A: Tensor, seed: int) -> None:
        self.config = config
        self.graphs = target.graphs.take(attacked_A)
        self.admissible_GNN = target.admissible_GNN[attacked_A]
        self.flips_GNN = target.outcomes.flips_GNN[attacked_A]
        self.draws = torch_generator(seed, "rl_s2v_episodes")
        self.network = _QNetwork(config, torch_generator(seed, "rl_s2v_weights"))
        self.target_network = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.episode_R3 = torch.empty(config.replay_size, 3, dtype=torch.int64)  # graph, first, second
        self.num_played = 0

    def run(self) -> tuple[Tensor, Tensor]:
        """The last greedy choice [G, 2], and the one that fooled the victim most often."""
        config = self.config
        for _ in range(config.burn_in):
            self._play()
        best_G2, most_flips = no_pairs(len(self.graphs)), -1
        pair_G2 = best_G2
        for step in range(1, config.steps + 1):
            self._play()
            self._learn()
            if step % config.copy_every == 0:
                self.target_network.load_state_dict(self.network.state_dict())
            if step % config.evaluate_every == 0 or step == config.steps:
                pair_G2 = self._greedy()
                num_flips = int(self._flips(torch.arange(len(pair_G2)), pair_G2).sum())
                if num_flips > most_flips:
                    best_G2, most_flips = pair_G2, num_flips
        return pair_G2, best_G2

    def _play(self) -> None:
        """Uniformly random episodes into the memory, over its oldest."""
        size = self.config.batch_size
        graph_B = torch.randint(len(self.graphs), (size,), generator=self.draws)
        allowed_BNN = self.admissible_GNN[graph_B]
        first_B = torch.multinomial(allowed_BNN.any(2).float(), 1, generator=self.draws)[:, 0]
        second_weight_BN = allowed_BNN[torch.arange(size), first_B].float()
        second_B = torch.multinomial(second_weight_BN, 1, generator=self.draws)[:, 0]
        slot_B = (self.num_played + torch.arange(size)) % len(self.episode_R3)
        self.episode_R3[slot_B] = torch.stack([graph_B, first_B, second_B], 1)
        self.num_played += size

    def _learn(self) -> None:
        decision = int(torch.randint(2, (1,), generator=self.draws))
        num_known = min(self.num_played, len(self.episode_R3))
        drawn_B = torch.randint(num_known, (self.config.batch_size,), generator=self.draws)
        graph_B, first_B, second_B = self.episode_R3[drawn_B].unbind(1)
        graphs = self.graphs.take(graph_B)
        if decision == 0:
            chosen_B = first_B
            with torch.no_grad():
                next_BN = self.target_network(graphs, first_B)
            allowed_BN = self.admissible_GNN[graph_B, first_B]
            value_B = next_BN.masked_fill(~allowed_BN, -torch.inf).amax(1)
        else:
            chosen_B = second_B
            flips_B = self._flips(graph_B, torch.stack([first_B, second_B], 1))
            value_B = flips_B.float() * 2 - 1
        with torch.enable_grad():
            q_BN = self.network(graphs, first_B if decision else None)
            loss = (q_BN.gather(1, chosen_B[:, None])[:, 0] - value_B).square().mean()
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
        self.optimizer.step()

    def _greedy(self) -> Tensor:
        parts = []
        with torch.no_grad():
            for graphs_B in torch.split(torch.arange(len(self.graphs)), _GRAPHS_AT_ONCE):
                part, allowed_BNN = self.graphs.take(graphs_B), self.admissible_GNN[graphs_B]
                q_BN = self.network(part, None).masked_fill(~allowed_BNN.any(2), -torch.inf)
                first_B = q_BN.argmax(1)
                allowed_BN = allowed_BNN[torch.arange(len(part)), first_B]
                second_B = self.network(part, first_B).masked_fill(~allowed_BN, -torch.inf).argmax(1)
                parts.append(torch.stack([first_B, second_B], 1))
        return torch.cat(parts)

    def _flips(self, graph_B: Tensor, pair_B2: Tensor) -> Tensor:
        return self.flips_GNN[graph_B, pair_B2[:, 0], pair_B2[:, 1]]
