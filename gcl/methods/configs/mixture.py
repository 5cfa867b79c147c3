"""Settings of the mixture that ProGCL weighs negatives by, for nodes and for whole graphs."""

from typing import Literal

from pydantic import Field

from gcl.config import Config


class MixtureConfig(Config):
    """How the mixture of two Beta distributions is fitted to the similarities.

    Released code: once, to 100 random columns of the similarities, by 10 iterations from a share of false
    negatives of .05 (.15 for one data set).
    """

    initial_false_share: float = Field(
        0.05, gt=0, lt=1, description="share of false negatives that the fit starts from, in (0, 1)"
    )
    similarity_scaling: Literal["min_max", "cosine"] = Field(
        "min_max",
        description="cosines are scaled to [0, 1] from the extremes of those fitted to (min_max), or from -1 "
        "and 1, as released (cosine)",
    )
    num_fit_columns: int = Field(
        100,
        ge=1,
        le=10_000,
        description="nodes, or graphs, whose similarities with all are fitted to: count >= 1",
    )
    num_fit_iterations: int = Field(
        10, ge=1, le=1000, description="iterations of expectation-maximisation: count >= 1"
    )
