"""The NML loss against its formulas written out on N x N matrices, and what the formulas promise."""

import math

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from gcl.errors import NotDefined
from gcl.losses.contrastive import info_nce_loss
from gcl.losses.nml import MetricRows, nml_loss, relative_weights

HEADS = pytest.mark.parametrize("num_heads", [1, 2])
SELF = pytest.mark.parametrize("include_self", [True, False])


def operands(num_nodes=13, num_heads=1, *, dtype=torch.float64, seed=0):
    """Two related views and the metric's rows of them (anchor and candidate rows of each for two heads)."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    v = u + 0.7 * torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    rows = [torch.randn(num_nodes, 4, generator=generator, dtype=dtype) for _ in range(2 * num_heads)]
    return [leaf.requires_grad_() for leaf in (u, v, *rows)]


def dense_direction(u, v, anchor, candidate, *, tau, tau_m, sign, include_self, kl_weight):
    """One direction of the loss, term by term as defined, probabilities and all."""
    num_nodes = len(u)
    s = functional.normalize(u) @ functional.normalize(v).T / tau
    a = sign * functional.normalize(anchor) @ functional.normalize(candidate).T / tau_m
    allowed = torch.ones_like(s, dtype=torch.bool)
    if not include_self:
        allowed.fill_diagonal_(False)
    m = torch.where(allowed, a, -math.inf).softmax(dim=1)
    positive = s.diagonal().exp()
    negatives = (num_nodes - 1) * (m * s.exp()).sum(dim=1)
    contrast = -(positive / (positive + negatives)).log().mean()
    share = 1 / allowed.sum(dim=1).double()
    log_m = torch.where(allowed, m, 1.0).log()
    kl = (share.log() - share * log_m.sum(dim=1)).mean()
    return contrast + kl_weight * kl, contrast, kl


def dense_nml(leaves, **settings):
    """Both directions: the second is the first with the roles of the views exchanged."""
    u, v, *rows = leaves
    if len(rows) == 2:
        forth, back = (rows[0], rows[1]), (rows[1], rows[0])
    else:
        forth, back = (rows[0], rows[1]), (rows[2], rows[3])
    first = dense_direction(u, v, *forth, **settings)
    second = dense_direction(v, u, *back, **settings)
    return [(one + two) / 2 for one, two in zip(first, second, strict=True)]


def streamed_nml(leaves, *, tau, tau_m, sign, include_self, kl_weight, block_size=None):
    u, v, *rows = leaves
    found = nml_loss(
        u,
        v,
        MetricRows(*rows),
        temperature=tau,
        metric_temperature=tau_m,
        metric_sign=sign,
        include_self=include_self,
        kl_weight=kl_weight,
        block_size=block_size,
    )
    return [found.loss, found.contrast, found.kl]


@HEADS
@SELF
@pytest.mark.parametrize(("sign", "tau_m"), [(1, 1.0), (-1, 0.25)])
@pytest.mark.parametrize("block_size", [1, 4, 13, None])
def test_value_and_gradients_are_those_of_the_formulas(num_heads, include_self, sign, tau_m, block_size):
    settings = {"tau": 0.6, "tau_m": tau_m, "sign": sign, "include_self": include_self, "kl_weight": 1.3}
    leaves = operands(num_heads=num_heads)
    expected = dense_nml(leaves, **settings)
    found = streamed_nml(leaves, **settings, block_size=block_size)
    for one, other in zip(found, expected, strict=True):
        assert one.item() == pytest.approx(other.item(), abs=1e-9, rel=1e-9)
    for part in range(3):
        true = torch.autograd.grad(expected[part], leaves, retain_graph=True, allow_unused=True)
        ours = torch.autograd.grad(found[part], leaves, retain_graph=True, allow_unused=True)
        for one, other in zip(ours, true, strict=True):
            if other is not None:
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@HEADS
def test_float32_is_close_to_float64_at_small_temperatures(num_heads):
    settings = {"tau": 0.1, "tau_m": 0.1, "sign": -1, "include_self": True, "kl_weight": 1.0}
    exact = operands(60, num_heads)
    single = [leaf.detach().float().requires_grad_() for leaf in exact]
    one, other = streamed_nml(single, **settings)[0], dense_nml(exact, **settings)[0]
    assert one.dtype == torch.float32
    assert one.item() == pytest.approx(other.item(), rel=1e-5)
    pairs = zip(torch.autograd.grad(one, single), torch.autograd.grad(other, exact), strict=True)
    for ours, true in pairs:
        assert (ours.double() - true).norm() <= 1e-5 * true.norm()


@HEADS
@SELF
def test_gradcheck(num_heads, include_self):
    def loss(*leaves):
        return streamed_nml(
            leaves, tau=0.7, tau_m=0.5, sign=-1, include_self=include_self, kl_weight=0.4, block_size=2
        )[0]

    assert torch.autograd.gradcheck(loss, operands(5, num_heads))


@SELF
def test_uniform_weights_are_info_nce(include_self):
    u, v, *_ = operands()
    found = nml_loss(u, v, temperature=0.5, include_self=include_self, kl_weight=9.0)
    expected = info_nce_loss(u, v, temperature=0.5, negatives_include_self=include_self)
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert found.kl.item() == 0


@SELF
def test_metric_that_cannot_tell_nodes_apart_is_uniform(include_self):
    u, v, *_ = operands()
    same = torch.ones(len(u), 3, dtype=torch.float64)
    given = {"temperature": 0.5, "include_self": include_self, "kl_weight": 2.0}
    found = nml_loss(u, v, MetricRows(same, same), **given)
    assert found.loss.item() == pytest.approx(nml_loss(u, v, **given).loss.item(), rel=1e-12)
    assert found.kl.item() == pytest.approx(0, abs=1e-12)


@HEADS
@SELF
def test_divergence_is_positive_away_from_uniform(num_heads, include_self):
    u, v, *rows = operands(num_heads=num_heads)
    assert nml_loss(u, v, MetricRows(*rows), temperature=1.0, include_self=include_self).kl.item() > 0.01


@SELF
def test_weights_are_a_distribution_within_the_bound_of_unit_cosines(include_self):
    _, _, anchor, candidate = (leaf.detach() for leaf in operands(40))
    self_A = None if include_self else torch.arange(40)
    weight = relative_weights(anchor, candidate, metric_temperature=0.5, self_A=self_A)
    num_candidates = 40 if include_self else 39
    torch.testing.assert_close(weight.sum(dim=1), torch.full((40,), float(num_candidates)).double())
    positive = weight[weight > 0].view(40, num_candidates)
    assert (positive.amax(dim=1) / positive.amin(dim=1)).max() <= math.exp(2 / 0.5)
    assert include_self or (weight.diagonal() == 0).all()


@HEADS
def test_loss_does_not_depend_on_node_order(num_heads):
    leaves = operands(num_heads=num_heads)
    settings = {"tau": 0.6, "tau_m": 0.4, "sign": 1, "include_self": False, "kl_weight": 1.0, "block_size": 5}
    order = torch.randperm(13, generator=torch.Generator().manual_seed(1))
    shuffled = streamed_nml([leaf[order] for leaf in leaves], **settings)[0]
    assert shuffled.item() == pytest.approx(streamed_nml(leaves, **settings)[0].item(), rel=1e-12)


@HEADS
def test_exchanging_the_views_changes_nothing(num_heads):
    u, v, *rows = operands(num_heads=num_heads)
    # A view keeps its rows: what were anchor and candidate rows of u are now those of the second view.
    exchanged = [rows[1], rows[0]] if num_heads == 1 else [rows[2], rows[3], rows[0], rows[1]]
    settings = {"tau": 0.6, "tau_m": 0.4, "sign": 1, "include_self": True, "kl_weight": 1.0}
    found = streamed_nml([v, u, *exchanged], **settings)[0]
    assert found.item() == pytest.approx(streamed_nml([u, v, *rows], **settings)[0].item(), rel=1e-12)


@HEADS
def test_no_tensor_of_all_pairs_is_made(num_heads):
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.numel = max(self.numel, tensor.numel())
            return out

    leaves = operands(600, num_heads)
    with Largest() as largest:
        settings = {"tau": 0.6, "tau_m": 0.4, "sign": 1, "include_self": True, "kl_weight": 1.0}
        streamed_nml(leaves, **settings, block_size=50)[0].backward()
    assert largest.numel <= 600 * 50


def test_free_weights_fall_as_similarity_rises_and_satisfy_the_stationary_point():
    """Anchor rows against unit vectors are free logits: their optimum is known in closed form."""
    num_nodes, alpha = 30, 1.0
    u, v, *_ = (leaf.detach() for leaf in operands(num_nodes))
    identity = torch.eye(num_nodes, dtype=torch.float64)
    free = [torch.ones(num_nodes, num_nodes, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.LBFGS(free, max_iter=300, tolerance_grad=1e-12, line_search_fn="strong_wolfe")
    given = {"metric_temperature": 0.05, "temperature": 0.8}

    def closure():
        optimizer.zero_grad()
        rows = MetricRows(free[0], identity, free[1], identity)
        loss = nml_loss(u, v, rows, kl_weight=alpha, **given).loss * num_nodes
        loss.backward()
        return loss

    optimizer.step(closure)
    m = relative_weights(free[0].detach(), identity, metric_temperature=0.05) / num_nodes
    s = functional.normalize(u) @ functional.normalize(v).T / 0.8
    mass = (m * s.exp()).sum(dim=1, keepdim=True)
    p = torch.sigmoid(math.log(num_nodes - 1) + mass[:, 0].log() - s.diagonal())[:, None]
    expected = (alpha / num_nodes) / (alpha - p + p * s.exp() / mass)
    torch.testing.assert_close(m, expected, rtol=1e-3, atol=0)
    assert torch.corrcoef(torch.stack([m.flatten(), s.flatten()]))[0, 1] < -0.9
    order = s.argsort(dim=1)
    assert (m.gather(1, order).diff(dim=1) <= 1e-9).all()


@HEADS
def test_kept_tiles_give_the_same_bits(num_heads):
    leaves = operands(40, num_heads, dtype=torch.float32)
    found = []
    for budget in (0, 1 << 20):
        u, v, *rows = leaves
        given = {"temperature": 0.6, "kl_weight": 1.0, "block_size": 16, "keep_tiles_bytes": budget}
        loss = nml_loss(u, v, MetricRows(*rows), **given).loss
        found.append([loss, *torch.autograd.grad(loss, leaves)])
    assert all(one.equal(other) for one, other in zip(*found, strict=True))


def test_settings_out_of_range_are_refused():
    u, v, *rows = operands()
    metric = MetricRows(*rows)
    with pytest.raises(ValueError, match="temperature must be positive"):
        nml_loss(u, v, temperature=0.0)
    with pytest.raises(ValueError, match="metric_temperature must be positive"):
        nml_loss(u, v, metric, temperature=1.0, metric_temperature=-1.0)
    with pytest.raises(ValueError, match="metric_sign must be 1 or -1"):
        nml_loss(u, v, metric, temperature=1.0, metric_sign=2)
    with pytest.raises(ValueError, match="of one shape"):
        nml_loss(u, v[1:], temperature=1.0)


@SELF
def test_single_node_is_not_defined(include_self):
    with pytest.raises(NotDefined, match="a single node has no negatives"):
        nml_loss(torch.ones(1, 3), torch.ones(1, 3), temperature=1.0, include_self=include_self)


def test_metric_with_one_of_its_two_extra_heads_is_refused():
    rows = torch.eye(3)
    for one in ({"v_anchor_NM": rows}, {"u_candidate_NM": rows}):
        with pytest.raises(ValueError, match="both v_anchor_NM and u_candidate_NM, or neither"):
            MetricRows(rows, rows, **one)
