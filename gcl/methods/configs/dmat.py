"""Settings of DMAT-i and DMT."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gcl.methods.configs.rows import RowEncoderConfig, TupletConfig, ViewConfig, check_views_differ


class DmatIConfig(RowEncoderConfig, ViewConfig, TupletConfig):
    """DMAT-i: contrast of views of smoothed rows."""

    name: Literal["dmat_i"] = Field("dmat_i", description="the method: dmat_i")
    num_views: int = Field(2, ge=2, le=16, description="V, views of a node in a batch: count >= 2")

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        check_views_differ(self, self)
        return self


class DmtConfig(RowEncoderConfig, ViewConfig, TupletConfig):
    """DMT: the semi-supervised sibling of DMAT-i."""

    uses_labels: ClassVar[bool] = True

    name: Literal["dmt"] = Field("dmt", description="the method: dmt")
    temperature: float = Field(0.2, gt=0, le=100, description="divides the cosine scores: tau > 0")
    num_views: int = Field(
        1,
        ge=1,
        le=16,
        description="V, views of a node in a batch: count >= 1; from 2 on rows are augmented, and own views "
        "are positives too; of one view only uncertainty.method=augmentation draws augmented rows",
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
            check_views_differ(self, self)
        return self
