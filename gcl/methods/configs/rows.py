"""Settings that the methods on smoothed rows share: encoder, views, tuplet loss."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gcl.config import Config

MethodInputs = Literal["smoothed", "graph", "smoothed_and_graph", "graph_and_metapaths", "collection"]
AugmentationName = Literal["feature_mask", "entry_dropout", "gaussian_jitter", "encoder_dropout"]


class EnsembleConfig(Config):
    """How many encoders, see `gcl.methods.ensemble`."""

    num_encoders: int = Field(
        1,
        ge=1,
        le=64,
        description="encoders trained side by side from other weights and views, their embeddings joined: "
        "count >= 1",
    )


class RowEncoderConfig(EnsembleConfig):
    """The encoder of smoothed rows, see `gcl.encoders`."""

    # As the method's class says; here they can be asked without torch.
    uses_labels: ClassVar[bool] = False
    inputs: ClassVar[MethodInputs] = "smoothed"

    encoder: Literal["linear", "mlp"] = Field(
        "linear", description="linear: one layer; mlp: linear, batch norm, activation, dropout, linear"
    )
    embedding_size: int = Field(512, ge=1, le=65_536, description="D, width of the embedding: count >= 1")
    hidden_size: int = Field(512, ge=1, le=65_536, description="width of the mlp's hidden layer: count >= 1")
    activation: Literal["relu", "prelu"] = Field("prelu", description="activation of the mlp: relu or prelu")
    dropout_rate: float = Field(
        0.0, ge=0, lt=1, description="dropout of the mlp's hidden layer: probability in [0, 1)"
    )
    use_bias: bool = Field(False, description="whether the last linear layer of the encoder has a bias")
    projector: Literal["none", "mlp"] = Field(
        "none", description="layers between embedding and loss, dropped afterwards: none or mlp (D, relu, D)"
    )
    output: Literal["raw", "l2"] = Field(
        "raw", description="embeddings as the encoder gives them (raw), or rows of unit length (l2)"
    )


class ViewConfig(Config):
    """Augmented views of rows, see `gcl.augment`."""

    augmentations: tuple[AugmentationName, ...] = Field(
        ("entry_dropout",),
        description="augmentations of a view, in order: feature_mask, entry_dropout, gaussian_jitter, "
        "encoder_dropout",
    )
    entry_dropout_rate: float = Field(
        0.5, ge=0, lt=1, description="entries of a row set to zero: probability in [0, 1)"
    )
    feature_mask_rate: float = Field(
        0.2, ge=0, lt=1, description="columns set to zero in a whole batch: probability in [0, 1)"
    )
    jitter_scale: float = Field(
        0.05, ge=0, le=10, description="normal noise, in standard deviations of the column, in [0, 10]"
    )

    def strengths(self) -> dict[str, float]:
        """Augmentation name -> its rate or scale, in the order of application."""
        table = {
            "feature_mask": self.feature_mask_rate,
            "entry_dropout": self.entry_dropout_rate,
            "gaussian_jitter": self.jitter_scale,
            "encoder_dropout": 0.0,
        }
        return {name: table[name] for name in self.augmentations}

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        if len(set(self.augmentations)) != len(self.augmentations):
            raise ValueError(f"each augmentation can be named once: {', '.join(self.augmentations)}")
        return self


class TupletConfig(Config):
    """The multi-class tuplet loss, see `gcl.losses.tuplet`."""

    temperature: float = Field(1.0, gt=0, le=100, description="divides the cosine scores: tau > 0")
    form: Literal["A", "B", "C"] = Field(
        "B", description="B: pairwise tuplets; C: mean of single tuplets; A: positives first"
    )
    debias_prior: float = Field(
        0.0, ge=0, lt=1, description="share of negatives taken to be false: tau_plus in [0, 1), 0 is off"
    )


def check_views_differ(views: ViewConfig, encoder: RowEncoderConfig) -> None:
    """Refuse settings whose views are all the same: the loss would have nothing to learn from."""
    drops_units = encoder.encoder == "mlp" and encoder.dropout_rate > 0
    if drops_units or any(strength > 0 for strength in views.strengths().values()):
        return
    raise ValueError(
        "the views of a node would be identical: give an augmentation a rate above 0, "
        "or use encoder=mlp with dropout_rate above 0"
    )
