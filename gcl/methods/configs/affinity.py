"""Settings of affinity uncertainty, which AUGCL weighs negatives by; shared by nodes and whole graphs."""

from typing import Literal

from pydantic import Field

from gcl.config import Config

EstimatorName = Literal["gambler", "softmax", "entropy", "distance", "analytic"]
ESTIMATOR = (
    "uncertainty of a pair: abstention of a trained Deep Gamblers head (gambler); softmax "
    "response or entropy of the same network trained with cross-entropy; inverse distance of candidates "
    "outside the anchor's group (distance); or the ideal head's abstention for the posterior of two "
    "Gaussians a row (analytic)"
)


class AffinityConfig(Config):
    """How uncertain the affinity of a pair is, and what weight that makes."""

    estimator: EstimatorName = Field("analytic", description=ESTIMATOR)
    reward: float = Field(
        1.9, gt=1, le=2, description="o of gambler and analytic: abstaining returns 1/o of a right answer"
    )
    alpha_scale: float = Field(
        1.0, gt=0, le=1000, description="alpha, mean weight of a row's negatives, in multiples of 1/mu"
    )
    mu_includes_diagonal: bool = Field(
        True, description="whether the mean uncertainty mu of a row counts its positive too, as released"
    )
    denominator_includes_positive: bool = Field(
        True, description="whether the positive is a term of the denominator, as released"
    )
    warmup_epochs: int = Field(
        100, ge=1, description="epochs of uniform weights before the negatives are weighted: count >= 1"
    )
    estimator_hidden_size: int = Field(
        128, ge=1, le=8192, description="width of the trained estimator's two hidden layers: count >= 1"
    )
    fit_passes: int = Field(
        10, ge=1, le=10_000, description="passes over fresh views that fit the estimator: count >= 1"
    )
    pretrain_passes: int = Field(
        2, ge=0, le=10_000, description="passes of cross-entropy before the first fit: count, 0 as released"
    )
    fit_learning_rate: float = Field(0.01, gt=0, le=1, description="step size of the estimator's Adam")
    fit_batch_size: int = Field(
        2048, ge=1, le=1 << 20, description="pairs of an estimator's step: count >= 1"
    )
    refresh_every: int = Field(
        0, ge=0, description="epochs between refits of the estimator after the first: count, 0 for none"
    )
    refresh_passes: int = Field(
        2, ge=1, le=10_000, description="passes of a refit, which starts from the weights: count >= 1"
    )

    @property
    def uniform_epochs(self) -> int:
        """Epochs before the first that is weighted: a training of no more than these has none."""
        return self.warmup_epochs
