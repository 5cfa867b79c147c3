"""Settings of a victim: the classifier that is attacked, and how it was trained."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gcl.attacks.components import ComponentsConfig
from gcl.config import Config
from gcl.methods.configs.affinity import AffinityConfig

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
    fit_batch_size: int = Field(
        2048, ge=1, le=1 << 20, description="pairs of an estimator's step: count >= 1"
    )

    @model_validator(mode="after")
    def _every_phase_has_epochs(self) -> Self:
        least = {"scratch": 0, "graphcl": 1, "augcl": 2}[self.training]
        if self.contrastive_epochs < least:
            raise ValueError(
                f"training={self.training} needs {least} contrastive epochs and a supervised one, or more; "
                f"epochs={self.epochs} with contrastive_share={self.contrastive_share:g} make "
                f"{self.contrastive_epochs}: raise either"
            )
        return self

    @model_validator(mode="after")
    def _a_batch_is_filled(self) -> Self:
        if self.graphs.num_train < self.batch_size:
            raise ValueError(
                f"{self.graphs.num_train} training graphs do not fill a batch of {self.batch_size}: set "
                "batch_size lower or graphs.graphs_per_class higher"
            )
        return self

    @property
    def contrastive_epochs(self) -> int:
        """Epochs before the supervised ones; at least one of each where there are two."""
        if self.training == "scratch":
            return 0
        return min(max(1, round(self.contrastive_share * self.epochs)), self.epochs - 1)

    @property
    def affinity(self) -> AffinityConfig:
        """Those settings of AUGCL's estimator that can be set here."""
        return AffinityConfig(
            estimator="gambler",
            reward=self.reward,
            fit_passes=self.fit_passes,
            pretrain_passes=self.pretrain_passes,
            fit_learning_rate=self.fit_learning_rate,
            fit_batch_size=self.fit_batch_size,
        )

    @property
    def plain_epochs(self) -> int:
        """Contrastive epochs with equal weights; the estimator of augcl is fitted after them."""
        return self.contrastive_epochs // 2 if self.training == "augcl" else self.contrastive_epochs
