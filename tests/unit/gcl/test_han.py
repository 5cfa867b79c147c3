import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.nn import functional

from gcl.dropout import Dropout
from gcl.han import HanEncoder, HanLayer
from gcl.han_attention import prepare_neighbours
from gcl.random import torch_generator

NUM_NODES, NUM_FEATURES = 30, 6


def patterns(count=2):
    generator = np.random.default_rng(0)
    return [
        sp.csr_matrix(
            ((generator.random((NUM_NODES, NUM_NODES)) < 0.2) | np.eye(NUM_NODES, dtype=bool)).astype("f")
        )
        for _ in range(count)
    ]


def layer_of(num_metapaths=2, *, is_activated=True):
    return HanLayer(
        NUM_FEATURES,
        4,
        num_metapaths=num_metapaths,
        num_heads=3,
        is_activated=is_activated,
        generator=torch_generator(0, "init"),
    )


def features():
    return torch.randn(NUM_NODES, NUM_FEATURES, generator=torch.Generator().manual_seed(1))


def plain(layer, x, masks):
    """The layer as its formulas say, every tensor whole."""
    outputs = []
    for m, mask in enumerate(masks):
        u = (x @ layer.weights[m]).view(NUM_NODES, 3, 4)
        left, right = ((u * vector).sum(2) for vector in (layer.lefts[m], layer.rights[m]))
        logit = functional.leaky_relu(left[:, None] + right[None], 0.2)
        weight = logit.masked_fill(~mask[:, :, None], -torch.inf).softmax(1)
        out = torch.einsum("ijk,jkd->ikd", weight, u).flatten(1) + layer.biases[m]
        outputs.append(torch.where(out > 0, out, layer.slope * out))
    semantic = layer.semantic
    score = [(torch.tanh(out @ semantic.weight.T + semantic.bias) @ semantic.query).mean() for out in outputs]
    share = torch.stack(score).softmax(0)
    return sum(s * out for s, out in zip(share, outputs, strict=True)), share


def test_layer_equals_its_formulas_in_value_and_gradient():
    layer, x = layer_of(), features().requires_grad_()
    with torch.no_grad():
        for bias in layer.biases:
            bias.normal_(generator=torch.Generator().manual_seed(2))
    parameters = [x, *layer.parameters()]
    found, share = layer(x, [prepare_neighbours(pattern) for pattern in patterns()])
    expected, expected_share = plain(layer, x, [torch.from_numpy(p.toarray() > 0) for p in patterns()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(share, expected_share)
    assert share.sum().item() == pytest.approx(1)
    probe = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    for a, b in zip(
        torch.autograd.grad((found * probe).sum(), parameters),
        torch.autograd.grad((expected * probe).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_dropped_inputs_have_the_gradient_of_a_dropped_copy():
    layer, x = layer_of(1), features().requires_grad_()
    dropout = Dropout(0.5, 0, "test")
    neighbours = [prepare_neighbours(pattern) for pattern in patterns(1)]
    found, _ = layer(x, neighbours, feature_dropout=dropout)
    of_metapath = dropout.numbered(0)
    kept = of_metapath.kept(tuple(x.shape), of_metapath.generator(x.device))
    expected, _ = layer(x * kept * dropout.scale, neighbours)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found.square().sum(), [x, layer.weights[0]]),
        torch.autograd.grad(expected.square().sum(), [x, layer.weights[0]]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_one_metapath_needs_no_weights_of_metapaths():
    layer = layer_of(1)
    assert layer.semantic is None
    assert layer(features(), [prepare_neighbours(patterns(1)[0])])[1].tolist() == [1]


def test_encoder_draws_other_dropout_in_each_layer_and_the_same_again():
    encoder = HanEncoder(
        NUM_FEATURES, 4, num_layers=3, num_metapaths=2, num_heads=2, generator=torch_generator(0, "init")
    )
    neighbours = [prepare_neighbours(pattern) for pattern in patterns()]

    def run(*counters):
        dropouts = [Dropout(0.3, 0, purpose, counters) for purpose in ("features", "attention")]
        return encoder(features(), neighbours, feature_dropout=dropouts[0], attention_dropout=dropouts[1])

    assert run(0).shape == (NUM_NODES, 8)
    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    assert torch.equal(encoder(features(), neighbours), encoder(features(), neighbours))
