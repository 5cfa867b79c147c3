"""Configurations of the methods, apart from the methods so that reading one costs no torch.

`MethodConfig` is the union that the pipeline's `method.*` fields are read into, told apart by `name`.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gcl.config import Config

AugmentationName = Literal["feature_mask", "entry_dropout", "gaussian_jitter", "encoder_dropout"]


class RowEncoderConfig(Config):
    """The encoder of smoothed rows, see `gcl.encoders`."""

    uses_labels: ClassVar[bool] = False  # as the method's class says; here it can be asked without torch

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


class DmatIConfig(RowEncoderConfig, ViewConfig, TupletConfig):
    """DMAT-i: contrast of views of smoothed rows."""

    name: Literal["dmat_i"] = Field("dmat_i", description="the method: dmat_i")
    num_views: int = Field(2, ge=2, le=16, description="V, views of a node in a batch: count >= 2")

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        _check_views_differ(self, self)
        return self


class DmtConfig(RowEncoderConfig, ViewConfig, TupletConfig):
    """DMT: the semi-supervised sibling of DMAT-i."""

    uses_labels: ClassVar[bool] = True

    name: Literal["dmt"] = Field("dmt", description="the method: dmt")
    temperature: float = Field(0.2, gt=0, le=100, description="divides the cosine scores: tau > 0")
    num_views: int = Field(
        1, ge=1, le=16, description="V, views of a node in a batch: count >= 1; own views are positives too"
    )
    unlabelled: Literal["ignore", "negatives", "instance"] = Field(
        "ignore",
        description="rows without a label: left out, used as negatives (biased), or given the DMAT-i loss",
    )
    instance_weight: float = Field(
        1.0, ge=0, le=1000, description="weight of the DMAT-i loss when unlabelled is instance, >= 0"
    )
    num_labelled: int = Field(
        256,
        ge=4,
        le=1 << 20,
        description="labelled nodes of a batch, balanced over classes: count >= 4",
    )
    negative_mass: Literal["num_negatives", "num_classes"] = Field(
        "num_negatives",
        description="weight of the mean negative: their number (InfoNCE), or classes - 1 (tight bound)",
    )

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        if self.unlabelled == "instance" and self.num_views < 2:
            raise ValueError("unlabelled=instance compares views of a node: set num_views to 2 or more")
        if self.num_views > 1:
            _check_views_differ(self, self)
        return self


MethodConfig = Annotated[DmatIConfig | DmtConfig, Field(discriminator="name")]


def _check_views_differ(views: ViewConfig, encoder: RowEncoderConfig) -> None:
    """Refuse settings whose views are all the same: the loss would have nothing to learn from."""
    drops_units = encoder.encoder == "mlp" and encoder.dropout_rate > 0
    if drops_units or any(strength > 0 for strength in views.strengths().values()):
        return
    raise ValueError(
        "the views of a node would be identical: give an augmentation a rate above 0, "
        "or use encoder=mlp with dropout_rate above 0"
    )
