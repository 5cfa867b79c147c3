"""Settings of ProGCL."""

from typing import Literal

from pydantic import Field

from gcl.methods.configs.grace import GraceSettings
from gcl.methods.configs.mixture import MixtureConfig


class ProGclConfig(GraceSettings, MixtureConfig):
    """ProGCL: GRACE until `start_epoch`, then negatives weighted by a mixture of their similarities."""

    name: Literal["progcl"] = Field("progcl", description="the method: progcl")
    start_epoch: int = Field(
        400,
        ge=1,
        le=1_000_000,
        description="epochs of plain GRACE before the mixture is fitted, 400 as released: count >= 1",
    )
