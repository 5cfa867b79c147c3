"""What a user may set of the clustering stage."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gcl.config import Config

_RANGE = re.compile(r"([1-9][0-9]{0,5})\.\.([1-9][0-9]{0,5})")
AUTO_RANGE = (2, 20)


def _check_num_clusters(value: int | str) -> int | str:
    if isinstance(value, int):
        if not 1 <= value <= 999_999:
            raise ValueError(f"num_clusters must lie in 1..999999, not {value}")
    elif value not in ("auto", "classes"):
        parse_range(value)
    return value


def parse_range(text: str) -> tuple[int, int]:
    """Read ``"LOW..HIGH"``, the numbers of clusters to try, both ends included.

    Raises:
        ValueError: for any other text, or when LOW < 2 or LOW > HIGH.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"num_clusters is a count, 'auto', 'classes' or 'LOW..HIGH', not {text!r}")
    low, high = int(match[1]), int(match[2])
    if low < 2 or low > high:
        raise ValueError(f"num_clusters range {text!r} needs 2 <= LOW <= HIGH")
    return low, high


class ClusterConfig(Config):
    """How embeddings become clusters; labels play no part beyond, on request, the count of classes."""

    algorithm: Literal["auto", "kmeans", "minibatch_kmeans", "leiden", "consensus"] = Field(
        "auto",
        description="auto: kmeans up to minibatch_threshold nodes, minibatch_kmeans above; leiden finds K; "
        "consensus: what the k-means partitions of the run's checks agree on (needs train.num_checks)",
    )
    num_clusters: Annotated[int | str, AfterValidator(_check_num_clusters)] = Field(
        "auto",
        description="count, 'classes' (as many as the labels declare), 'LOW..HIGH' or 'auto' (2..20): "
        "a range is searched without labels",
    )
    num_restarts: int = Field(
        10, ge=1, le=1000, description="k-means++ starts, the least inertia wins; count"
    )
    max_iterations: int = Field(300, ge=1, le=100_000, description="Lloyd steps a start at most; count")
    minibatch_threshold: int = Field(
        200_000, ge=1, description="nodes above which auto takes mini-batches; count"
    )
    minibatch_size: int = Field(4096, ge=16, le=1_000_000, description="nodes a mini-batch; count")
    normalise: bool = Field(True, description="scale every embedding to length 1 first (cosine geometry)")
    num_stability_runs: int = Field(
        5,
        ge=0,
        le=100,
        description="further fits with other seeds that measure stability; count, 0 or 1: none",
    )
    membership_temperature: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="soft membership: 1 is the posterior of equal round Gaussians, larger is softer; factor",
    )
    grid_size: int = Field(
        12,
        ge=2,
        le=200,
        description="numbers of clusters tried in a range at most, denser at its low end; count",
    )
    grid_restarts: int = Field(
        3,
        ge=1,
        le=1000,
        description="k-means++ starts while searching K; the chosen K gets num_restarts; count",
    )
    silhouette_sample: int = Field(
        2000, ge=10, le=20_000, description="nodes the silhouette is taken on; count"
    )
    stability_slack: float = Field(
        0.1, ge=0, le=1, description="how far below the most stable K another may lie and be eligible; ARI"
    )
    leiden_graph: Literal["knn", "graph"] = Field(
        "knn", description="leiden runs on the embeddings' nearest-neighbour graph or on the input graph"
    )
    num_neighbours: int = Field(15, ge=1, le=1000, description="edges a node in the nearest-neighbour graph")
    resolution: float = Field(1.0, gt=0, le=1000, description="leiden: larger gives more, smaller clusters")
    consensus_clustering: Literal["kmeans", "legacy_kmeans", "both"] = Field(
        "kmeans",
        description="consensus: how each check is clustered. kmeans: the best of num_restarts starts; "
        "legacy_kmeans: one start by total distance, as released codes of deep graph clustering make it, "
        "worse and more varied; both: a partition of either kind a check",
    )
    consensus_linkage: Literal["spectral", "average"] = Field(
        "spectral",
        description="consensus: how the share of checks in which two nodes are together is cut into K "
        "clusters; spectral takes memory linear in the nodes, average is for at most 5,000 nodes",
    )

    @property
    def needs_graph(self) -> bool:
        """Whether the graph plays a part: its communities, or its measures of each K of a range."""
        if self.algorithm == "leiden":
            return self.leiden_graph == "graph"
        return isinstance(self.num_clusters, str) and self.num_clusters != "classes"

    def grid(self, num_nodes: int) -> tuple[int, ...]:
        """The numbers of clusters to try, ascending; at most `grid_size`, none above `num_nodes` - 1."""
        low, high = AUTO_RANGE if self.num_clusters == "auto" else parse_range(str(self.num_clusters))
        high = min(high, num_nodes - 1)
        if high < low:
            return ()
        if high - low < self.grid_size:
            return tuple(range(low, high + 1))
        ratio = (high / low) ** (1 / (self.grid_size - 1))
        return tuple(sorted({round(low * ratio**i) for i in range(self.grid_size)}))
