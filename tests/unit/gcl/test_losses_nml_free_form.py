"""The free-form NML loss against its formulas on N x N matrices, and that its weights are the optimum."""

import math

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from gcl.errors import NotDefined
from gcl.losses.contrastive import info_nce_loss
from gcl.losses.nml_free_form import FIRST_SWEEPS, FLOOR, free_form_weights, nml_free_form_loss

SELF = pytest.mark.parametrize("include_self", [True, False])


def views(num_nodes=13, *, dtype=torch.float64, seed=0):
    """Two related views with four clusters, so that some negatives are similar."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 5, generator=generator, dtype=dtype)[torch.arange(num_nodes) % 4]
    u, v = (centres + 0.5 * torch.randn(num_nodes, 5, generator=generator, dtype=dtype) for _ in range(2))
    return u.requires_grad_(), v.requires_grad_()


def scores(u, v, tau):
    return functional.normalize(u) @ functional.normalize(v).T / tau


def dense_weights(s, *, alpha, num_sweeps, include_self, mass=None):
    """The recipe as stated: constants from Z, weights from constants, normalise, Z from weights."""
    num_nodes = len(s)
    allowed = torch.ones_like(s) if include_self else 1 - torch.eye(num_nodes, dtype=s.dtype)
    count = allowed.sum(dim=1)
    e, positive = s.exp(), s.diagonal().exp()
    mass = (allowed * e).sum(dim=1) / count if mass is None else mass
    for _ in range(num_sweeps):
        p = (num_nodes - 1) * mass / (positive + (num_nodes - 1) * mass)
        w = allowed / ((alpha - p).clamp(min=FLOOR)[:, None] + (p / mass)[:, None] * e)
        w = w * (count / w.sum(dim=1))[:, None]
        mass = (w * e).sum(dim=1) / count
    return w, mass


def dense_loss(s, w, *, include_self):
    count = len(s) if include_self else len(s) - 1
    positive = s.diagonal().exp()
    mass = (w * s.exp()).sum(dim=1) / count
    return -(positive / (positive + (len(s) - 1) * mass)).log().mean()


def objective_A(s_AM, positive_A, w_AM, *, alpha, num_nodes):
    """What the weights of each anchor minimise: contrast and divergence from uniform."""
    mass_A = (w_AM * s_AM.exp()).mean(dim=1)
    contrast_A = ((num_nodes - 1) * mass_A / positive_A.exp()).log1p()
    return contrast_A - alpha * w_AM.log().mean(dim=1)


@SELF
@pytest.mark.parametrize("alpha", [0.3, 1.2, 40.0])
@pytest.mark.parametrize("num_sweeps", [1, 3])
@pytest.mark.parametrize("block_size", [1, 4, 13, None])
def test_value_gradient_and_mass_are_those_of_the_formulas(include_self, alpha, num_sweeps, block_size):
    u, v = views()
    s = scores(u, v, 0.3)
    losses, masses = [], []
    for way in (s, s.T):
        given = {"alpha": alpha, "num_sweeps": num_sweeps, "include_self": include_self}
        w, mass = dense_weights(way.detach(), **given)
        losses.append(dense_loss(way, w, include_self=include_self))
        masses.append(mass.log())
    expected = sum(losses) / 2
    found = nml_free_form_loss(
        u, v, temperature=0.3, alpha=alpha, num_sweeps=num_sweeps, include_self=include_self,
        block_size=block_size,
    )  # fmt: skip
    assert found.loss.item() == pytest.approx(expected.item(), abs=1e-9, rel=1e-9)
    torch.testing.assert_close(found.log_mass_VN, torch.stack(masses), rtol=1e-9, atol=1e-9)
    assert not found.log_mass_VN.requires_grad
    true = torch.autograd.grad(expected, (u, v))
    for one, other in zip(torch.autograd.grad(found.loss, (u, v)), true, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@SELF
def test_dense_rows_are_those_of_the_formulas(include_self):
    s = scores(*views(), 0.3).detach()
    anchors = torch.tensor([5, 0, 12])
    for num_sweeps in (1, 4):
        given = {"alpha": 1.2, "num_sweeps": num_sweeps}
        expected, _ = dense_weights(s, include_self=include_self, **given)
        self_A = None if include_self else anchors
        found = free_form_weights(s[anchors], s.diagonal()[anchors], self_A=self_A, **given)
        torch.testing.assert_close(found, expected[anchors], rtol=1e-9, atol=1e-12)


def test_sweeps_go_on_from_a_known_mass():
    u, v = views()
    given = {"temperature": 0.2, "alpha": 1.2}
    whole = nml_free_form_loss(u, v, num_sweeps=5, **given)
    begun = nml_free_form_loss(u, v, num_sweeps=3, **given)
    for rest in ({"num_sweeps": 2}, {}):  # from a known start one sweep is enough
        begun = nml_free_form_loss(u, v, log_mass_VN=begun.log_mass_VN, **rest, **given)
        torch.testing.assert_close(begun.log_mass_VN, whole.log_mass_VN, rtol=1e-12, atol=1e-12)
        assert begun.loss.item() == pytest.approx(whole.loss.item(), rel=1e-12)
        whole = nml_free_form_loss(u, v, num_sweeps=6, **given)
    first = nml_free_form_loss(u, v, **given)
    assert first.loss.equal(nml_free_form_loss(u, v, num_sweeps=FIRST_SWEEPS, **given).loss)


@pytest.mark.parametrize("tau", [0.1, 0.2, 0.8])
def test_sweeps_settle_at_the_stationary_point(tau):
    alpha, num_nodes = 1.2, 40
    s = scores(*views(num_nodes), tau).detach()
    w = free_form_weights(s, s.diagonal(), alpha=alpha, self_A=torch.arange(num_nodes), num_sweeps=60)
    mass = (w * s.exp()).sum(dim=1, keepdim=True) / (num_nodes - 1)
    p = torch.sigmoid(math.log(num_nodes - 1) + mass.log() - s.diagonal()[:, None])
    stationary = alpha / (alpha - p + p * s.exp() / mass)
    off = ~torch.eye(num_nodes, dtype=torch.bool)
    torch.testing.assert_close(w[off], stationary[off], rtol=1e-8, atol=0)  # alpha normalises by itself


@pytest.mark.parametrize("tau", [0.2, 0.8])
@pytest.mark.parametrize("alpha", [1.02, 1.2, 2.0])
def test_no_other_weights_have_a_lower_loss(tau, alpha):
    num_nodes = 30
    s = scores(*views(num_nodes), tau).detach()
    off = ~torch.eye(num_nodes, dtype=torch.bool)
    free = free_form_weights(s, s.diagonal(), alpha=alpha, self_A=torch.arange(num_nodes), num_sweeps=200)
    s_AM, free = s[off].view(num_nodes, -1), free[off].view(num_nodes, -1)
    given = {"alpha": alpha, "num_nodes": num_nodes}
    least = objective_A(s_AM, s.diagonal(), free, **given)
    assert (objective_A(s_AM, s.diagonal(), torch.ones_like(free), **given) > least).all()
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 0.1, 1.0, 4.0):
        for _ in range(20):
            noise = torch.randn(free.shape, generator=generator, dtype=free.dtype)
            other = (free.log() + size * noise).softmax(dim=1) * free.shape[1]
            assert (objective_A(s_AM, s.diagonal(), other, **given) > least).all()


def test_gradient_is_that_of_the_minimum_over_weights():
    """Envelope theorem: optimal weights may be constants. Checked by differences of the minimum itself."""
    u, v = (z.detach() for z in views(8))
    alpha, step = 1.2, 1e-5

    def minimum(u):
        s = scores(u, v, 0.3)
        total = 0.0
        for way in (s, s.T):
            w, _ = dense_weights(way, alpha=alpha, num_sweeps=200, include_self=False)
            off = ~torch.eye(len(s), dtype=torch.bool)
            s_AM, w_AM = way[off].view(len(s), -1), w[off].view(len(s), -1)
            total += objective_A(s_AM, way.diagonal(), w_AM, alpha=alpha, num_nodes=len(s)).mean() / 2
        return total

    leaf = u.clone().requires_grad_()
    loss = nml_free_form_loss(leaf, v, temperature=0.3, alpha=alpha, num_sweeps=200).loss
    (gradient,) = torch.autograd.grad(loss, leaf)
    for i, j in ((0, 0), (3, 2), (7, 4)):
        shift = torch.zeros_like(u)
        shift[i, j] = step
        slope = (minimum(u + shift) - minimum(u - shift)) / (2 * step)
        assert gradient[i, j].item() == pytest.approx(slope.item(), abs=1e-7)


@pytest.mark.parametrize("num_sweeps", [1, 30])
def test_weights_fall_with_similarity_and_have_mean_one(num_sweeps):
    s = scores(*views(40), 0.2).detach()
    anchors = torch.arange(40)
    w = free_form_weights(s, s.diagonal(), alpha=1.2, self_A=anchors, num_sweeps=num_sweeps)
    torch.testing.assert_close(w.sum(dim=1), torch.full((40,), 39.0).double())
    assert (w.diagonal() == 0).all()
    order = s.argsort(dim=1)
    falling = w.gather(1, order)[order != anchors[:, None]].view(40, 39)
    assert (falling.diff(dim=1) < 0).all()
    assert falling.amax() / falling.amin() > 20


def test_large_alpha_gives_uniform_weights():
    u, v = views()
    s = scores(u, v, 0.2).detach()
    w = free_form_weights(s, s.diagonal(), alpha=1e9)
    torch.testing.assert_close(w, torch.ones_like(w), rtol=1e-5, atol=0)
    found = nml_free_form_loss(u, v, temperature=0.2, alpha=1e9)
    assert found.loss.item() == pytest.approx(info_nce_loss(u, v, temperature=0.2).item(), rel=1e-6)


def test_small_alpha_counts_as_the_floor_above_the_share_of_the_negatives():
    """Below p + FLOOR the fixed point is that of alpha = p + FLOOR, whatever alpha is."""
    s = scores(*views(30), 0.8).detach()
    small, smaller = (free_form_weights(s, s.diagonal(), alpha=alpha, num_sweeps=60) for alpha in (0.5, 0.01))
    torch.testing.assert_close(small, smaller, rtol=1e-9, atol=0)
    assert torch.isfinite(small).all()


def test_loss_is_below_that_of_uniform_weights():
    u, v = views(40)
    found = nml_free_form_loss(u, v, temperature=0.2, alpha=1.2).loss
    assert found < 0.7 * info_nce_loss(u, v, temperature=0.2)


def test_weights_of_a_step_with_fewer_nodes_are_weaker():
    """The share of the negatives goes with how many there are."""
    s = scores(*views(40), 0.2).detach()
    spread = [free_form_weights(s, s.diagonal(), alpha=5.0, num_contrasted=n).std() for n in (4, 40)]
    assert spread[0] < spread[1]
    torch.testing.assert_close(
        free_form_weights(s, s.diagonal(), alpha=5.0).std(), spread[1], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("tau", [0.01, 0.05, 0.1, 0.5])
def test_float32_is_close_to_float64(tau):
    exact = views(60)
    single = [leaf.detach().float().requires_grad_() for leaf in exact]
    one, other = (nml_free_form_loss(u, v, temperature=tau, alpha=1.2) for u, v in (single, exact))
    assert one.loss.dtype == one.log_mass_VN.dtype == torch.float32
    assert one.loss.item() == pytest.approx(other.loss.item(), rel=1e-4)
    pairs = zip(torch.autograd.grad(one.loss, single), torch.autograd.grad(other.loss, exact), strict=True)
    for ours, true in pairs:
        assert (ours.double() - true).norm() <= 1e-3 * true.norm()


def test_node_order_and_order_of_the_views_change_nothing():
    u, v = views()
    given = {"temperature": 0.3, "alpha": 1.2, "num_sweeps": 2}
    expected = nml_free_form_loss(u, v, **given)
    swapped = nml_free_form_loss(v, u, **given)
    assert swapped.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
    torch.testing.assert_close(swapped.log_mass_VN, expected.log_mass_VN.flip(0), rtol=1e-12, atol=1e-12)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(1))
    shuffled = nml_free_form_loss(u[order], v[order], block_size=5, **given)
    assert shuffled.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)


def test_no_tensor_of_all_pairs_is_made():
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.numel = max(self.numel, tensor.numel())
            return out

    u, v = views(400)
    with Largest() as largest:
        nml_free_form_loss(u, v, temperature=0.3, alpha=1.2, num_sweeps=2, block_size=50).loss.backward()
    assert largest.numel <= 400 * 50


def test_kept_tiles_give_the_same_bits():
    u, v = views(40, dtype=torch.float32)
    found = []
    for budget in (0, 1 << 20):
        given = {"temperature": 0.3, "alpha": 1.2, "block_size": 16, "keep_tiles_bytes": budget}
        loss = nml_free_form_loss(u, v, **given).loss
        found.append([loss, *torch.autograd.grad(loss, (u, v))])
    assert all(one.equal(other) for one, other in zip(*found, strict=True))


def test_settings_out_of_range_are_refused():
    u, v = views()
    for alpha in (0.0, -1.0):
        with pytest.raises(ValueError, match="alpha must be positive"):
            nml_free_form_loss(u, v, temperature=0.3, alpha=alpha)
    with pytest.raises(ValueError, match="num_sweeps must be at least 1"):
        nml_free_form_loss(u, v, temperature=0.3, alpha=1.0, num_sweeps=0)
    with pytest.raises(ValueError, match=r"log_mass_VN must be \[2, 13\], not \(13,\)"):
        nml_free_form_loss(u, v, temperature=0.3, alpha=1.0, log_mass_VN=torch.zeros(13))
    with pytest.raises(NotDefined, match="a single node has no negatives"):
        nml_free_form_loss(torch.ones(1, 3), torch.ones(1, 3), temperature=0.3, alpha=1.0)
