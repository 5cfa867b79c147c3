"""Settings of AUGCL on the nodes of a graph."""

from typing import Literal

from pydantic import Field

from gcl.methods.configs.affinity import AffinityConfig
from gcl.methods.configs.grace import GraceSettings


class AugclConfig(GraceSettings, AffinityConfig):
    """AUGCL on GRACE: negatives weigh by how uncertain their affinity to the anchor is."""

    name: Literal["augcl"] = Field("augcl", description="the method: augcl")
    warmup_epochs: int = Field(
        100, ge=1, description="epochs of plain GRACE before the negatives are weighted: count >= 1"
    )
    intra: Literal["shared", "uniform"] = Field(
        "shared",
        description="negatives of the anchor's own view: weighted as those of the other view, or all 1",
    )
    num_anchors: int = Field(
        256,
        ge=1,
        le=65_536,
        description="anchors of a weighted step of a trained estimator, drawn anew: count >= 1",
    )
    num_candidates: int = Field(
        2048,
        ge=2,
        le=65_536,
        description="nodes that these anchors, which are among them, are contrasted with: count >= 2",
    )
    num_fit_anchors: int = Field(
        64, ge=1, le=65_536, description="anchors of a pass of fitting, against num_candidates: count >= 1"
    )
