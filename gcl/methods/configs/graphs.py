"""Settings that the methods on the graph itself share: encoder, views, projection, sampling."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gcl.config import Config
from gcl.methods.configs.rows import EnsembleConfig, MethodInputs

Rate = Annotated[float, Field(ge=0, lt=1)]


class GraphEncoderConfig(EnsembleConfig):
    """A graph convolutional network over the whole graph, see `gcl.graph_encoders`."""

    # As the method's class says; here they can be asked without torch.
    uses_labels: ClassVar[bool] = False
    inputs: ClassVar[MethodInputs] = "graph"

    num_layers: int = Field(2, ge=1, le=16, description="graph convolutions: count >= 1")
    hidden_size: int = Field(
        512, ge=1, le=65_536, description="width of every layer but the last: count >= 1"
    )
    embedding_size: int = Field(256, ge=1, le=65_536, description="D, width of the embedding: count >= 1")
    activation: Literal["relu", "prelu", "rrelu", "elu"] = Field(
        "relu", description="activation between layers: relu, prelu, rrelu or elu"
    )
    activate_last: bool = Field(True, description="whether the activation follows the last layer too")
    normalise_input: Literal["none", "l1", "l2", "columns"] = Field(
        "none",
        description="norm of each feature row before the encoder; columns: each column of the graph to "
        "standard deviation 1, dense ones to mean 0, for unlike units (other nodes cannot be scored then)",
    )
    output: Literal["raw", "l2"] = Field(
        "raw", description="embeddings as the encoder gives them (raw), or rows of unit length (l2)"
    )


class GraphViewConfig(Config):
    """Two augmented views of the graph: edges dropped, feature columns masked."""

    edge_drop_rates: tuple[Rate, Rate] = Field(
        (0.2, 0.4), description="edges dropped in the first and second view: two probabilities in [0, 1)"
    )
    feature_mask_rates: tuple[Rate, Rate] = Field(
        (0.3, 0.4),
        description="feature columns set to zero in the first and second view: two probabilities in [0, 1)",
    )
    drop_both_directions: bool = Field(
        False,
        description="whether an undirected edge is kept or dropped as one; if not, each direction is drawn "
        "by itself, as in the released codes",
    )

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        if not any((*self.edge_drop_rates, *self.feature_mask_rates)):
            raise ValueError("the two views would be identical: give a rate above 0")
        return self


class ProjectionConfig(Config):
    """The head between embedding and loss, dropped afterwards."""

    projector: Literal["none", "mlp"] = Field(
        "mlp", description="layers between embedding and loss: none, or mlp (linear, elu, linear)"
    )
    projection_size: int = Field(
        256, ge=1, le=65_536, description="width of both layers of the mlp: count >= 1"
    )


class NegativesConfig(Config):
    """How many negatives: all pairs exactly, or above a size those of a sample a step."""

    max_exact_nodes: int = Field(
        50_000,
        ge=2,
        description="nodes up to which every pair is a term of the loss; above, a sample a step: count >= 2",
    )
    num_sampled_nodes: int = Field(
        4096, ge=2, le=1 << 20, description="nodes of such a sample, contrasted among themselves: count >= 2"
    )
