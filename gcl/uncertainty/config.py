"""What a user may set of the uncertainty stage."""

from typing import Literal

from pydantic import Field

from gcl.config import Config


class UncertaintyConfig(Config):
    """How sure an embedding is of its node, without labels."""

    method: Literal["affinity", "augmentation", "cluster_margin"] = Field(
        "affinity",
        description="affinity: how clearly a node's similarities fall into near and far; augmentation: how "
        "far its embedding moves under augmentation; cluster_margin: how close it lies to a second cluster",
    )
    num_candidates: int = Field(
        512, ge=8, le=100_000, description="affinity: nodes drawn to compare every node with; count"
    )
    max_neighbours: int = Field(
        32, ge=0, le=10_000, description="affinity: neighbours in the graph compared besides, at most; count"
    )
    neighbour_weight: float = Field(
        0.5, ge=0, le=1, description="affinity: share of the neighbours' mean, the rest candidates'; [0, 1]"
    )
    estimator: Literal["softmax", "entropy", "gambler"] = Field(
        "gambler",
        description="affinity: softmax response, entropy in nats, or ideal Deep Gamblers abstention",
    )
    reward: float = Field(
        1.9,
        gt=1,
        lt=2,
        description="affinity, gambler: pay of a right answer; near 1 always abstains; (1, 2)",
    )
    num_views: int = Field(5, ge=2, le=1000, description="augmentation: augmented embeddings; count")
    disagreement: Literal["cosine", "membership"] = Field(
        "cosine",
        description="augmentation: 1 - mean cosine to the mean direction, or mutual information (nats) of "
        "the soft cluster memberships",
    )
    num_clusters: int | None = Field(
        None,
        ge=2,
        description="cluster_margin and membership: clusters; none: as many as the cluster stage has",
    )
    num_restarts: int = Field(10, ge=1, le=1000, description="k-means++ starts of those clusters; count")
    minibatch_threshold: int = Field(
        200_000,
        ge=1,
        le=1_000_000_000,
        description="nodes above which those clusters are found by mini-batches; count",
    )
    membership_temperature: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="softness of membership: 1 is the posterior of round Gaussians; factor",
    )
