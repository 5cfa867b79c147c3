"""Products of rows that are much alike: the identity is exact, and bfloat16 keeps what tells them apart."""

import pytest
import torch

from gcl.losses.centred import centred_products
from gcl.losses.grouped import cosine_rows
from gcl.losses.hsan import VIEW_PAIRS, cosines, mixed_similarity
from gcl.losses.hsan_weights import frozen_weights, keep_weights
from gcl.losses.nml import MetricRows, nml_loss

N = 300


def rows(*, spread, seed=0, width=40, dtype=torch.float32, num_rows=N):
    """Rows of unit length around one direction."""
    draws = torch.Generator().manual_seed(seed)
    noise = torch.randn(num_rows, width, generator=draws, dtype=torch.float64)
    return cosine_rows((1 + spread * noise).to(dtype))


def in_bfloat16(enabled=True):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def test_products_and_gradients_are_those_of_the_rows():
    left, right = rows(spread=1, dtype=torch.float64, num_rows=7), rows(spread=1, seed=1, dtype=torch.float64)
    for operand in (left, right):
        operand.requires_grad_()
    found = centred_products(left, right).tile(slice(2, 6), slice(10, 250))
    expected = left[2:6] @ right[10:250].T
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((found * probe).sum(), [left, right]),
        torch.autograd.grad((expected * probe).sum(), [left, right]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spread", [0.5, 0.05, 0.005])
def test_bfloat16_keeps_the_differences(spread):
    left, right = rows(spread=spread), rows(spread=spread, seed=1)
    everything = slice(0, N)
    exact = left.double() @ right.double().T
    with in_bfloat16():
        found = centred_products(left, right).tile(everything, everything)
        plain = (left @ right.T).double()
    assert found.dtype == torch.float32
    error, plain_error = ((x.double() - exact).std() / exact.std() for x in (found, plain))
    assert error < 0.01
    assert plain_error > 3 * error  # 30 times and more where rows are much alike


def test_weights_of_hsan_between_sigmoid_rows_survive_bfloat16():
    def weights(enabled):
        with in_bfloat16(enabled):
            z_VND = [
                torch.randn(N, 64, generator=torch.Generator().manual_seed(view)).mul(0.1).sigmoid()
                for view in (0, 1)
            ]
            similarity = mixed_similarity(cosines(z_VND), cosines(z_VND), torch.tensor(0.99))
            cluster_N, is_confident_N = torch.arange(N) % 4, torch.ones(N, dtype=torch.bool)
            frozen = frozen_weights(similarity, cluster_N, is_confident_N, power=2.0)
            return keep_weights(frozen).weight

    full, lower = weights(False), weights(True)
    for pair in VIEW_PAIRS:
        # Most similarities lie in a narrow band beside the 1 of a node with itself.
        off_diagonal = ~torch.eye(N, dtype=torch.bool)
        a, b = full[pair][off_diagonal], lower[pair][off_diagonal]
        assert (a - b).abs().max() < 0.02 * (a.max() - a.min()) + 0.005
        assert len(b.unique()) > 1000


@pytest.mark.parametrize(("spread", "least_cosine"), [(0.1, 0.99), (0.2, 0.999)])
def test_the_metric_of_nml_learns_near_uniform_weights_in_bfloat16(spread, least_cosine):
    """Without the means taken off, cosines of the gradients are .03 and .25."""
    u, v = (torch.randn(N, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    metric_rows = [rows(spread=spread, seed=seed).requires_grad_() for seed in (2, 3)]

    def kl_and_gradients(enabled):
        with in_bfloat16(enabled):
            found = nml_loss(u, v, MetricRows(*metric_rows), temperature=0.5, kl_weight=float(N - 1))
        return found.kl.item(), torch.cat(torch.autograd.grad(found.loss, metric_rows)).flatten()

    (kl, full), (lower_kl, lower) = kl_and_gradients(False), kl_and_gradients(True)
    assert 0 < kl < 1e-4  # weights within about one percent of uniform
    assert lower_kl == pytest.approx(kl, rel=0.2)
    assert torch.cosine_similarity(full, lower, dim=0) > least_cosine
