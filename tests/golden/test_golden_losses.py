"""Losses of every method on a 12-node graph, against recorded ones: a refactoring must not move them.

After a change that is meant to move them: ``python tests/golden/test_golden_losses.py --update``.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from gcl.graph import Graph
from gcl.graph_collection import GraphCollection
from gcl.hetero_graph import Metapath
from gcl.methods import METHODS, build_method, method_class
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
from gcl.trainer import train
from gcl.trainer_config import TrainConfig

GOLDEN = Path(__file__).with_name("losses.json")
MLP = {"encoder": "mlp", "hidden_size": 6, "embedding_size": 4, "dropout_rate": 0.25, "projector": "mlp"}
VIEWS = {"entry_dropout_rate": 0.8, "use_bias": True}  # written out: defaults may change, the losses may not
DMAT_I, DMT = {**VIEWS, "temperature": 0.3}, {**VIEWS, "temperature": 0.2}
GCN = {"hidden_size": 6, "embedding_size": 4, "projection_size": 4, "temperature": 0.4}
GIN = {"hidden_size": 8, "num_layers": 2, "temperature": 0.4}
HAN = {"embedding_size": 4, "num_heads": 2, "num_layers": 2, "mask_rate": 0.5, "schedule_epochs": 5}
SETTINGS = {
    "dmat_i": DmatIConfig(**DMAT_I, embedding_size=4),
    "dmat_i-mlp-C": DmatIConfig(**DMAT_I, **MLP, num_views=3, form="C", debias_prior=0.2),
    "dmat_i-A-all-views": DmatIConfig(
        **DMAT_I,
        embedding_size=4,
        form="A",
        augmentations=("feature_mask", "entry_dropout", "gaussian_jitter"),
    ),
    "dmt": DmtConfig(**DMT, embedding_size=4),
    "dmt-negatives": DmtConfig(**DMT, embedding_size=4, unlabelled="negatives", negative_mass="num_classes"),
    "dmt-instance": DmtConfig(**DMT, **MLP, unlabelled="instance", num_views=2),
    "grace": GraceConfig(**GCN),
    "progcl": ProGclConfig(**GCN, start_epoch=2),
    "augcl": AugclConfig(**GCN, warmup_epochs=2, estimator="analytic"),
    "graphcl": GraphClConfig(**GIN),
    "graphcl-hard-released": GraphClConfig(**GIN, hardness=1.0, augmentation="random4", bug_compat=True),
    "augcl_graph": AugclGraphConfig(
        **GIN, warmup_epochs=2, fit_passes=2, estimator="gambler", fit_statistics="running"
    ),
    "progcl_graph": ProGclGraphConfig(**GIN, start_epoch=2, fit_statistics="running"),
    "nml_gcl": NmlGclConfig(
        hidden_size=6, embedding_size=4, metric_hidden_size=4, metric_size=4, temperature=0.8, metric_steps=2
    ),
    "hgcvae": HgcvaeConfig(**HAN, num_negative_pairs=2),
    "hgcvae-strict": HgcvaeConfig(**HAN, mode="strict", num_negatives=30, replaced_rate=0.2),
    "hsan": HsanConfig(embedding_size=4, num_clusters=2, refresh_every=2, confident_rate=0.7, focus_power=2),
    "hsan-released": HsanConfig(embedding_size=4, num_clusters=2, refresh_every=2, semantics="released"),
}


def twelve_nodes():
    """Two rings of six nodes, one bridge: features after one step of averaging, written out by rule."""
    ring = [[(i + 1) % 6 + 6 * block, (i - 1) % 6 + 6 * block] for block in (0, 1) for i in range(6)]
    ring[0].append(6)
    ring[6].append(0)
    x_NF = np.array([[np.sin(1 + i * (f + 1)) + (f == i // 6) for f in range(5)] for i in range(12)])
    smooth_NF = np.array([(x_NF[i] + x_NF[ring[i]].sum(axis=0)) / (1 + len(ring[i])) for i in range(12)])
    y_N = np.array([0, 0, 0, -1, -1, -1, 1, 1, 1, -1, -1, -1], np.int32)
    pairs = sorted((i, j) for i in range(12) for j in ring[i])
    src_E, dst_E = np.array(pairs).T
    return smooth_NF.astype(np.float32), y_N, Graph(12, src_E, dst_E, x_NF.astype(np.float32))


def twelve_graphs():
    """Rings of 4 to 7 nodes whose features are written out by rule."""
    size_G = 4 + np.arange(12) % 4
    graph_N, first_G = np.repeat(np.arange(12), size_G), np.cumsum(size_G) - size_G
    place_N = np.arange(len(graph_N)) - first_G[graph_N]
    next_N = first_G[graph_N] + (place_N + 1) % size_G[graph_N]
    pairs = sorted(
        {*zip(range(len(graph_N)), next_N, strict=True), *zip(next_N, range(len(graph_N)), strict=True)}
    )
    src_E, dst_E = np.array(pairs).T
    x_NF = [
        [np.sin(g + i * (f + 1)) + (f == g // 6) for f in range(5)]
        for g, i in zip(graph_N, place_N, strict=True)
    ]
    return GraphCollection(12, Graph(len(graph_N), src_E, dst_E, np.array(x_NF, np.float32)), graph_N)


def metapaths_of(graph):
    """Neighbours, and neighbours of neighbours, each node among them."""
    one = graph.adjacency_NN() + sp.eye(12, dtype=np.float32, format="csr")
    return Metapath("one", one), Metapath("two", one @ one)


def losses(config):
    x_NF, y_N, graph = twelve_nodes()
    declared = method_class(config.name)
    data = TrainingData(
        12,
        x_NF if "smoothed" in declared.inputs else None,
        graph if "graph" in declared.inputs else None,
        y_N if declared.uses_labels else None,
        collection=twelve_graphs() if "collection" in declared.inputs else None,
        metapaths=metapaths_of(graph) if "metapaths" in declared.inputs else None,
    )
    method = build_method(config, num_features=5, num_classes=2, num_nodes=12, num_metapaths=2, seed=0)
    settings = TrainConfig(epochs=5, batch_size=12, learning_rate=0.05)
    history = train(method, data, settings, seed=0).history
    return [{name: value for name, value in terms.items() if "loss" in name} for terms in history]


@pytest.fixture(autouse=True)
def one_thread():
    """Products round otherwise on several threads, and a weight that flips moves all that follows."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_method_has_a_golden_row():
    assert {config.name for config in SETTINGS.values()} == set(METHODS)
    assert set(json.loads(GOLDEN.read_text())) == set(SETTINGS)


@pytest.mark.parametrize("case", SETTINGS)
def test_losses_are_the_recorded_ones(case):
    expected = json.loads(GOLDEN.read_text())[case]
    found = losses(SETTINGS[case])
    assert len(found) == len(expected)
    for epoch, (terms, golden) in enumerate(zip(found, expected, strict=True)):
        assert terms == pytest.approx(golden, rel=1e-4), f"epoch {epoch + 1}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit("usage: test_golden_losses.py --update")
    torch.set_num_threads(1)
    table = {case: losses(config) for case, config in SETTINGS.items()}
    GOLDEN.write_text(json.dumps(table, indent=1) + "\n")
    print(f"wrote {GOLDEN}")
