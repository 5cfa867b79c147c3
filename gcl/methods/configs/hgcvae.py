"""Settings of HGCVAE."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gcl.config import Config, operational
from gcl.methods.configs.rows import MethodInputs

Rate = Annotated[float, Field(ge=0, lt=1)]


class HgcvaeConfig(Config):
    """HGCVAE: a variational autoencoder over metapaths whose masked rows are reconstructed and contrasted."""

    # As the method's class says; here they can be asked without torch.
    uses_labels: ClassVar[bool] = False
    inputs: ClassVar[MethodInputs] = "graph_and_metapaths"

    name: Literal["hgcvae"] = Field("hgcvae", description="the method: hgcvae")
    mode: Literal["reference", "strict"] = Field(
        "reference",
        description="reference: what the released code optimises; strict: what the paper's words describe",
    )

    embedding_size: int = Field(
        1024, ge=1, le=65_536, description="D, width of layers and embedding, all heads together: count >= 1"
    )
    num_heads: int = Field(4, ge=1, le=64, description="attention heads; D is a multiple of it: count >= 1")
    num_layers: int = Field(3, ge=1, le=16, description="layers of the encoder: count >= 1")
    feature_dropout_rate: Rate = Field(0.2, description="entries of a layer's input dropped, in [0, 1)")
    attention_dropout_rate: Rate = Field(0.3, description="attention weights dropped, in [0, 1)")
    normalise_input: Literal["none", "l1", "l2", "columns"] = Field(
        "l1",
        description="features before the encoder: as stored, rows by their norm (counts of words), or "
        "columns to mean 0 and standard deviation 1 (unlike units)",
    )
    embed: Literal["mu", "h"] | None = Field(
        None,
        description="embedding: mu, the posterior's mean, or h, the encoder's output; none: as mode says "
        "(reference: h, strict: mu)",
    )

    mask_rate: float = Field(0.3, gt=0, lt=1, description="nodes masked in the first epoch, in (0, 1)")
    mask_schedule: Literal["constant", "linear", "exponential", "step"] = Field(
        "linear",
        description="how the share of masked nodes grows with the epoch: not, by equal differences or equal "
        "ratios towards mask_rate_end, or by mask_step until it is reached",
    )
    mask_rate_end: float | None = Field(
        None, gt=0, lt=1, description="share that masking grows to, in (0, 1); none: twice mask_rate"
    )
    mask_step: float = Field(0.005, gt=0, lt=1, description="step: what an epoch adds, in (0, 1)")
    max_mask_rate: float = Field(0.8, gt=0, lt=1, description="share of masked nodes is never above this")
    unchanged_rate: float = Field(
        0.3, ge=0, le=1, description="share of masked nodes that keep their features, in [0, 1]"
    )
    replaced_rate: float = Field(
        0.0, ge=0, le=1, description="share of masked nodes given another node's features, in [0, 1]"
    )
    schedule_epochs: int = Field(
        40,
        ge=1,
        le=1_000_000,
        description="E, epochs that schedules are laid out for: count; set it to train.epochs, a run of "
        "another length says so",
    )

    contrast_weight: float = Field(0.8, ge=0, le=1000, description="weight of the contrastive loss, 0 is off")
    kl_weight: float = Field(0.7, ge=0, le=1000, description="weight of the divergence, 0 is off")
    reconstruction_weight: float = Field(
        0.2, ge=0, le=1000, description="weight of the reconstruction of masked nodes, 0 is off"
    )
    reconstruction_loss: Literal["sce", "esce_reference", "esce_focal", "esce_focal_positive"] | None = Field(
        None,
        description="sce: scaled cosine error; esce_reference: its entry-wise form in the released code; "
        "esce_focal: with a focal logarithm; esce_focal_positive: the same for features >= 0; none: as mode "
        "says (reference: esce_reference, strict: esce_focal)",
    )
    reconstruction_exponent: float = Field(
        2.0,
        gt=0,
        le=20,
        description="a of the reconstruction loss; larger makes nearly right rows count less",
    )
    free_nats: float | None = Field(
        None,
        ge=0,
        le=10,
        description="divergence a dimension that is not pushed down, nats; none: as mode says (reference: 0, "
        "strict: 0.02)",
    )
    kl_warmup_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of E over which the divergence's weight grows from 0; none: as mode says "
        "(reference: 0, strict: 0.3)",
    )

    contrast_on: Literal["h", "z"] = Field(
        "h",
        description="what is contrasted: h, two outputs of the encoder, or z, two draws from the posterior "
        "(strict alone)",
    )
    temperature: float = Field(0.1, ge=0.03, le=100, description="divides the cosine scores: tau >= 0.03")
    negatives: Literal["progressive", "dropout", "vi"] = Field(
        "progressive",
        description="dropout: corrupted embeddings; vi: draws from the posterior; progressive: first the "
        "one, then more and more of the other",
    )
    num_negative_pairs: int = Field(
        10, ge=1, le=1000, description="neg_num: the bank holds 2 x as many copies of all nodes: count >= 1"
    )
    negatives_ramp_epochs: int | None = Field(
        None,
        ge=1,
        description="progressive: epochs until all negatives are vi; none: as mode says (reference: 25, "
        "strict: 0.6 E)",
    )
    clamp_negatives: bool = Field(
        True,
        description="whether copies of vi end at the size of the bank; as released, they go on growing",
    )
    num_negatives: Annotated[int, Field(ge=1, le=1 << 24)] | Literal["all"] | None = Field(
        None,
        description="negatives a step, drawn out of the bank: count, or all; none: as mode says (reference: "
        "all, strict: 4096)",
    )
    negative_dropout_rate: float = Field(
        0.1, gt=0, lt=1, description="entries of a dropout negative set to zero, in (0, 1)"
    )
    vi_shift: float = Field(
        3.0, ge=0, le=1000, description="delta: a vi negative of reference mode is delta mu + noise"
    )
    vi_noise: float = Field(
        0.5,
        ge=0,
        le=1000,
        description="kappa: length of the noise of a vi negative of strict mode, in lengths of mu",
    )

    max_nodes: int = operational(
        100_000, ge=2, description="more nodes than this are refused: every step takes all: count >= 2"
    )

    @property
    def is_strict(self) -> bool:
        """Whether the paper's words are followed."""
        return self.mode == "strict"

    @property
    def embeds_mean(self) -> bool:
        """Whether the embedding is mu."""
        return (self.embed or ("h", "mu")[self.is_strict]) == "mu"

    @property
    def recon_form(self) -> Literal["sce", "esce_reference", "esce_focal", "esce_focal_positive"]:
        """Which reconstruction loss."""
        return self.reconstruction_loss or ("esce_focal" if self.is_strict else "esce_reference")

    @property
    def has_posterior(self) -> bool:
        """Whether anything reads mu and sigma; if not, they have no layers."""
        by_contrast = self.contrast_weight > 0 and (self.negatives != "dropout" or self.contrast_on == "z")
        decodes = self.is_strict and self.reconstruction_weight > 0
        return self.kl_weight > 0 or self.embeds_mean or by_contrast or decodes

    @property
    def has_two_passes(self) -> bool:
        """Whether the encoder is applied twice."""
        return self.contrast_on == "h" and self.contrast_weight > 0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.embedding_size % self.num_heads:
            raise ValueError(
                f"embedding_size={self.embedding_size} is no multiple of num_heads={self.num_heads}"
            )
        if self.unchanged_rate + self.replaced_rate > 1:
            raise ValueError(
                "unchanged_rate and replaced_rate are shares of the masked nodes: at most 1 together"
            )
        if not self.contrast_weight and not self.reconstruction_weight:
            raise ValueError(
                "nothing to learn from: give contrast_weight or reconstruction_weight a value above 0"
            )
        if self.contrast_on == "z" and not self.is_strict:
            raise ValueError(
                "contrast_on=z needs mode=strict: the released code draws no z that a loss reads"
            )
        if self.recon_form == "esce_focal_positive" and self.normalise_input == "columns":
            raise ValueError(
                "reconstruction_loss=esce_focal_positive is for features >= 0, and normalise_input=columns "
                "makes some negative: take esce_focal"
            )
        if self.mask_rate_end is not None and self.mask_rate_end < self.mask_rate:
            raise ValueError("mask_rate_end is below mask_rate: masking grows")
        if self.mask_rate_end is not None and self.mask_rate_end > self.max_mask_rate:
            raise ValueError(
                f"mask_rate_end={self.mask_rate_end} is above max_mask_rate={self.max_mask_rate}, and would "
                "not be reached: raise max_mask_rate"
            )
        return self
