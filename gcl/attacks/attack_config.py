"""Settings of the attacks."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gcl.config import Config

AttackName = Literal["random", "grad_argmax", "genetic", "rl_s2v", "exhaustive"]


def _without_repeats(names: tuple[AttackName, ...]) -> tuple[AttackName, ...]:
    if len(set(names)) != len(names):
        raise ValueError("an attack is named twice")
    return names


class GeneticConfig(Config):
    """Genetic search over single edges, by the loss of the true class."""

    population: int = Field(50, ge=2, le=100_000, description="edges kept at a time: count >= 2")
    rounds: int = Field(10, ge=1, le=100_000, description="generations, the first included: count >= 1")
    crossover_rate: float = Field(0.1, ge=0, le=1, description="probability of taking another's second end")
    mutation_rate: float = Field(0.2, ge=0, le=1, description="probability of a new end in the component")


class RlS2vConfig(Config):
    """RL-S2V: Q-learning of two decisions, on embeddings by structure2vec.

    As in the original, which took 100,000 steps and so had the best of ten times as many evaluations.
    """

    steps: int = Field(10_000, ge=1, le=10_000_000, description="steps of the optimiser: count >= 1")
    evaluate_every: int = Field(100, ge=1, description="steps between greedy evaluations: count >= 1")
    batch_size: int = Field(50, ge=1, le=100_000, description="episodes of a step: count >= 1")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="step size of Adam")
    replay_size: int = Field(50_000, ge=1, le=10_000_000, description="episodes remembered: count >= 1")
    burn_in: int = Field(100, ge=1, le=100_000, description="batches played before the first step: count")
    copy_every: int = Field(100, ge=1, description="steps between copies of the target network: count >= 1")
    num_rounds: int = Field(5, ge=1, le=16, description="rounds of messages: count >= 1")
    embedding_size: int = Field(64, ge=1, le=4096, description="width of embeddings: count >= 1")
    hidden_size: int = Field(64, ge=1, le=4096, description="units of each Q head: count >= 1")


class AttackConfig(Config):
    """Which attacks are run on a victim; each may add one edge within a component."""

    attacks: Annotated[tuple[AttackName, ...], AfterValidator(_without_repeats)] = Field(
        ("random", "grad_argmax", "genetic", "rl_s2v", "exhaustive"),
        min_length=1,
        description="the attacks: random, grad_argmax, genetic, rl_s2v, exhaustive",
    )
    exclude_existing: bool = Field(
        True,
        description="whether edges that are there already are no choice; the original lets attacks waste "
        "themselves on them",
    )
    genetic: GeneticConfig = Field(GeneticConfig(), description="the genetic attack")
    rl_s2v: RlS2vConfig = Field(RlS2vConfig(), description="the reinforcement learning attack")
