"""The graph encoder: equal to its formula, sparse or dense, masked or not, and free of global randomness."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from gcl.graph import Graph
from gcl.graph_augment import draw_view
from gcl.graph_encoders import GcnEncoder, NodeFeatures, rrelu
from gcl.methods.configs import GraceConfig
from gcl.propagation import Propagation
from gcl.random import torch_generator

SETTINGS = GraceConfig(hidden_size=7, embedding_size=5, num_layers=2, activation="prelu")


def make_graph(*, sparse=False, undirected=True):
    generator = np.random.default_rng(0)
    upper = np.triu(generator.random((30, 30)) < 0.15, 1)
    src_E, dst_E = np.nonzero(upper | upper.T)
    x_NF = (generator.random((30, 12)) * (generator.random((30, 12)) < 0.4)).astype(np.float32)
    return Graph(30, src_E, dst_E, sp.csr_matrix(x_NF) if sparse else x_NF, is_undirected=undirected)


def make_encoder(config=SETTINGS, num_features=12):
    return GcnEncoder(config, num_features, torch_generator(0, "init"))


def embed(graph, **kwargs):
    return make_encoder()(NodeFeatures(graph), Propagation.from_graph(graph, self_loops=True), **kwargs)


def test_two_layers_are_the_formula():
    graph, encoder = make_graph(), make_encoder()
    a_NN = graph.adjacency_NN().toarray() + np.eye(30)
    s_NN = torch.tensor(a_NN / np.sqrt(np.outer(a_NN.sum(1), a_NN.sum(1))), dtype=torch.float32)
    (w1, w2), (b1, b2) = encoder.weights, encoder.biases
    b1.data.uniform_(-1, 1, generator=torch_generator(1, "bias"))
    prelu = torch.nn.functional.prelu
    h = prelu(s_NN @ torch.from_numpy(graph.x_NF) @ w1 + b1, encoder.slopes[0])
    expected = prelu(s_NN @ h @ w2 + b2, encoder.slopes[1])
    found = encoder(NodeFeatures(graph), Propagation.from_graph(graph, self_loops=True))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_sparse_features_give_what_dense_ones_give_in_value_and_gradient():
    keep_F = torch.tensor([0.0, 1.0] * 6)
    results = []
    for sparse in (False, True):
        graph, encoder = make_graph(sparse=sparse), make_encoder()
        propagation = Propagation.from_graph(graph, self_loops=True)
        z_ND = encoder(NodeFeatures(graph), propagation, keep_F=keep_F)
        z_ND.square().sum().backward()
        results.append((z_ND.detach(), encoder.weights[0].grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
    assert not results[0][1][0::2].any()


@pytest.mark.parametrize("sparse", [False, True])
def test_half_precision_is_close_and_leaves_float32(sparse):
    graph = make_graph(sparse=sparse)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = embed(graph)
    torch.testing.assert_close(half, embed(graph), rtol=0.05, atol=0.05)
    assert half.dtype == torch.float32


def test_masked_columns_are_as_if_they_were_zero():
    graph = make_graph()
    keep_F = torch.tensor([1.0, 1.0, 0.0] * 4)
    masked = replace(graph, x_NF=graph.x_NF * keep_F.numpy())
    torch.testing.assert_close(embed(graph, keep_F=keep_F), embed(masked), rtol=1e-6, atol=1e-7)


def test_rrelu_draws_slopes_in_range_from_its_generator_alone():
    x = -torch.ones(1000)
    before = torch.get_rng_state()
    y = rrelu(x, torch_generator(0, "rrelu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert -1 / 3 <= y.min() < -0.3 < -0.15 < y.max() <= -1 / 8
    assert torch.equal(y, rrelu(x, torch_generator(0, "rrelu")))
    assert torch.allclose(rrelu(x, None), torch.tensor(-11 / 48))
    assert torch.equal(rrelu(-x, torch_generator(0, "rrelu")), -x)


def test_drop_rates_are_kept_on_average_and_zero_changes_nothing():
    graph = make_graph()
    counts = [
        draw_view(
            graph, edge_drop_rate=0.3, feature_mask_rate=0.5, both_directions=False,
            generator=torch_generator(seed, "augment"),
        )
        for seed in range(40)
    ]  # fmt: skip
    edges = np.mean([view.propagation.num_edges - 30 for view in counts])
    assert edges == pytest.approx(0.7 * graph.num_edges, rel=0.05)
    assert np.mean([view.keep_F.mean() for view in counts]) == pytest.approx(0.5, abs=0.08)
    whole = draw_view(
        graph, edge_drop_rate=0, feature_mask_rate=0, both_directions=False,
        generator=torch_generator(0, "augment"),
    )  # fmt: skip
    assert whole.propagation.num_edges == graph.num_edges + 30
    assert whole.keep_F is None


@pytest.mark.parametrize("both", [True, False])
def test_both_directions_of_an_edge_go_together_when_asked_for(both):
    graph = make_graph()
    view = draw_view(
        graph, edge_drop_rate=0.5, feature_mask_rate=0, both_directions=both,
        generator=torch_generator(0, "augment"),
    )  # fmt: skip
    eye = torch.eye(30)
    kept = view.propagation.neighbour_sum(eye)
    assert torch.equal(kept, kept.T) == both


@pytest.mark.parametrize("is_sparse", [False, True])
def test_columns_of_unlike_units_come_to_one_scale(is_sparse):
    rng = np.random.default_rng(0)
    x_NF = np.stack([1000 * rng.random(30), 0.01 * rng.random(30), np.full(30, 7.0)], axis=1).astype("f")
    given = sp.csr_matrix(x_NF) if is_sparse else x_NF
    graph = Graph(30, np.arange(30), np.roll(np.arange(30), 1), x_NF=given)
    found_NF = NodeFeatures(graph, normalise="columns").times(torch.eye(3)).numpy()
    np.testing.assert_allclose(found_NF.std(0), [1, 1, 0], atol=1e-5)
    if not is_sparse:
        np.testing.assert_allclose(found_NF.mean(0), 0, atol=1e-5)
