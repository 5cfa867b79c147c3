"""Attention by edges and by dense blocks is the textbook softmax over neighbours, in value and gradient."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import gcl.han_attention as han_attention
from gcl.dropout import Dropout
from gcl.han_attention import (
    DENSE_DENSITY,
    DenseNeighbours,
    EdgeNeighbours,
    attend,
    prepare_neighbours,
)

NUM_NODES, HEADS, WIDTH = 60, 3, 5
CPU = torch.device("cpu")
WAYS = {
    "dense": DenseNeighbours,
    "edges-torch": lambda pattern: EdgeNeighbours(pattern, backend="torch"),
    "edges": EdgeNeighbours,
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


def pattern_of(density=0.3, seed=0):
    """Random neighbours, not symmetric; node 5 has none."""
    mask = np.random.default_rng(seed).random((NUM_NODES, NUM_NODES)) < density
    mask[5] = False
    return sp.csr_matrix(mask.astype(np.float32))


def operands(scale=1.0, seed=0, moved=0.0):
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(NUM_NODES, HEADS, WIDTH, generator=generator)
    left, right = (scale * torch.randn(NUM_NODES, HEADS, generator=generator) for _ in range(2))
    left += moved * torch.linspace(0, 1, NUM_NODES)[:, None]
    return [tensor.requires_grad_() for tensor in (value, left, right)]


def plain(pattern, value, left, right):
    """The whole N x N x K tensor of weights."""
    mask = torch.from_numpy(pattern.toarray() > 0)[:, :, None]
    logit = torch.nn.functional.leaky_relu(left[:, None] + right[None], 0.2)
    weight = logit.masked_fill(~mask, -torch.inf).softmax(1).nan_to_num(0)
    return torch.einsum("ijk,jkd->ikd", weight, value)


def value_and_gradients(function, scale=1.0, moved=0.0):
    given = operands(scale, moved=moved)
    out = function(*given)
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(9))
    return [out.detach(), *torch.autograd.grad((out * probe).sum(), given)]


@every_way
@pytest.mark.parametrize("scale", [1.0, 40.0], ids=["usual logits", "logits far apart"])
@pytest.mark.parametrize("smallest_gather", [0.0, 1.1], ids=["all columns", "gathered columns"])
def test_equals_the_softmax_over_neighbours(way, scale, smallest_gather, monkeypatch):
    monkeypatch.setattr(han_attention, "CPU_BLOCK_PAIRS", 7 * NUM_NODES)  # several blocks, the last shorter
    monkeypatch.setattr(han_attention, "SMALLEST_GATHER", smallest_gather)
    pattern = pattern_of()
    neighbours = way(pattern)
    found = value_and_gradients(lambda *given: attend(neighbours, *given), scale)
    expected = value_and_gradients(lambda *given: plain(pattern, *given), scale)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert not found[0][5].any()  # a node without neighbours


@every_way
@pytest.mark.parametrize("moved", [-400.0, 400.0])
def test_rows_far_from_each_other_have_the_same_weights(way, moved):
    """Sums of logits from near 0 to far beyond what exp can take, on either side of the leaky ReLU."""
    pattern = pattern_of()
    found = value_and_gradients(lambda *given: attend(way(pattern), *given), 5.0, moved)
    expected = value_and_gradients(lambda *given: plain(pattern, *given), 5.0, moved)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # of sums near 400, in float32


@every_way
def test_small_gradients_of_rows_far_below_zero_are_not_lost(way):
    pattern, given = pattern_of(), operands(2.0, moved=-400.0)
    ways = [attend(way(pattern), *given), plain(pattern, *given)]
    found, expected = (torch.autograd.grad((1e-18 * out).sum(), given[0])[0] for out in ways)
    torch.testing.assert_close(1e18 * found, 1e18 * expected, rtol=1e-3, atol=1e-4)


@every_way
def test_weights_sum_to_one(way):
    _, left, right = operands()
    ones = torch.ones(NUM_NODES, HEADS, 1)
    total = attend(way(pattern_of()), ones, left, right)
    expected = torch.ones_like(total)
    expected[5] = 0
    torch.testing.assert_close(total, expected)


@every_way
def test_dropped_weights_are_scaled_repeat_and_have_the_right_gradient(way):
    neighbours, dropout = way(pattern_of()), Dropout(0.4, 3, "test")
    value, left, right = operands()
    with torch.no_grad():
        ones = torch.ones(NUM_NODES, HEADS, 1)
        total = attend(neighbours, ones, left, right, dropout)
        assert torch.equal(total, attend(neighbours, ones, left, right, dropout))
        assert not torch.equal(total, attend(neighbours, ones, left, right, dropout.numbered(1)))
        draws = [attend(neighbours, ones, left, right, dropout.numbered(i)) for i in range(400)]
    assert torch.stack(draws).mean() == pytest.approx((NUM_NODES - 1) / NUM_NODES, rel=0.02)
    found = torch.autograd.grad(attend(neighbours, value, left, right, dropout).square().sum(), [left])[0]
    for node, head in ((0, 0), (7, 2)):
        moved = [left.detach().clone() for _ in range(2)]
        moved[0][node, head] += 1e-2
        moved[1][node, head] -= 1e-2
        up, down = (attend(neighbours, value, m, right, dropout).square().sum().item() for m in moved)
        assert found[node, head].item() == pytest.approx((up - down) / 2e-2, rel=0.05, abs=0.02)


@pytest.mark.parametrize("smallest_gather", [0.0, 1.1], ids=["all columns", "gathered columns"])
@pytest.mark.parametrize("scale", [1.0, 40.0], ids=["usual logits", "logits far apart"])
def test_lonely_rows_have_zeros_in_lower_precision_and_with_dropout(scale, smallest_gather, monkeypatch):
    monkeypatch.setattr(han_attention, "CPU_BLOCK_PAIRS", 7 * NUM_NODES)
    monkeypatch.setattr(han_attention, "SMALLEST_GATHER", smallest_gather)
    mask = pattern_of().toarray()
    mask[::2] = 0  # whole blocks of rows without a neighbour
    for pattern in (sp.csr_matrix(mask), sp.csr_matrix(mask.shape, dtype=np.float32)):
        neighbours, (value, left, right) = DenseNeighbours(pattern), operands(scale)
        exact = attend(neighbours, value, left, right)
        out = attend(neighbours, value.bfloat16(), left, right)
        torch.testing.assert_close(out.float(), exact, rtol=2e-2, atol=2e-2)
        dropped = attend(neighbours, value.bfloat16(), left, right, Dropout(0.4, 3, "test"))
        gradients = torch.autograd.grad(dropped.float().sum(), [value, left, right])
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert not dropped[::2].any()


def test_the_way_follows_the_density(monkeypatch):
    assert isinstance(prepare_neighbours(pattern_of(3 * DENSE_DENSITY)), DenseNeighbours)
    assert isinstance(prepare_neighbours(pattern_of(DENSE_DENSITY / 3)), EdgeNeighbours)
    monkeypatch.setattr(han_attention, "MAX_DENSE_NODES", NUM_NODES - 1)
    assert isinstance(prepare_neighbours(pattern_of(3 * DENSE_DENSITY)), EdgeNeighbours)


def test_dropout_keeps_its_share():
    assert Dropout(0.5, 0, "test").kept((0, 3), Dropout(0.5, 0, "test").generator(CPU)).shape == (0, 3)
    for rate in (0.0, 0.3, 0.999999):
        dropout = Dropout(rate, 0, "test")
        kept = dropout.kept((1000, 101), dropout.generator(CPU))
        share = 1 - dropout.levels / 65_536
        assert kept.float().mean().item() == pytest.approx(share, abs=4 * (0.25 / 101_000) ** 0.5)
        assert dropout.scale * share == pytest.approx(1)
