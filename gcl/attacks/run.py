"""Running the chosen attacks on one victim."""

from collections.abc import Callable

import torch

from gcl.attacks.attack_config import AttackConfig, AttackName
from gcl.attacks.base import Attack, Attacked, Target, judge
from gcl.attacks.components import LabelledGraphs
from gcl.attacks.genetic import Genetic
from gcl.attacks.padded import PaddedGraphs
from gcl.attacks.rl_s2v import RlS2v
from gcl.attacks.simple import Exhaustive, GradArgmax, RandomSampling
from gcl.attacks.structure2vec import GraphClassifier
from gcl.threads import one_thread

ATTACKS: dict[AttackName, Callable[[AttackConfig], Attack]] = {
    "random": lambda config: RandomSampling(),
    "grad_argmax": lambda config: GradArgmax(),
    "genetic": lambda config: Genetic(config.genetic),
    "rl_s2v": lambda config: RlS2v(config.rl_s2v),
    "exhaustive": lambda config: Exhaustive(),
}
"""How each attack is made."""


def target_of(model: GraphClassifier, graphs: LabelledGraphs, config: AttackConfig) -> Target:
    """A victim and the graphs it is attacked on.

    Args:
        model: the trained victim.
        graphs: with their classes.
        config: which edges may be chosen.
    """
    padded, y_G = PaddedGraphs.of(graphs.graphs), torch.from_numpy(graphs.y_G)
    return Target(model.eval(), padded, y_G, exclude_existing=config.exclude_existing)


def run_attacks(
    target: Target, config: AttackConfig, *, seed: int, on_attack: Callable[[str], None] | None = None
) -> dict[str, Attacked]:
    """What each of the chosen attacks comes to, by name; on one thread.

    Args:
        target: victim and graphs.
        config: which attacks, and their settings.
        seed: of what they draw.
        on_attack: called with an attack's name before it begins.
    """
    results: dict[str, Attacked] = {}
    with one_thread():
        for name in config.attacks:
            if on_attack is not None:
                on_attack(name)
            chosen = ATTACKS[name](config).choose(target, seed=seed)
            results |= {found: judge(target, pair_G2) for found, pair_G2 in chosen.items()}
    return results
