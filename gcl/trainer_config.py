"""How to train: the pipeline's `train.*` fields. Apart from the trainer so that reading it costs no torch."""

from typing import Literal

from pydantic import Field

from gcl.config import Config, operational
from gcl.errors import UnsuitableSetting

SHARING_METHODS = ("dmat_i", "dmt")
"""The methods whose loss keeps to a process's share of a batch, see `gcl.distributed`."""


class TrainConfig(Config):
    """Optimisation settings, the same for every method.

    `num_processes` is part of the cache key although it is meant to change nothing: several processes take
    sums in another order, so weights differ in their last bits, and the digests of all that is made of them
    differ. Were it left out, one key would stand for several results, and which of them a store holds would
    depend on who came first.
    """

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
    num_processes: int = Field(
        1,
        ge=1,
        le=64,
        description="processes of this machine that share each batch, on CUDA a device each: count >= 1; "
        "more than one for dmat_i and dmt alone. The batch size stays that of all together",
    )
    checkpoint_every: int = operational(10, ge=1, description="epochs between two checkpoints: count >= 1")
    deadline_seconds: float | None = operational(
        None, gt=0, description="stop, resumable, after so many seconds of training; none for no limit"
    )


def check_processes(method: Config) -> None:
    """Refuse a method that several processes cannot train as one would.

    Args:
        method: its configuration.

    Raises:
        UnsuitableSetting: what to set instead.
    """
    name = str(getattr(method, "name", ""))
    if name not in SHARING_METHODS:
        raise UnsuitableSetting(
            f"method.name={name} is trained in one process: set train.num_processes=1, or take one of "
            f"{', '.join(SHARING_METHODS)}"
        )
    if getattr(method, "encoder", "") == "mlp" and getattr(method, "dropout_rate", 0) > 0:
        raise UnsuitableSetting(
            "method.dropout_rate is drawn inside the encoder, where a process sees its share alone: set it "
            "to 0 (method.entry_dropout_rate serves), or train.num_processes=1"
        )


def never_weighted(method: Config, num_epochs: int) -> str | None:
    """What to say of a training that ends before its method weighs a negative; None of any other.

    Args:
        method: the method's configuration.
        num_epochs: epochs of the training.
    """
    for name in ("warmup_epochs", "start_epoch", "metric_start_epoch"):
        if (uniform := getattr(method, name, 0)) >= num_epochs:
            return (
                f"negatives will never be weighted: method.{name}={uniform} uniform epochs, and "
                f"train.epochs={num_epochs} has none after them; set one lower or the other higher"
            )
    return None
