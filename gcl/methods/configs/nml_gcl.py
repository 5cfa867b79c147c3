"""Settings of NML-GCL."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gcl.methods.configs.graphs import GraphEncoderConfig, GraphViewConfig, NegativesConfig, Rate


class NmlGclConfig(GraphEncoderConfig, GraphViewConfig, NegativesConfig):
    """NML-GCL: contrast of two views, a learned metric weighing negatives; defaults as released for Cora."""

    name: Literal["nml_gcl"] = Field("nml_gcl", description="the method: nml_gcl")
    embedding_size: int = Field(512, ge=1, le=65_536, description="D, width of the embedding: count >= 1")
    activation: Literal["relu", "prelu", "rrelu", "elu"] = Field(
        "rrelu", description="activation between layers: relu, prelu, rrelu or elu"
    )
    activate_last: bool = Field(False, description="whether the activation follows the last layer too")
    edge_drop_rates: tuple[Rate, Rate] = Field(
        (0.4, 0.4), description="edges dropped in the first and second view: two probabilities in [0, 1)"
    )
    feature_mask_rates: tuple[Rate, Rate] = Field(
        (0.1, 0.1),
        description="feature columns set to zero in the first and second view: two probabilities in [0, 1)",
    )
    temperature: float = Field(0.8, gt=0, le=100, description="divides the cosine scores: tau > 0")

    metric: Literal["network", "cosine", "uniform", "free_form"] = Field(
        "network",
        description="what weighs the negatives: network, learned; cosine of the embeddings (an ablation); "
        "uniform: nothing, which is InfoNCE; free_form: the weights that minimise the loss themselves, no "
        "network (our extension, for alpha of 1 to 2 with alpha_scale none)",
    )
    metric_heads: Literal["one", "two"] = Field(
        "one", description="networks: one for anchors and candidates, or one for each"
    )
    metric_sign: Literal[1, -1] = Field(
        1, description="1, as released; -1 turns the metric round: similar rows of it weigh less"
    )
    metric_temperature: float = Field(
        1.0, gt=0, le=100, description="divides the cosines of the metric: tau_m > 0"
    )
    metric_hidden_size: int = Field(
        512, ge=1, le=65_536, description="width of the network's hidden layer: count >= 1"
    )
    metric_size: int = Field(512, ge=1, le=65_536, description="width of the network's output: count >= 1")
    metric_activation: Literal["relu", "rrelu", "elu"] = Field(
        "rrelu", description="activation of the network's hidden layer: relu, rrelu or elu"
    )
    include_self: bool = Field(
        True, description="whether the positive is among the candidates that share the weights, as released"
    )
    detach_metric: bool = Field(
        False, description="whether the encoder takes the weights for granted: no gradient through them"
    )

    use_kl: bool = Field(True, description="whether weights pay for their divergence from uniform ones")
    alpha: float = Field(0.1, ge=0, le=1e6, description="coefficient of that divergence, >= 0")
    alpha_scale: Literal["n_minus_1", "none"] = Field(
        "n_minus_1",
        description="what alpha is multiplied by: nodes contrasted - 1, as released, or nothing",
    )

    joint: bool = Field(
        False, description="whether one step moves encoder and network together; if not, they take turns"
    )
    metric_steps: int = Field(
        2, ge=0, le=1000, description="T_M, steps of the network before each step of the encoder: count >= 0"
    )
    metric_start_epoch: int = Field(
        0, ge=0, description="epochs with uniform weights before the metric begins: count >= 0"
    )
    metric_ramp_epochs: int = Field(
        0,
        ge=0,
        description="epochs over which the metric's logits grow linearly to full size for the encoder, or "
        "alpha of free_form falls to its own: count >= 0",
    )
    metric_learning_rate: float | None = Field(
        None, gt=0, le=10, description="step size of the network, > 0; none for the trainer's"
    )
    metric_weight_decay: float | None = Field(
        None, ge=0, le=10, description="L2 coefficient of the network, >= 0; none for the trainer's"
    )

    @model_validator(mode="after")
    def _free_form_has_a_divergence(self) -> Self:
        if self.metric != "free_form":
            return self
        if not self.use_kl or self.alpha == 0:
            raise ValueError(
                "metric=free_form needs use_kl=true and alpha above 0: without the divergence from uniform "
                "weights the best ones put everything on the least similar node"
            )
        return self
