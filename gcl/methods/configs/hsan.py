"""Settings of HSAN."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gcl.config import operational
from gcl.methods.configs.rows import EnsembleConfig, MethodInputs


class HsanConfig(EnsembleConfig):
    """HSAN: contrast of two linear encoders with hard pairs weighted up, on the nodes it was built for."""

    # As the method's class says; here they can be asked without torch.
    uses_labels: ClassVar[bool] = False
    inputs: ClassVar[MethodInputs] = "smoothed_and_graph"

    name: Literal["hsan"] = Field("hsan", description="the method: hsan")
    embedding_size: int = Field(1500, ge=1, le=65_536, description="D, width of the embedding: count >= 1")
    activation: Literal["identity", "sigmoid"] = Field(
        "identity", description="activation of the attribute encoders: identity or sigmoid"
    )
    num_clusters: Annotated[int, Field(ge=2, le=999_999)] | Literal["classes"] = Field(
        "classes",
        description="K, clusters of a refresh: count >= 2, or 'classes' (as many as the labels declare)",
    )
    confident_rate: float = Field(
        0.9, gt=0, le=1, description="tau, share of nodes whose cluster is trusted, in (0, 1]"
    )
    focus_power: float = Field(
        1.0, ge=0, le=20, description="beta, exponent of the weights of pairs, >= 0; larger is sharper"
    )
    initial_alpha: float = Field(
        0.99999,
        ge=-10,
        le=10,
        description="first share of attributes in the similarity, the rest is structure; it is trained and "
        "not bounded",
    )
    learn_alpha: bool = Field(
        True,
        description="whether that share is trained; if not, 1 is attributes alone and 0 structure alone",
    )
    refresh_every: int = Field(
        10, ge=1, le=1_000_000, description="epochs between refreshes of clusters and weights: count >= 1"
    )
    semantics: Literal["paper", "released"] = Field(
        "paper",
        description="paper: untrusted pairs weigh 1, gradients are those of the step, k-means++; released: "
        "as the authors' code runs, see the three settings that follow",
    )
    stale_weights: bool | None = Field(
        None,
        description="whether a pair that is no longer trusted keeps the weight of an earlier refresh; none: "
        "as semantics say (released: true)",
    )
    accumulate_grad: Literal["never", "forever"] | None = Field(
        None,
        description="forever: the optimizer is given the sum of all gradients since the first epoch; none: "
        "as semantics say (released: forever)",
    )
    refresh_clustering: Literal["kmeans", "legacy_kmeans"] | None = Field(
        None,
        description="kmeans: k-means++ with restarts; legacy_kmeans: one start by total distance; none: as "
        "semantics say (released: legacy_kmeans)",
    )
    num_restarts: int = Field(10, ge=1, le=1000, description="k-means++ starts of a refresh: count >= 1")
    view_dropout_rate: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="entries of a row set to zero in the views that uncertainty is measured with, never in "
        "training: probability in [0, 1)",
    )
    kept_weights_bytes: int = Field(
        1 << 30,
        ge=0,
        description="weights of pairs are kept up to this memory, bytes (12 N^2), and recomputed beyond",
    )

    max_nodes: int = operational(
        50_000,
        ge=2,
        description="more nodes than this are refused, since all pairs count in every step: count >= 2",
    )

    @property
    def keeps_stale_weights(self) -> bool:
        """Whether untrusted pairs keep an earlier weight."""
        return self.semantics == "released" if self.stale_weights is None else self.stale_weights

    @property
    def sums_gradients(self) -> bool:
        """Whether gradients are never reset."""
        return (self.accumulate_grad or ("never", "forever")[self.semantics == "released"]) == "forever"

    @property
    def uses_legacy_kmeans(self) -> bool:
        """Whether a refresh clusters as the released code does."""
        return (
            self.refresh_clustering or ("kmeans", "legacy_kmeans")[self.semantics == "released"]
        ) == "legacy_kmeans"
