"""Settings of a victim: the classifier that is attacked, and how it was trained."""

from typing import Literal

from pydantic import Field

from gcl.attacks.components import ComponentsConfig
from gcl.config import Config

VictimName = Literal["scratch", "graphcl", "augcl"]


class VictimConfig(Config):
    """One victim. Sizes, step and batch are the original's; it trained for 1000 epochs."""

    graphs: ComponentsConfig = Field(ComponentsConfig(), description="the generated graphs")
    training: VictimName = Field(
        "scratch",
        description="all epochs supervised (scratch), or the first of them contrastive: GraphCL, or GraphCL "
        "whose negatives weigh by the uncertainty of their affinity in the second half (augcl)",
    )
    num_rounds: int = Field(3, ge=1, le=16, description="K, rounds of messages: count >= 1")
    embedding_size: int = Field(64, ge=1, le=4096, description="width of embeddings: count >= 1")
    hidden_size: int = Field(32, ge=1, le=4096, description="units before the scores: count >= 1")
    epochs: int = Field(300, ge=1, le=100_000, description="epochs, contrastive ones included: count >= 1")
    contrastive_share: float = Field(
        0.1, gt=0, lt=1, description="share of the epochs that is contrastive, in (0, 1); none of scratch"
    )
    batch_size: int = Field(50, ge=2, le=10_000, description="graphs of a step: count >= 2")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="step size of Adam")
    selection: Literal["validation", "test"] = Field(
        "validation",
        description="graphs whose loss chooses the epoch that is kept; test is the original's habit, and "
        "leaks: its figures are no fair results",
    )

    temperature: float = Field(0.5, gt=0, description="tau that divides the cosines")
    drop_rate: float = Field(0.2, ge=0, lt=1, description="share of nodes the second view lacks, in [0, 1)")
    denominator_includes_positive: bool = Field(
        False, description="whether the positive is a term of the denominator; not in GraphCL's code"
    )
    reward: float = Field(1.9, gt=1, le=2, description="o of the estimator's Deep Gamblers loss, in (1, 2]")
    fit_passes: int = Field(10, ge=1, le=1000, description="passes that fit the estimator: count >= 1")
    pretrain_passes: int = Field(
        2, ge=0, le=1000, description="passes of cross-entropy before them: count, 0 as released"
    )
    fit_learning_rate: float = Field(0.01, gt=0, le=1, description="step size of the estimator's Adam")
    fit_batch_size: int = Field(2048, ge=1, description="pairs of an estimator's step: count >= 1")

    @property
    def contrastive_epochs(self) -> int:
        """Epochs before the supervised ones; at least one of each where there are two."""
        if self.training == "scratch":
            return 0
        return min(max(1, round(self.contrastive_share * self.epochs)), self.epochs - 1)

    @property
    def plain_epochs(self) -> int:
        """Contrastive epochs with equal weights; the estimator of augcl is fitted after them."""
        return self.contrastive_epochs // 2 if self.training == "augcl" else self.contrastive_epochs
