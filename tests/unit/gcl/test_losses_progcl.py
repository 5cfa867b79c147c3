"""ProGCL's mixture and its weighted loss, against scipy's densities and the dense formula."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch.nn import functional

from gcl.errors import NotDefined
from gcl.losses.contrastive import grace_loss
from gcl.losses.progcl import LEAST_LOG_WEIGHT, BetaMixture, fit_beta_mixture, progcl_loss

MIXTURE = BetaMixture(2.0, 5.0, 6.0, 2.5, 0.1, -0.4, 0.9)


@dataclass(frozen=True)
class Equal(BetaMixture):
    """All negatives weigh the same."""

    def log_weight(self, cosine):
        return torch.full_like(cosine, -1.5)


EQUAL = Equal(1.0, 2.0, 2.0, 1.0, 0.05, -1.0, 1.0)


def views(num_nodes=9, size=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(num_nodes, size, generator=generator, dtype=dtype).requires_grad_() for _ in range(2)]


def naive_weight(cosine, mixture):
    scaled = np.clip((cosine - mixture.lowest) / (mixture.highest - mixture.lowest), 1e-4, 1 - 1e-4)
    true = (1 - mixture.false_share) * beta.pdf(scaled, mixture.true_alpha, mixture.true_beta)
    false = mixture.false_share * beta.pdf(scaled, mixture.false_alpha, mixture.false_beta)
    return np.maximum(scaled * true / (true + false), math.exp(LEAST_LOG_WEIGHT))


def dense_progcl(u, v, *, mixture, temperature):
    z = functional.normalize(torch.cat([u, v]), dim=1)
    cosine, num_rows = z @ z.T, 2 * len(u)
    node = torch.arange(len(u)).repeat(2)
    is_negative = node[:, None] != node
    weight = torch.from_numpy(naive_weight(cosine.detach().numpy(), mixture)) * is_negative
    weight = weight / (weight.sum(1, keepdim=True) / (num_rows - 2))
    positive = torch.exp(cosine[torch.arange(num_rows), torch.arange(num_rows).roll(len(u))] / temperature)
    negatives = (weight * torch.exp(cosine / temperature)).sum(1)
    return -torch.log(positive / (positive + negatives)).mean()


@pytest.mark.parametrize("block_size", [1, 4, 5, 9, 18, None])
@pytest.mark.parametrize("temperature", [0.03, 0.5])
def test_equals_dense_in_value_and_gradient(block_size, temperature):
    pair = views()
    found = progcl_loss(*pair, mixture=MIXTURE, temperature=temperature, block_size=block_size)
    expected = dense_progcl(*pair, mixture=MIXTURE, temperature=temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(3 * found, pair), torch.autograd.grad(3 * expected, pair), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("block_size", [4, None])
def test_equal_weights_are_grace(block_size):
    pair = views()
    found = progcl_loss(*pair, mixture=EQUAL, temperature=0.4, block_size=block_size)
    expected = grace_loss(*pair, temperature=0.4)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(found, pair), torch.autograd.grad(expected, pair))


def test_float32_is_within_a_hundred_thousandth():
    pair = views(200, 16)
    single = [z.detach().float().requires_grad_() for z in pair]
    found = progcl_loss(*single, mixture=MIXTURE, temperature=0.2, block_size=64)
    expected = dense_progcl(*pair, mixture=MIXTURE, temperature=0.2)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for f, e in zip(torch.autograd.grad(found, single), torch.autograd.grad(expected, pair), strict=True):
        assert (f - e).norm() < 2e-5 * e.norm()


def test_swapping_views_or_nodes_changes_nothing():
    u, v = views()
    order = torch.randperm(len(u), generator=torch.Generator().manual_seed(1))
    values = [
        progcl_loss(*pair, mixture=MIXTURE, temperature=0.3, block_size=4).item()
        for pair in [(u, v), (v, u), (u[order], v[order])]
    ]
    assert values[1:] == pytest.approx(values[:1] * 2, rel=1e-12)


def test_finite_at_temperature_one_hundredth_and_under_autocast():
    pair = views(dtype=torch.float32)
    exact = progcl_loss(*pair, mixture=MIXTURE, temperature=0.4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = progcl_loss(*pair, mixture=MIXTURE, temperature=0.4)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=0.01)
    cold = progcl_loss(*pair, mixture=MIXTURE, temperature=0.01)
    cold.backward()
    assert torch.isfinite(cold)
    assert all(torch.isfinite(z.grad).all() for z in pair)


def test_log_weight_is_that_of_the_densities():
    cosine = np.linspace(-1, 1, 41)
    found = MIXTURE.log_weight(torch.from_numpy(cosine))
    np.testing.assert_allclose(found.exp().numpy(), naive_weight(cosine, MIXTURE), rtol=1e-9)
    far = BetaMixture(2.0, 50.0, 50.0, 2.0, 0.5, -1.0, 1.0).log_weight(torch.tensor([1.0]))
    assert far.item() == LEAST_LOG_WEIGHT


def test_weight_rises_with_similarity_until_pairs_are_likely_false():
    weight = MIXTURE.log_weight(torch.linspace(-0.4, 0.9, 200))
    peak = int(weight.argmax())
    assert 20 < peak < 180
    assert (weight[: peak + 1].diff() >= 0).all()
    assert (weight[peak:].diff() <= 1e-6).all()


def test_weights_of_cosines_are_not_changed_in_place():
    cosine = torch.linspace(-1, 1, 5)
    before = cosine.clone()
    MIXTURE.log_weight(cosine)
    assert torch.equal(cosine, before)


def test_fit_finds_a_planted_mixture():
    generator = np.random.default_rng(0)
    scaled = np.concatenate([generator.beta(4, 12, 70_000), generator.beta(14, 4, 30_000)])
    found = fit_beta_mixture(2 * scaled - 1, num_iterations=50)
    assert found.false_share == pytest.approx(0.3, abs=0.02)
    low, high = (found.lowest + 1) / 2, (found.highest + 1) / 2
    means = [
        low + (high - low) * a / (a + b)
        for a, b in [(found.true_alpha, found.true_beta), (found.false_alpha, found.false_beta)]
    ]
    assert means == pytest.approx([4 / 16, 14 / 18], abs=0.01)


def test_fit_calls_the_less_similar_component_true():
    # A narrow component inside a wide one: the two that the fit starts from change places.
    generator = np.random.default_rng(1)
    cosine = np.concatenate([generator.beta(19.2, 8.3, 7800), generator.beta(1.5, 0.8, 2200)])
    for num_iterations in (1, 10, 50):
        found = fit_beta_mixture(cosine, num_iterations=num_iterations)
        true_mean = found.true_alpha / (found.true_alpha + found.true_beta)
        false_mean = found.false_alpha / (found.false_alpha + found.false_beta)
        assert true_mean <= false_mean
        assert 0 <= found.false_share <= 1


@pytest.mark.parametrize("cosine", [[], [0.3], [0.3] * 9, [math.nan, 0.1]])
def test_equal_similarities_have_no_mixture(cosine):
    with pytest.raises(NotDefined, match="mixture"):
        fit_beta_mixture(np.array(cosine))


def test_two_values_give_finite_parameters():
    found = fit_beta_mixture(np.array([0.0, 1.0] * 5))
    assert all(math.isfinite(getattr(found, name)) for name in BetaMixture.__dataclass_fields__)


def test_single_node_is_not_defined():
    with pytest.raises(NotDefined, match="single node"):
        progcl_loss(*views(1), mixture=MIXTURE, temperature=0.5)


def test_bounds_replace_the_extremes_that_scale():
    cosine = np.random.default_rng(0).uniform(-0.2, 0.6, 500)
    found = fit_beta_mixture(cosine, bounds=(-1.0, 1.0))
    assert (found.lowest, found.highest) == (-1.0, 1.0)
    mean = found.true_alpha / (found.true_alpha + found.true_beta)
    assert mean == pytest.approx((1 + cosine.mean()) / 2, abs=0.1)
