"""Settings of the methods that embed whole graphs: GraphCL and those that weigh its negatives."""

from typing import ClassVar, Literal

from pydantic import Field

from gcl.methods.configs.affinity import ESTIMATOR, AffinityConfig, EstimatorName
from gcl.methods.configs.mixture import MixtureConfig
from gcl.methods.configs.rows import EnsembleConfig, MethodInputs

PolicyName = Literal[
    "random2", "random3", "random4", "node_drop", "subgraph", "edge_perturb", "attribute_mask"
]


FitStatistics = Literal["batch", "running"]
FIT_STATISTICS = (
    "moments that normalise the projections {what} is fitted to, and those of the weights that are reported: "
    "of each batch (batch), as in the steps that are weighted, or running ones (running{released}), by which "
    "the fit sees other projections than those steps"
)


class GraphClSettings(EnsembleConfig):
    """Encoder, views and contrast of GraphCL."""

    # As the method's class says; here they can be asked without torch.
    uses_labels: ClassVar[bool] = False
    inputs: ClassVar[MethodInputs] = "collection"

    num_layers: int = Field(3, ge=1, le=32, description="layers of the graph isomorphism network: count >= 1")
    hidden_size: int = Field(
        32,
        ge=1,
        le=8192,
        description="width of each layer; an embedding has num_layers x as many: count >= 1",
    )
    augmentation: PolicyName = Field(
        "random2",
        description="what a graph draws its augmentation from: node_drop and subgraph (random2), also "
        "edge_perturb (random3), also attribute_mask (random4), or always the one named",
    )
    node_drop_rate: float = Field(0.1, ge=0, lt=1, description="nodes dropped: share in [0, 1)")
    edge_perturb_rate: float = Field(
        0.1, ge=0, lt=1, description="edges dropped, and pairs without an edge joined: share in [0, 1)"
    )
    attribute_mask_rate: float = Field(
        0.1, ge=0, lt=1, description="nodes whose features are masked: share in [0, 1)"
    )
    subgraph_rate: float = Field(
        0.2, ge=0, lt=1, description="nodes of a graph that a subgraph has beside its first: share in [0, 1)"
    )
    fresh_view_both_sides: bool = Field(
        False, description="whether both views are augmented; if not, the first is the graph as it is"
    )
    both_directions: bool = Field(
        False,
        description="whether graphs of the second view are anchors too; if not, those of the first only",
    )
    denominator_includes_positive: bool = Field(
        False, description="whether the positive is a term of the denominator; not so in the released code"
    )
    temperature: float = Field(0.2, gt=0, le=100, description="divides the cosine scores: tau > 0")
    same_batches: bool = Field(
        False,
        description="whether the graphs are shuffled once and a short last batch is kept, as released, or "
        "shuffled anew for every epoch, whose last batch is left out if it has fewer than 32",
    )
    bug_compat: bool = Field(
        False,
        description="whether views and self-loops are those of the code released for GraphCL where that is "
        "not what the paper says, see docs/collections.md",
    )
    input_readout: bool = Field(
        False,
        description="whether an embedding begins with the sums of the nodes' features, layer 0 of the paper "
        "of the encoder (arXiv 1810.00826, equation 4.2), which the released code leaves out; the contrast "
        "never sees them",
    )
    output: Literal["raw", "l2"] = Field(
        "raw", description="embeddings as the encoder gives them (raw), or rows of unit length (l2)"
    )

    @property
    def embedding_size(self) -> int:
        """D, width of the layers' sums side by side; `input_readout` adds that of the features."""
        return self.num_layers * self.hidden_size


class GraphClConfig(GraphClSettings):
    """GraphCL: a graph is to find its augmented self among those of a batch."""

    name: Literal["graphcl"] = Field("graphcl", description="the method: graphcl")
    hardness: float = Field(
        0.0,
        ge=0,
        le=100,
        description="negatives weigh by exp(hardness x score), as in HCL: beta >= 0, 0 for uniform weights",
    )


class AugclGraphConfig(GraphClSettings, AffinityConfig):
    """AUGCL on GraphCL: negatives weigh by how uncertain their affinity to the anchor is."""

    name: Literal["augcl_graph"] = Field(
        "augcl_graph", description="the method: augcl_graph, which augcl means on a collection"
    )
    estimator: EstimatorName = Field("gambler", description=ESTIMATOR)
    denominator_includes_positive: bool = Field(
        True, description="whether the positive is a term of the denominator, as released"
    )
    fit_statistics: FitStatistics = Field(
        "batch", description=FIT_STATISTICS.format(what="the estimator", released=", as released")
    )
    warmup_epochs: int = Field(
        20, ge=1, description="epochs of uniform weights before the negatives are weighted: count >= 1"
    )
    pretrain_passes: int = Field(
        0, ge=0, le=10_000, description="passes of cross-entropy before the first fit: count, 0 as released"
    )


class ProGclGraphConfig(GraphClSettings, MixtureConfig):
    """ProGCL on GraphCL: negatives weigh by how likely they are true ones."""

    name: Literal["progcl_graph"] = Field(
        "progcl_graph", description="the method: progcl_graph, which progcl means on a collection"
    )
    denominator_includes_positive: bool = Field(
        True, description="whether the positive is a term of the denominator"
    )
    start_epoch: int = Field(
        20,
        ge=1,
        le=1_000_000,
        description="epochs of uniform weights before the mixture is fitted: count >= 1",
    )
    fit_statistics: FitStatistics = Field(
        "batch", description=FIT_STATISTICS.format(what="the mixture", released="")
    )

    @property
    def uniform_epochs(self) -> int:
        """Epochs before the first that is weighted: a training of no more than these has none."""
        return self.start_epoch
