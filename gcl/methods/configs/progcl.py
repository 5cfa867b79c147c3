"""Settings of ProGCL."""

from typing import Literal

from pydantic import Field

from gcl.methods.configs.grace import GraceSettings


class ProGclConfig(GraceSettings):
    """ProGCL: GRACE until `start_epoch`, then negatives weighted by a mixture of their similarities."""

    name: Literal["progcl"] = Field("progcl", description="the method: progcl")
    # Released code: the mixture is fitted once, at epoch 400, to 100 random columns of the similarities, by
    # 10 iterations from a share of false negatives of .05 (.15 for one data set).
    start_epoch: int = Field(
        400, ge=1, le=1_000_000, description="epochs of plain GRACE before the mixture is fitted: count >= 1"
    )
    initial_false_share: float = Field(
        0.05, gt=0, lt=1, description="share of false negatives that the fit starts from, in (0, 1)"
    )
    similarity_scaling: Literal["min_max", "cosine"] = Field(
        "min_max",
        description="cosines are scaled to [0, 1] from the extremes of those fitted to (min_max), or "
        "from -1 and 1, as released (cosine)",
    )
    num_fit_columns: int = Field(
        100, ge=1, le=10_000, description="nodes whose similarities with all are fitted to: count >= 1"
    )
    num_fit_iterations: int = Field(
        10, ge=1, le=1000, description="iterations of expectation-maximisation: count >= 1"
    )
