import math

import numpy as np
import pytest
import torch

from gcl.errors import NotDefined
from gcl.losses.hsan import VIEW_PAIRS, cosines, hsan_loss, linear_cosines, mixed_similarity
from gcl.losses.hsan_weights import (
    confident_nodes,
    frozen_weights,
    keep_weights,
    kept_weights_bytes,
    least_share,
)

N, F, D = 23, 4, 9


class Case:
    """Two linear encoders of the same rows, structure embeddings, a clustering; float64 unless told."""

    def __init__(self, seed=0, dtype=torch.float64, num_nodes=N):
        draws = torch.Generator().manual_seed(seed)

        def normal(*size):
            return torch.randn(*size, generator=draws, dtype=torch.float64).to(dtype)

        self.x_NF = normal(num_nodes, F)
        self.weight = [normal(D, F).requires_grad_() for _ in range(2)]
        self.bias = [normal(D).requires_grad_() for _ in range(2)]
        self.e = [normal(num_nodes, D).requires_grad_() for _ in range(2)]
        self.alpha = torch.tensor(0.7, dtype=dtype, requires_grad=True)
        self.cluster_N = torch.randint(3, (num_nodes,), generator=draws)
        self.confident_N = torch.rand(num_nodes, generator=draws) < 0.6
        self.leaves = [*self.weight, *self.bias, *self.e, self.alpha]

    def z(self):
        return [self.x_NF @ w.T + b for w, b in zip(self.weight, self.bias, strict=True)]

    def similarity(self, kind="linear", alpha=None):
        attributes = (
            linear_cosines(self.x_NF, self.weight, self.bias) if kind == "linear" else cosines(self.z())
        )
        return mixed_similarity(attributes, cosines(self.e), self.alpha if alpha is None else alpha)

    def dense_similarity(self, alpha=None):
        alpha = self.alpha if alpha is None else alpha
        z, e = (torch.nn.functional.normalize(torch.cat(rows)) for rows in (self.z(), self.e))
        return alpha * z @ z.T + (1 - alpha) * e @ e.T

    def dense_weights(self, power, alpha):
        similarity = self.dense_similarity(alpha).detach()
        scaled = (similarity - similarity.min()) / (similarity.max() - similarity.min())
        cluster, confident = self.cluster_N.repeat(2), self.confident_N.repeat(2)
        weight = ((cluster[:, None] == cluster).to(scaled.dtype) - scaled).abs() ** power
        return torch.where(confident[:, None] & confident, weight, torch.ones_like(weight))

    def frozen(self, power=3.0, alpha=1.2):
        similarity = self.similarity(alpha=torch.tensor(alpha, dtype=self.x_NF.dtype))
        return frozen_weights(similarity, self.cluster_N, self.confident_N, power=power)


def naive_loss(similarity, weight):
    """The formula with a loop over all (node, view) pairs."""
    count = len(similarity)
    share = torch.exp(weight * similarity)
    losses = []
    for a in range(count):
        total = share[a, :a].sum() + share[a, a + 1 :].sum()
        losses.append(-torch.log(share[a, (a + count // 2) % count] / total))
    return torch.stack(losses).mean()


def whole(weights, num_nodes=N):
    """The 2N x 2N matrix of anything with `tile`."""
    every = slice(0, num_nodes)
    block = {pair: weights.tile(pair, every, every) for pair in VIEW_PAIRS}
    return torch.cat(
        [torch.cat([block[0, 0], block[0, 1]], dim=1), torch.cat([block[0, 1].T, block[1, 1]], dim=1)]
    )


@pytest.mark.parametrize("block_size", [None, 1, 5])
@pytest.mark.parametrize("weighting", ["none", "frozen", "kept"])
@pytest.mark.parametrize("kind", ["linear", "any"])
def test_streamed_loss_and_gradient_equal_the_naive_formula(kind, weighting, block_size):
    case = Case()
    weights, dense_weights = None, torch.ones(2 * N, 2 * N, dtype=torch.float64)
    if weighting != "none":
        weights, dense_weights = case.frozen(), case.dense_weights(3.0, 1.2)
        weights = keep_weights(weights) if weighting == "kept" else weights
    expected = naive_loss(case.dense_similarity(), dense_weights)
    expected_gradients = torch.autograd.grad(expected, case.leaves)
    loss = hsan_loss(case.similarity(kind), weights, block_size=block_size)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    for found, wanted in zip(torch.autograd.grad(loss, case.leaves), expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-9)


def test_float32_is_as_exact_as_float32_can_be():
    exact = hsan_loss(Case().similarity(), Case().frozen())
    single = hsan_loss(Case(dtype=torch.float32).similarity(), Case(dtype=torch.float32).frozen())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(exact.item(), abs=1e-5)


def test_gradient_passes_gradcheck():
    case = Case(num_nodes=6)
    frozen = case.frozen()
    assert torch.autograd.gradcheck(
        lambda *_: hsan_loss(case.similarity(), frozen, block_size=4), tuple(case.leaves), fast_mode=True
    )


def test_kept_tiles_change_nothing():
    case = Case()
    losses = [
        hsan_loss(case.similarity(), case.frozen(), block_size=7, keep_tiles_bytes=b) for b in (0, 1 << 20)
    ]
    assert losses[0].item() == losses[1].item()
    first, second = (torch.autograd.grad(loss, case.leaves) for loss in losses)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_only_the_pair_with_itself_is_left_out():
    # All similarities are 1: the sum runs over 2N - 1 equal terms, the positive among them.
    ones = [torch.ones(N, 3, dtype=torch.float64)] * 2
    similarity = mixed_similarity(cosines(ones), cosines(ones), torch.tensor(0.5, dtype=torch.float64))
    assert hsan_loss(similarity).item() == pytest.approx(math.log(2 * N - 1))


def test_loss_knows_no_order_of_nodes_or_views():
    case = Case()
    expected = hsan_loss(case.similarity("any"), case.frozen()).item()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    case.x_NF, case.e = case.x_NF[order], [e_ND[order] for e_ND in case.e]
    case.cluster_N, case.confident_N = case.cluster_N[order], case.confident_N[order]
    assert hsan_loss(case.similarity("any"), case.frozen()).item() == pytest.approx(expected, abs=1e-12)
    for two in (case.weight, case.bias, case.e):
        two.reverse()
    assert hsan_loss(case.similarity("any"), case.frozen()).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 1.0, 1.5])
def test_alpha_is_free(alpha):
    case = Case()
    mixed = torch.tensor(alpha, dtype=torch.float64)
    ones = torch.ones(2 * N, 2 * N, dtype=torch.float64)
    expected = naive_loss(case.dense_similarity(mixed), ones).item()
    similarity = case.similarity(alpha=mixed)
    assert hsan_loss(similarity).item() == pytest.approx(expected, abs=1e-9)
    assert whole(similarity).abs().max() <= similarity.bound + 1e-12


def test_half_precision_products_stay_close():
    case = Case(dtype=torch.float32)
    full = hsan_loss(case.similarity(), case.frozen())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = hsan_loss(case.similarity(), case.frozen())
    assert half.dtype == torch.float32
    assert half.item() != full.item()
    assert half.item() == pytest.approx(full.item(), abs=5e-3)


def test_rows_of_zeros_give_finite_gradients():
    case = Case()
    case.x_NF = torch.zeros_like(case.x_NF)
    with torch.no_grad():
        case.bias[0].zero_()
    loss = hsan_loss(case.similarity())
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, case.leaves))


def test_single_node_is_not_defined():
    with pytest.raises(NotDefined, match="two nodes"):
        hsan_loss(Case(num_nodes=1).similarity())


@pytest.mark.parametrize("make", [lambda frozen: frozen, keep_weights], ids=["frozen", "kept"])
def test_fresh_weights_equal_the_dense_form(make):
    case = Case()
    weights = make(case.frozen())
    matrix = whole(weights)
    torch.testing.assert_close(matrix, case.dense_weights(3.0, 1.2), atol=1e-12, rtol=0)
    torch.testing.assert_close(weights.positive_N, matrix.diagonal(N), atol=1e-12, rtol=0)
    torch.testing.assert_close(matrix, matrix.T, atol=1e-12, rtol=0)
    assert not matrix.requires_grad
    confident = case.confident_N.repeat(2)
    assert (matrix[~confident] == 1).all()
    assert (matrix[:, ~confident] == 1).all()
    assert (matrix[confident][:, confident] < 1).any()


def test_weight_of_any_pairs_is_that_of_the_tile():
    case = Case()
    nodes_A, others_AM = torch.tensor([3, 0, 11]), torch.tensor([[0, 5], [22, 1], [11, 4]])
    for weights in (case.frozen(), keep_weights(case.frozen()), case.similarity()):
        for pair in VIEW_PAIRS:
            block = weights.tile(pair, slice(0, N), slice(0, N))
            found = weights.of_pairs(pair, nodes_A, others_AM)
            torch.testing.assert_close(found, block[nodes_A[:, None], others_AM])
        transposed = weights.tile((0, 1), slice(0, N), slice(0, N)).T
        found = weights.of_pairs((1, 0), nodes_A, others_AM)
        torch.testing.assert_close(found, transposed[nodes_A[:, None], others_AM])


def test_weights_with_power_zero_are_no_weights():
    case = Case()
    weighted = hsan_loss(case.similarity(), case.frozen(power=0.0))
    assert weighted.item() == pytest.approx(hsan_loss(case.similarity()).item(), abs=1e-12)


def test_hard_pairs_weigh_more():
    case = Case()
    case.confident_N[:] = True
    matrix, similarity = whole(case.frozen()), case.dense_similarity(1.2)
    same = case.cluster_N.repeat(2)[:, None] == case.cluster_N.repeat(2)
    for mask, sign in ((same, -1), (~same, 1)):
        by_similarity = matrix[mask][similarity[mask].argsort()]
        assert (sign * by_similarity.diff() >= -1e-12).all()


def test_stale_weights_stay_where_nodes_are_no_longer_trusted():
    case = Case()
    before = keep_weights(case.frozen())
    matrix_before = whole(before).clone()
    trusted_before = case.confident_N
    case.confident_N = torch.arange(N) % 2 == 0
    case.cluster_N = case.cluster_N.roll(1)
    after = whole(keep_weights(case.frozen(power=2.0, alpha=0.4), dict(before.weight)))
    trusted = case.confident_N.repeat(2)
    both = trusted[:, None] & trusted
    torch.testing.assert_close(after[both], case.dense_weights(2.0, 0.4)[both], atol=1e-12, rtol=0)
    assert torch.equal(after[~both], matrix_before[~both])
    assert (after[~both] != 1).any()
    assert (trusted_before != case.confident_N).any()


def test_kept_weights_take_the_memory_they_say():
    case = Case(dtype=torch.float32)
    kept = keep_weights(case.frozen())
    assert sum(w.numel() * w.element_size() for w in kept.weight.values()) == kept_weights_bytes(N)


def distances(num_nodes=200, num_clusters=5, seed=0):
    return np.random.default_rng(seed).uniform(0, 4, (num_nodes, num_clusters)).astype(np.float32)


def test_least_share_orders_nodes_as_the_margin_does():
    distance_NK = distances().astype(np.float64)
    margin_N = np.exp(distance_NK - distance_NK.min(1, keepdims=True)).sum(1)
    np.testing.assert_array_equal(np.argsort(least_share(distance_NK)), np.argsort(-margin_N))
    np.testing.assert_allclose(least_share(distance_NK), 1 / margin_N)


@pytest.mark.parametrize(
    ("num_nodes", "kept_rate", "expected"), [(2708, 0.9, 2439), (131, 0.3, 41), (200, 1.0, 200), (9, 0.95, 9)]
)
def test_number_of_confident_nodes(num_nodes, kept_rate, expected):
    distance_NK = distances(num_nodes)
    is_confident_N = confident_nodes(distance_NK, kept_rate=kept_rate)
    assert is_confident_N.sum() == expected
    share_N = least_share(distance_NK)
    if expected < num_nodes:
        assert share_N[is_confident_N].max() < share_N[~is_confident_N].min()


def test_large_distances_do_not_overflow():
    assert np.isfinite(least_share(distances() * 1e4)).all()
