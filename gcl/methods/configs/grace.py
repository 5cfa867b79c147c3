"""Settings of GRACE, and what the methods that rest on it share with it."""

from typing import Literal

from pydantic import Field

from gcl.methods.configs.graphs import GraphEncoderConfig, GraphViewConfig, NegativesConfig, ProjectionConfig


class GraceSettings(GraphEncoderConfig, GraphViewConfig, ProjectionConfig, NegativesConfig):
    """GRACE and the methods that weigh its negatives."""

    temperature: float = Field(0.4, gt=0, le=100, description="divides the cosine scores: tau > 0")


class GraceConfig(GraceSettings):
    """GRACE: contrast of two views of the graph, every other node of both views a negative."""

    name: Literal["grace"] = Field("grace", description="the method: grace")
