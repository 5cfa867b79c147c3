"""Settings of GRACE."""

from typing import Literal

from pydantic import Field

from gcl.methods.configs.graphs import GraphEncoderConfig, GraphViewConfig, NegativesConfig, ProjectionConfig


class GraceConfig(GraphEncoderConfig, GraphViewConfig, ProjectionConfig, NegativesConfig):
    """GRACE: contrast of two views of the graph, every other node of both views a negative."""

    name: Literal["grace"] = Field("grace", description="the method: grace")
    temperature: float = Field(0.4, gt=0, le=100, description="divides the cosine scores: tau > 0")
