"""The graph isomorphism network against loops over nodes and graphs."""

import numpy as np
import pytest
import torch

from gcl.gin import GinEncoder, GraphBatch
from gcl.graph import Graph
from gcl.graph_collection import GraphCollection
from gcl.propagation import Propagation, resolve_backend
from gcl.random import torch_generator
from tests.unit.gcl.test_graph_collection import make_collection


def make_encoder(seed=0):
    return GinEncoder(4, hidden_size=5, num_layers=3, generator=torch_generator(seed, "init"))


def by_loops(encoder, collection):
    """Layer by layer, node by node, with batch statistics."""
    h_N = [torch.from_numpy(row).double() for row in np.asarray(collection.union.x_NF)]
    neighbours = [collection.union.dst_E[collection.union.src_E == node] for node in range(len(h_N))]
    parts = []
    for mlp, norm in zip(encoder.mlps, encoder.norms, strict=True):
        first, second = mlp[0], mlp[2]
        out_N = []
        for node in range(len(h_N)):
            x = h_N[node] + sum((h_N[other] for other in neighbours[node]), torch.zeros(()))
            x = torch.relu(first.weight.double() @ x + first.bias.double())
            out_N.append(torch.relu(second.weight.double() @ x + second.bias.double()))
        rows = torch.stack(out_N)
        rows = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + norm.eps).sqrt()
        h_N = list(rows)
        parts.append(
            torch.stack(
                [
                    rows[torch.from_numpy(collection.graph_N == graph)].sum(0)
                    for graph in range(collection.num_graphs)
                ]
            )
        )
    return torch.cat(parts, 1)


@pytest.mark.parametrize("sparse", [False, True])
def test_it_is_the_sum_over_neighbours_and_nodes(sparse):
    encoder = make_encoder()
    dense, given = make_collection(), make_collection(sparse=sparse)
    z_GD = encoder(GraphBatch.of(given))
    torch.testing.assert_close(z_GD.double(), by_loops(encoder, dense), rtol=1e-4, atol=1e-4)
    assert torch.equal(z_GD[2], torch.zeros(15)), "a graph without nodes"


@pytest.mark.skipif(resolve_backend() != "dgl", reason="dgl 1.x is not installed")
def test_backends_agree():
    collection, encoder = make_collection(num_graphs=40, seed=3), make_encoder().eval()
    ready = GraphBatch.of(collection)
    plain = Propagation.from_graph(collection.union, backend="torch")
    assert (ready.propagation.backend, plain.backend) == ("dgl", "torch")
    gradients = []
    for propagation in (ready.propagation, plain):
        encoder.zero_grad()
        z_GD = encoder(GraphBatch(ready.num_graphs, propagation, ready.x_NF, ready.graph_N))
        z_GD.square().mean().backward()
        gradients.append((z_GD.detach(), encoder.mlps[0][0].weight.grad.clone()))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_graphs_do_not_feel_each_other_in_evaluation():
    collection, encoder = make_collection(), make_encoder()
    encoder(GraphBatch.of(collection))  # moves the running moments
    encoder.eval()
    whole = encoder(GraphBatch.of(collection))
    for graph in range(collection.num_graphs):
        alone = encoder(GraphBatch.of(collection.take(np.array([graph]))))
        torch.testing.assert_close(alone[0], whole[graph], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_nodes", [0, 1])
def test_a_batch_of_a_node_or_none_has_an_embedding_and_a_gradient(num_nodes):
    none = np.empty(0, np.int64)
    union = Graph(num_nodes, none, none, np.ones((num_nodes, 4), np.float32))
    encoder = make_encoder()
    before = encoder.norms[0].running_mean.clone()
    z_GD = encoder(GraphBatch.of(GraphCollection(2, union, np.zeros(num_nodes, np.int64))))
    z_GD.sum().backward()
    assert torch.isfinite(z_GD).all()
    assert torch.equal(encoder.norms[0].running_mean, before)


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(0)
    first = make_encoder().state_dict()
    torch.manual_seed(1)
    assert all(torch.equal(value, first[name]) for name, value in make_encoder().state_dict().items())
    limit = (6 / (4 + 5)) ** 0.5
    assert 0.5 * limit < first["mlps.0.0.weight"].abs().max() <= limit
    assert not first["mlps.0.0.bias"].any()


def test_nodes_without_features_are_refused():
    collection = make_collection()
    bare = GraphCollection(
        7, Graph(collection.union.num_nodes, *[np.empty(0, np.int64)] * 2), collection.graph_N
    )
    with pytest.raises(ValueError, match="no features"):
        GraphBatch.of(bare)
