"""InfoNCE and GRACE: equal to the dense formulas, in value and gradient, for every block size."""

import math

import pytest
import torch
from torch.nn import functional

from gcl.errors import NotDefined
from gcl.losses.contrastive import grace_loss, info_nce_loss

BLOCK_SIZES = [1, 3, 4, 16, None]
LOSSES = [
    pytest.param(info_nce_loss, id="info_nce"),
    pytest.param(
        lambda u, v, **rest: info_nce_loss(u, v, negatives_include_self=True, **rest), id="info_nce_self"
    ),
    pytest.param(lambda u, v, **rest: info_nce_loss(u, v, both_directions=False, **rest), id="one_direction"),
    pytest.param(grace_loss, id="grace"),
]


def views(num_nodes=11, size=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num_nodes, size, generator=generator, dtype=dtype).requires_grad_() for _ in range(2)]


def dense_info_nce(u, v, *, temperature, both_directions=True, include_self=False):
    cosine = functional.normalize(u, dim=1) @ functional.normalize(v, dim=1).T
    num_nodes, losses = len(u), []
    for similarity in [cosine, cosine.T] if both_directions else [cosine]:
        e = torch.exp(similarity / temperature)
        positive = e.diagonal()
        all_but_self = e * (1 - torch.eye(num_nodes, dtype=e.dtype))
        negatives = ((num_nodes - 1) * (e / num_nodes) if include_self else all_but_self).sum(1)
        losses.append(-torch.log(positive / (positive + negatives)))
    return torch.stack(losses).mean()


def dense_grace(u, v, *, temperature):
    losses = []
    for anchor, other in [(u, v), (v, u)]:
        anchor, other = functional.normalize(anchor, dim=1), functional.normalize(other, dim=1)
        between = torch.exp(anchor @ other.T / temperature)
        within = torch.exp(anchor @ anchor.T / temperature)
        denominator = between.sum(1) + (within * (1 - torch.eye(len(u), dtype=u.dtype))).sum(1)
        losses.append(-torch.log(between.diagonal() / denominator))
    return torch.stack(losses).mean()


CASES = [
    pytest.param(info_nce_loss, dense_info_nce, {}, {}, id="info_nce"),
    pytest.param(
        info_nce_loss,
        dense_info_nce,
        {"both_directions": False},
        {"both_directions": False},
        id="one_direction",
    ),
    pytest.param(
        info_nce_loss,
        dense_info_nce,
        {"negatives_include_self": True},
        {"include_self": True},
        id="with_self",
    ),
    pytest.param(grace_loss, dense_grace, {}, {}, id="grace"),
]


@pytest.mark.parametrize(("loss", "dense", "options", "dense_options"), CASES)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("temperature", [0.02, 0.5])
def test_equals_dense_in_value_and_gradient(loss, dense, options, dense_options, block_size, temperature):
    pair = views()
    found = loss(*pair, temperature=temperature, block_size=block_size, **options)
    expected = dense(*pair, temperature=temperature, **dense_options)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(3 * found, pair), torch.autograd.grad(3 * expected, pair), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("loss", "dense", "options", "dense_options"), CASES)
def test_float32_is_within_a_hundred_thousandth(loss, dense, options, dense_options):
    pair = views(300, 32)
    single = [z.detach().float().requires_grad_() for z in pair]
    found = loss(*single, temperature=0.2, block_size=64, **options)
    expected = dense(*pair, temperature=0.2, **dense_options)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for f, e in zip(torch.autograd.grad(found, single), torch.autograd.grad(expected, pair), strict=True):
        assert (f - e).norm() < 1e-5 * e.norm()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_finite_differences(loss):
    assert torch.autograd.gradcheck(lambda u, v: loss(u, v, temperature=0.3, block_size=2), views(5, 3))


@pytest.mark.parametrize("loss", LOSSES)
def test_order_of_the_nodes_changes_nothing(loss):
    u, v = views()
    order = torch.randperm(len(u), generator=torch.Generator().manual_seed(1))
    before, after = (loss(a, b, temperature=0.3, block_size=4) for a, b in [(u, v), (u[order], v[order])])
    assert after.item() == pytest.approx(before.item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(before, u), torch.autograd.grad(after, u))


@pytest.mark.parametrize("loss", [info_nce_loss, grace_loss])
def test_swapping_the_views_changes_nothing(loss):
    u, v = views()
    assert loss(u, v, temperature=0.3, block_size=4).item() == pytest.approx(
        loss(v, u, temperature=0.3, block_size=4).item(), rel=1e-12
    )


def test_one_direction_is_not_symmetric():
    u, v = views()
    one, other = (info_nce_loss(*pair, temperature=0.3, both_directions=False) for pair in [(u, v), (v, u)])
    assert abs(one - other) > 1e-3
    assert info_nce_loss(u, v, temperature=0.3).item() == pytest.approx((one + other).item() / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_length_of_the_rows_changes_nothing(loss):
    u, v = views()
    before = loss(u, v, temperature=0.3)
    assert loss(7 * u, 0.1 * v, temperature=0.3).item() == pytest.approx(before.item(), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("block_size", [3, None])
def test_finite_at_temperature_one_hundredth(loss, block_size):
    for pair in (views(dtype=torch.float32), [torch.ones(4, 3, requires_grad=True) for _ in range(2)]):
        value = loss(*pair, temperature=0.01, block_size=block_size)
        value.backward()
        assert torch.isfinite(value)
        assert all(torch.isfinite(z.grad).all() for z in pair)


@pytest.mark.parametrize("loss", LOSSES)
def test_row_of_zeros_has_a_finite_gradient(loss):
    u, v = views(dtype=torch.float32)
    with torch.no_grad():
        u[0] = 0
    loss(u, v, temperature=0.1).backward()
    assert torch.isfinite(u.grad).all()


def test_agreeing_views_of_separate_nodes_have_a_small_loss():
    z = torch.eye(4)
    assert grace_loss(z, z, temperature=0.05).item() < 1e-6
    assert info_nce_loss(z, z, temperature=0.05).item() < 1e-6
    collapsed = torch.ones(4, 4)
    assert info_nce_loss(collapsed, collapsed, temperature=0.5).item() == pytest.approx(math.log(4))
    assert grace_loss(collapsed, collapsed, temperature=0.5).item() == pytest.approx(math.log(7))


@pytest.mark.parametrize("loss", LOSSES)
def test_under_autocast_close_and_float32(loss):
    pair = views(200, 16, dtype=torch.float32)
    exact = loss(*pair, temperature=0.4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(*pair, temperature=0.4)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=2e-3)
    gradients = [torch.autograd.grad(value, pair)[0] for value in (found, exact)]
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[1].norm()


@pytest.mark.parametrize("loss", LOSSES)
def test_single_node_is_not_defined(loss):
    with pytest.raises(NotDefined, match="single node"):
        loss(*views(1), temperature=0.5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(loss, temperature):
    with pytest.raises(ValueError, match="temperature"):
        loss(*views(), temperature=temperature)


@pytest.mark.parametrize("loss", LOSSES)
def test_views_must_have_one_shape(loss):
    with pytest.raises(ValueError, match="one shape"):
        loss(torch.ones(3, 2), torch.ones(4, 2), temperature=0.5)
