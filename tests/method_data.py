"""Every method with some settings, and data that any of them can train on; for tests that run them all."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from gcl.graph import Graph
from gcl.graph_collection import GraphCollection
from gcl.hetero_graph import Metapath
from gcl.methods import build_method, method_class
from gcl.methods.base import TrainingData
from gcl.methods.configs import (
    AugclConfig,
    AugclGraphConfig,
    DmatIConfig,
    DmtConfig,
    GraceConfig,
    GraphClConfig,
    HgcvaeConfig,
    HsanConfig,
    NmlGclConfig,
    ProGclConfig,
    ProGclGraphConfig,
)

NUM_NODES, NUM_FEATURES, NUM_CLASSES = 90, 12, 3
MLP = {"encoder": "mlp", "hidden_size": 7, "embedding_size": 6, "dropout_rate": 0.2, "projector": "mlp"}
LINEAR = {"embedding_size": 6, "entry_dropout_rate": 0.3}
NML = {"hidden_size": 7, "embedding_size": 6, "metric_hidden_size": 5, "metric_size": 4}
FIT = {"num_anchors": 20, "num_candidates": 60, "num_fit_anchors": 8, "fit_passes": 2, "refresh_every": 2}
GCN = {"hidden_size": 7, "embedding_size": 6, "projection_size": 5}
GIN = {"hidden_size": 4, "num_layers": 2}
HAN = {"embedding_size": 6, "num_heads": 2, "num_layers": 2, "mask_rate": 0.5, "schedule_epochs": 5}

SETTINGS = {
    "dmat_i": DmatIConfig(**LINEAR),
    "dmat_i-mlp": DmatIConfig(**MLP, num_views=3, debias_prior=0.1, form="C"),
    "dmat_i-all-views": DmatIConfig(
        **LINEAR, augmentations=("feature_mask", "entry_dropout", "gaussian_jitter"), form="A", output="l2"
    ),
    "dmat_i-dropout-views": DmatIConfig(**MLP, augmentations=("encoder_dropout",)),
    "dmt": DmtConfig(**LINEAR),
    "dmt-negatives": DmtConfig(**MLP, unlabelled="negatives", negative_mass="num_classes"),
    "dmt-instance": DmtConfig(**LINEAR, unlabelled="instance", num_views=2, num_labelled=8),
    "grace": GraceConfig(**GCN),
    "grace-prelu": GraceConfig(**GCN, activation="prelu", projector="none", output="l2"),
    "grace-rrelu-sampled": GraceConfig(
        **GCN, activation="rrelu", num_layers=3, max_exact_nodes=50, num_sampled_nodes=40
    ),
    "progcl": ProGclConfig(**GCN, start_epoch=1),
    "nml_gcl": NmlGclConfig(**NML),
    "nml_gcl-minus": NmlGclConfig(
        **NML,
        metric_sign=-1,
        metric_heads="two",
        alpha_scale="none",
        alpha=1.0,
        include_self=False,
        detach_metric=True,
        metric_ramp_epochs=2,
    ),
    "nml_gcl-free-form": NmlGclConfig(
        **NML, metric="free_form", alpha=1.2, alpha_scale="none", include_self=False, temperature=0.3
    ),
    "augcl": AugclConfig(**GCN, warmup_epochs=1),
    "augcl-gambler": AugclConfig(**GCN, estimator="gambler", warmup_epochs=2, **FIT),
    "dmat_i-three": DmatIConfig(**LINEAR, num_encoders=3),
    "nml_gcl-two": NmlGclConfig(**NML, num_encoders=2),
    "hsan-two": HsanConfig(embedding_size=6, num_clusters=3, refresh_every=2, num_encoders=2),
    "hsan": HsanConfig(embedding_size=6, num_clusters=3, refresh_every=2),
    "hsan-released": HsanConfig(
        embedding_size=14, num_clusters="classes", semantics="released", refresh_every=2, focus_power=3
    ),
}
SETTINGS |= {
    "hgcvae": HgcvaeConfig(**HAN, num_negative_pairs=13),
    "hgcvae-dropout-sampled": HgcvaeConfig(**HAN, negatives="dropout", kl_weight=0, num_negatives=50),
    "hgcvae-reconstruction": HgcvaeConfig(**HAN, contrast_weight=0, kl_weight=0, reconstruction_loss="sce"),
    "hgcvae-strict": HgcvaeConfig(**HAN, mode="strict", kl_weight=0.1, replaced_rate=0.2),
    "hgcvae-strict-z": HgcvaeConfig(
        **HAN, mode="strict", contrast_on="z", negatives="vi", num_negatives="all", num_negative_pairs=1
    ),
}
SETTINGS |= {
    "graphcl": GraphClConfig(**GIN),
    "graphcl-hard": GraphClConfig(**GIN, augmentation="random4", hardness=1.0, both_directions=True),
    "graphcl-released": GraphClConfig(**GIN, augmentation="random4", bug_compat=True, same_batches=True),
    "graphcl-two": GraphClConfig(**GIN, augmentation="random3", fresh_view_both_sides=True, num_encoders=2),
    "augcl_graph": AugclGraphConfig(**GIN, warmup_epochs=1, fit_passes=2, refresh_every=2),
    "augcl_graph-analytic": AugclGraphConfig(**GIN, warmup_epochs=1, estimator="analytic", output="l2"),
    "progcl_graph": ProGclGraphConfig(**GIN, start_epoch=1, both_directions=True),
}


def make_data(name, *, num_nodes=NUM_NODES, num_features=NUM_FEATURES):
    """Separable classes, with edges mostly within a class; what the method declares it reads."""
    generator = np.random.default_rng(5)
    y_N = generator.integers(0, NUM_CLASSES, num_nodes).astype(np.int32)
    centres = generator.normal(size=(NUM_CLASSES, NUM_FEATURES))
    x_NF = (centres[y_N] + generator.normal(size=(num_nodes, NUM_FEATURES))).astype(np.float32)
    pairs = generator.random((num_nodes, num_nodes)) < np.where(y_N[:, None] == y_N, 0.15, 0.02)
    src_E, dst_E = np.nonzero(np.triu(pairs, 1) | np.triu(pairs, 1).T)
    y_N[num_nodes // 2 :] = -1
    graph = Graph(num_nodes, src_E, dst_E, x_NF)
    data = TrainingData(
        num_nodes, x_NF, graph, y_N, metapaths=make_metapaths(graph), collection=make_collection(x_NF)
    )
    return declared(name, narrowed(data, num_features))


def make_metapaths(graph):
    """One with few neighbours and one with many, each node its own."""
    one = graph.adjacency_NN() + sp.eye(graph.num_nodes, dtype=np.float32, format="csr")
    two = one @ one
    two.data[:] = 1
    two.sort_indices()
    return Metapath("one", one), Metapath("two", two)


def make_collection(x_GF):
    """Graphs of 3 to 8 nodes in a ring, some with a chord; nodes have features like their graph's row."""
    generator = np.random.default_rng(6)
    size_G = generator.integers(3, 9, len(x_GF))
    graph_N, first_G = np.repeat(np.arange(len(x_GF)), size_G), np.cumsum(size_G) - size_G
    within_N = np.arange(len(graph_N)) - first_G[graph_N]
    pairs = np.concatenate(
        [
            np.stack([np.arange(len(graph_N)), first_G[graph_N] + (within_N + 1) % size_G[graph_N]]),
            np.stack([first_G, first_G + 2])[:, size_G > 4],
        ],
        axis=1,
    )
    src_E, dst_E = np.unique(np.concatenate([pairs, pairs[::-1]], axis=1), axis=1)
    x_NF = x_GF[graph_N] + 0.3 * generator.normal(size=(len(graph_N), x_GF.shape[1]))
    union = Graph(len(graph_N), src_E, dst_E, x_NF.astype(np.float32))
    return GraphCollection(len(x_GF), union, graph_N)


def declared(name, data):
    """Of `data`, what the method declares it reads."""
    method = method_class(name)
    return TrainingData(
        data.num_nodes,
        data.x_NF if "smoothed" in method.inputs else None,
        data.graph if "graph" in method.inputs else None,
        data.y_N if method.uses_labels else None,
        metapaths=data.metapaths if "metapaths" in method.inputs else None,
        collection=data.collection if "collection" in method.inputs else None,
    )


def narrowed(data, num_features):
    """The same data with the first features only."""
    x_NF = np.ascontiguousarray(data.x_NF[:, :num_features])
    union = data.collection.union
    narrow = replace(union, x_NF=np.ascontiguousarray(union.x_NF[:, :num_features]))
    return replace(
        data,
        x_NF=x_NF,
        graph=replace(data.graph, x_NF=x_NF),
        collection=replace(data.collection, union=narrow),
    )


def renumbered(data, order):
    """The same nodes under other numbers: node order[i] becomes node i."""
    new_id = np.argsort(order)
    graph = data.graph
    if graph is not None:
        src_E, dst_E = new_id[graph.src_E], new_id[graph.dst_E]
        by_row = np.lexsort((dst_E, src_E))
        graph = Graph(graph.num_nodes, src_E[by_row], dst_E[by_row], graph.x_NF[order])
    x_NF = None if data.x_NF is None else data.x_NF[order]
    return TrainingData(
        data.num_nodes,
        x_NF,
        graph,
        None if data.y_N is None else data.y_N[order],
        collection=None if data.collection is None else data.collection.take(order),
    )


def without_edges(data):
    """The same nodes, or graphs, with no edge between any two."""
    none = np.empty(0, np.int64)
    if data.collection is not None:
        union = replace(data.collection.union, src_E=none, dst_E=none)
        return replace(data, collection=replace(data.collection, union=union))
    x_NF = data.x_NF if data.graph is None else data.graph.x_NF
    return replace(data, graph=Graph(data.num_nodes, none, none, x_NF))


def make_method(config, seed=0, num_nodes=NUM_NODES):
    return build_method(
        config,
        num_features=NUM_FEATURES,
        num_classes=NUM_CLASSES,
        num_nodes=num_nodes,
        num_metapaths=2,
        seed=seed,
    )
