"""How to train: the pipeline's `train.*` fields. Apart from the trainer so that reading it costs no torch."""

from typing import Literal

from pydantic import Field

from gcl.config import Config, operational


class TrainConfig(Config):
    """Optimisation settings, the same for every method."""

    epochs: int = Field(20, ge=1, le=1_000_000, description="epochs: count >= 1")
    batch_size: int = Field(512, ge=2, le=1 << 20, description="nodes in a batch: count >= 2")
    learning_rate: float = Field(1e-4, gt=0, le=10, description="step size of the optimizer, > 0")
    weight_decay: float = Field(0.0, ge=0, le=10, description="L2 coefficient added to the gradient, >= 0")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="learning rate over the epochs: constant, or cosine from full to zero"
    )
    optimizer: Literal["adam"] = Field("adam", description="optimizer: adam")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="matrix products in training, of the encoder and, but for dmat_i and dmt, of pairs of "
        "nodes: float32, or bfloat16 (faster where the processor has it); weights, sums over pairs and "
        "embeddings stay float32",
    )
    num_checks: int = Field(
        0,
        ge=0,
        le=1000,
        description="snapshots of the embeddings kept for a consensus, evenly spaced over the epochs, the "
        "last one among them: count, 0 none, at most one an epoch; each takes 4 bytes x nodes x min(64, "
        "embedding size)",
    )
    checkpoint_every: int = operational(10, ge=1, description="epochs between two checkpoints: count >= 1")
    deadline_seconds: float | None = operational(
        None, gt=0, description="stop, resumable, after so many seconds of training; none for no limit"
    )
