import math

import numpy as np
import pytest
import torch

from gcl.losses.esce import esce_reference_loss, reconstruction_loss
from gcl.losses.posterior import active_units, kl_loss, kl_per_dimension

FORMS = ("sce", "esce_reference", "esce_focal", "esce_focal_positive")


def rows(seed, shape=(9, 5)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("form", FORMS)
def test_forms_equal_loops_over_rows(form, exponent):
    guess, x = rows(0).numpy().astype("d") - 0.3, rows(1).numpy().astype("d")
    unit = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in (guess, x)]
    cosine = [float(a @ b) for a, b in zip(*unit, strict=True)]
    if form == "sce":
        expected = np.mean([(1 - c) ** exponent for c in cosine])
    elif form == "esce_reference":
        s = unit[0] * unit[1]
        s[s <= 0] = 1e-6
        log_soft = [[s[i, j] - math.log(np.exp(s[i]).sum()) for j in range(5)] for i in range(9)]
        mean = [sum(log_soft[i][j] for i in range(9)) / 9 for j in range(5)]
        expected = -np.mean([(1 - s[i, j]) ** exponent * mean[j] for i in range(9) for j in range(5)])
    else:
        p = [(1 + c) / 2 if form == "esce_focal" else c for c in cosine]
        p = [min(max(value, 1e-6), 1) for value in p]
        expected = np.mean([-((1 - value) ** exponent) * math.log(value) for value in p])
    guess_t, x_t = torch.tensor(guess), torch.tensor(x)
    found = reconstruction_loss(guess_t, x_t, form=form, exponent=exponent)
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_length_of_the_reconstruction_plays_no_part(form):
    guess, x = rows(0).requires_grad_(), rows(1)
    loss = reconstruction_loss(guess, x, form=form, exponent=2.0)
    (gradient,) = torch.autograd.grad(loss, guess)
    assert (gradient * guess).sum(1).abs().max() < 1e-6
    assert reconstruction_loss(3 * guess, x, form=form, exponent=2.0).item() == pytest.approx(loss.item())


@pytest.mark.parametrize("form", FORMS)
def test_perfect_rows_have_a_finite_loss_and_gradient(form):
    guess = rows(1).requires_grad_()
    loss = reconstruction_loss(guess, rows(1), form=form, exponent=1.5)
    assert torch.isfinite(torch.autograd.grad(loss, guess)[0]).all()
    assert loss.item() <= reconstruction_loss(rows(0), rows(1), form=form, exponent=1.5).item() + 1e-6


@pytest.mark.parametrize("num_features", [334, 1902])
def test_reference_form_stays_at_the_logarithm_of_the_width(num_features):
    x = rows(1, (40, num_features))
    for guess in (rows(0, (40, num_features)) - 0.5, x):
        value = esce_reference_loss(guess, x, exponent=2.0).item()
        assert 0.99 * math.log(num_features) <= value <= math.log(num_features)


def test_divergence_equals_that_of_torch():
    mean, log_std = rows(0) - 0.5, rows(1) - 0.5
    ours = kl_per_dimension(mean, log_std)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(ours, expected)
    assert kl_loss(ours).item() == pytest.approx(expected.sum().item())


def test_free_nats_leave_small_divergences_alone():
    kl_D = torch.tensor([0.005, 0.5], requires_grad=True)
    loss = kl_loss(kl_D, free_nats=0.02)
    assert loss.item() == pytest.approx(0.52)
    assert torch.autograd.grad(loss, kl_D)[0].tolist() == [0, 1]


def test_units_are_active_where_their_means_vary():
    mean_ND = torch.zeros(50, 3)
    mean_ND[:, 0] = torch.linspace(-1, 1, 50)
    mean_ND[:, 1] = 5
    mean_ND[::2, 2] = 0.1  # variance 0.0025
    assert active_units(mean_ND).item() == 1
    assert active_units(mean_ND / 10).item() == 0
    assert active_units(mean_ND / 10, is_unit_length=True).item() == 1  # 0.0035, of 1 / 3 of a percent
