"""What a user may set of the evaluation stage."""

from typing import Literal

from pydantic import Field, field_validator

from gcl.config import Config


class EvaluateConfig(Config):
    """Protocols, probe, and what is made of the probe's probabilities."""

    protocols: tuple[str, ...] | Literal["auto"] = Field(
        "auto",
        description="names of protocols; auto: the data's own splits or else random-10-10-80 (of collections "
        "svm-10fold and random-80-10-10), kmeans-final, kmeans-raw where cluster.normalise is off, and "
        "link-10-5 where edges were held out",
    )
    probe: Literal["logistic", "linear"] = Field(
        "logistic",
        description="logistic: L2-penalised multinomial regression, C chosen on validation; "
        "linear: one softmax layer by Adam, read at the best validation epoch; under heco-20, -40 and -60 "
        "from Xavier-uniform weights, each metric read at its own best epoch",
    )
    normalise: bool = Field(True, description="scale embeddings to length 1 before the probe")
    probe_c: tuple[float, ...] = Field(
        tuple(2.0**power for power in range(-10, 11, 2)),
        min_length=1,
        max_length=64,
        description="logistic: inverse penalties to choose from, ascending; positive",
    )
    probe_epochs: int = Field(300, ge=1, le=100_000, description="linear: full-batch Adam steps; count")
    probe_learning_rate: float = Field(0.01, gt=0, le=10, description="linear: Adam's step size")
    num_probe_seeds: int = Field(10, ge=1, le=1000, description="linear: initialisations a split; count")
    num_splits: int | Literal["auto"] = Field(
        "auto",
        description="random splits; auto: 20 up to 10,000 labelled nodes, 10 up to 100,000, 5 above; count",
    )
    split_seed: int = Field(
        0, ge=0, description="seed of the random splits, apart from the run's so that runs share their splits"
    )
    max_nodes: int = Field(
        200_000,
        ge=100,
        le=1_000_000_000,
        description="labelled nodes to measure on; of more, one sample drawn with split_seed is measured, "
        "the same for the method and its controls; predictions still answer for every node; count",
    )
    num_clustering_seeds: int = Field(
        10, ge=1, le=1000, description="k-means seeds of kmeans-final and -raw; count"
    )
    num_restarts: int = Field(10, ge=1, le=1000, description="k-means++ starts a seed; count")
    minibatch_threshold: int = Field(
        1_000_000, ge=1, description="nodes above which kmeans-final and -raw take mini-batches; count"
    )
    oracle_starts: tuple[Literal["kmeans", "legacy_kmeans"], ...] = Field(
        ("kmeans",),
        min_length=1,
        description="how the label oracle clusters each check of the run. kmeans: as kmeans-final does; "
        "legacy_kmeans: rows as they are, one start by total distance, as released codes of deep graph "
        "clustering do before they choose by labels (up to 500 Lloyd steps a check)",
    )
    silhouette_sample: int = Field(
        2000, ge=10, le=20_000, description="nodes the silhouette is taken on; count"
    )
    num_calibration_bins: int = Field(15, ge=2, le=200, description="equal-width bins of the ECE; count")
    target_risk: float = Field(
        0.1, gt=0, lt=1, description="abstain so that the error rate of the rest stays below this; (0, 1)"
    )
    risk_confidence: float = Field(
        0.9, gt=0, lt=1, description="probability over calibration nodes that target_risk holds; (0, 1)"
    )
    target_coverage: float = Field(
        0.8, gt=0, le=1, description="coverage at which the selective risk is reported; (0, 1]"
    )
    conformal: Literal["lac", "aps", "daps"] = Field(
        "aps", description="score of the prediction sets; daps mixes in the neighbours' scores"
    )
    conformal_alpha: float = Field(
        0.1, gt=0, lt=1, description="prediction sets miss the class this often; (0, 1)"
    )
    daps_weight: float = Field(
        0.5, ge=0, le=1, description="daps: weight of the neighbours' mean score; [0, 1]"
    )

    @field_validator("probe_c")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) <= 0 or list(value) != sorted(set(value)):
            raise ValueError("probe_c must be positive and strictly ascending")
        return value

    @field_validator("oracle_starts")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"oracle_starts must be distinct; not {list(value)}")
        return value

    @field_validator("protocols")
    @classmethod
    def _registered(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        from gcl.evaluation.protocols import PROTOCOLS

        if value == "auto":
            return value
        unknown = [name for name in value if name not in PROTOCOLS]
        if unknown or not value or len(set(value)) != len(value):
            raise ValueError(
                f"protocols must be distinct names out of {', '.join(PROTOCOLS)}; not {list(value)}"
            )
        return value

    def num_random_splits(self, num_labelled: int) -> int:
        """How many random splits a data set of this size gets."""
        if self.num_splits != "auto":
            return self.num_splits
        return 20 if num_labelled <= 10_000 else 10 if num_labelled <= 100_000 else 5
