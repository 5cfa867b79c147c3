"""What a run of a series may lose against the last good one before it counts as regressed."""

from gcl.config import Config, operational


class RegressionConfig(Config):
    """Bounds of the comparison with the last good run; none of them is part of any cache key.

    The defaults let runs pass that differ in their encoder seed alone. Three seeds of the preset ``digits``
    gave, pair by pair: test accuracy 0.971 to 0.972, cluster agreement 0.74 to 0.95, embedding drift 0.06 to
    0.08, neighbour overlap 0.86 to 0.88; embeddings of shuffled nodes give a drift of
    1.00 and an overlap of 0.01, and agreement by chance is 0 by definition.
    """

    enabled: bool = operational(
        True, description="whether runs of a series are compared; else all of them are good"
    )
    max_accuracy_drop: float | None = operational(
        0.02,
        ge=0,
        le=1,
        description="largest fall of a test accuracy of the method, absolute, in [0, 1]; none allows any "
        "(seeds of the preset digits: 0.001)",
    )
    min_cluster_agreement: float | None = operational(
        0.6,
        ge=-1,
        le=1,
        description="least adjusted Rand index with the last good clusters, in [-1, 1]; none allows any "
        "(seeds of the preset digits: 0.74 to 0.95)",
    )
    max_embedding_drift: float | None = operational(
        0.2,
        ge=0,
        le=1,
        description="largest 1 - linear CKA with the last good embeddings, in [0, 1]; none allows any "
        "(seeds of the preset digits: 0.06 to 0.08)",
    )
    min_neighbour_overlap: float | None = operational(
        0.3,
        ge=0,
        le=1,
        description="least mean share of 10 nearest neighbours kept, in [0, 1]; none allows any "
        "(seeds of the preset digits: 0.86 to 0.88)",
    )
