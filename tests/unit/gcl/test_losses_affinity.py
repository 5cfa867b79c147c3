import math

import pytest
import torch
from torch.nn import functional

from gcl.errors import NotDefined
from gcl.gambler import optimal_abstention
from gcl.losses.affinity import affinity_loss, affinity_margin
from gcl.losses.affinity_weights import KeptLogWeights, row_log_weights
from gcl.losses.contrastive import grace_loss, info_nce_loss
from gcl.two_means import TwoGaussians, two_means

NUM_NODES, SIZE = 23, 6


def views(num_nodes=NUM_NODES, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    u_ND = torch.randn(num_nodes, SIZE, generator=generator, dtype=dtype)
    return u_ND, u_ND + 0.3 * torch.randn(num_nodes, SIZE, generator=generator, dtype=dtype)


def uncertainties(num_anchors=NUM_NODES, num_candidates=NUM_NODES):
    generator = torch.Generator().manual_seed(7)
    return torch.rand(num_anchors, num_candidates, generator=generator, dtype=torch.float64)


def cosines(u_ND, v_ND):
    return functional.normalize(u_ND) @ functional.normalize(v_ND).T


def naive_loss(own_MD, other_MD, weight_AM, temperature, *, intra="shared", positive=True):
    """The formula, term by term."""
    inter_AM = torch.exp(cosines(own_MD, other_MD) / temperature)
    intra_AM = torch.exp(cosines(own_MD, own_MD) / temperature)
    total = 0
    for i in range(len(weight_AM)):
        denominator = inter_AM[i, i] if positive else 0
        for j in range(len(own_MD)):
            if j != i:
                denominator = denominator + weight_AM[i, j] * inter_AM[i, j]
                factor = {"shared": weight_AM[i, j], "uniform": 1, "none": 0}[intra]
                denominator = denominator + factor * intra_AM[i, j]
        total = total - torch.log(inter_AM[i, i] / denominator)
    return total / len(weight_AM)


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors, allow_unused=True)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("intra", ["shared", "uniform", "none"])
@pytest.mark.parametrize("num_anchors", [NUM_NODES, 5])
def test_streamed_equals_naive_with_gradients(intra, positive, num_anchors):
    own_MD, other_MD = (x.requires_grad_() for x in views())
    weights = KeptLogWeights.of(uncertainties(num_anchors))
    expected = naive_loss(own_MD, other_MD, weights.log_weight_AM.exp(), 0.3, intra=intra, positive=positive)
    expected_gradients = gradients(expected, own_MD, other_MD)
    for block_size in (None, 1, 4, 7, 64):
        found = affinity_loss(
            own_MD,
            other_MD,
            temperature=0.3,
            log_weights=weights,
            num_anchors=num_anchors,
            intra=intra,
            positive_in_denominator=positive,
            block_size=block_size,
        )
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        for one, other in zip(gradients(found, own_MD, other_MD), expected_gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_weights_of_one_give_grace_and_infonce():
    u_ND, v_ND = views()
    ones = KeptLogWeights.of(torch.full((NUM_NODES, NUM_NODES), 0.4, dtype=torch.float64))
    for weights in (None, ones):
        options = {"temperature": 0.5, "log_weights": weights}
        both = (affinity_loss(u_ND, v_ND, **options) + affinity_loss(v_ND, u_ND, **options)) / 2
        torch.testing.assert_close(both, grace_loss(u_ND, v_ND, temperature=0.5))
        one_way = affinity_loss(u_ND, v_ND, intra="none", **options)
        expected = info_nce_loss(u_ND, v_ND, temperature=0.5, both_directions=False)
        torch.testing.assert_close(one_way, expected)


def test_scale_of_the_uncertainty_does_not_matter_and_alpha_does():
    u_AM = uncertainties()
    weights = KeptLogWeights.of(u_AM)
    torch.testing.assert_close(KeptLogWeights.of(0.01 * u_AM).log_weight_AM, weights.log_weight_AM)
    doubled = KeptLogWeights.of(u_AM, alpha_scale=2.0)
    torch.testing.assert_close(doubled.log_weight_AM, weights.log_weight_AM + math.log(2))


def test_rows_average_one_with_or_without_the_diagonal():
    u_AM = uncertainties(num_anchors=5)
    with_AM = KeptLogWeights.of(u_AM).log_weight_AM.exp()
    torch.testing.assert_close(with_AM.mean(1), torch.ones(5, dtype=torch.float64))
    without_AM = KeptLogWeights.of(u_AM, mu_includes_diagonal=False).log_weight_AM.exp()
    others = [torch.cat([row[:i], row[i + 1 :]]).mean().item() for i, row in enumerate(without_AM)]
    assert others == pytest.approx([1] * 5)


def test_an_uncertainty_of_zero_has_a_logarithm():
    u_AM = uncertainties()
    u_AM[0] = 0
    u_AM[1, 2:] = 0
    weights = KeptLogWeights.of(u_AM)
    assert weights.log_weight_AM.isfinite().all()
    torch.testing.assert_close(weights.log_weight_AM[0], torch.zeros(NUM_NODES, dtype=torch.float64))
    u_ND, v_ND = (x.float() for x in views())
    assert affinity_loss(u_ND, v_ND, temperature=0.01, log_weights=weights).isfinite()


def test_no_gradient_reaches_the_uncertainty():
    u_ND, v_ND = (x.requires_grad_() for x in views())
    u_AM = uncertainties().requires_grad_()
    loss = affinity_loss(u_ND, v_ND, temperature=0.5, log_weights=KeptLogWeights.of(u_AM))
    loss.backward()
    assert u_AM.grad is None
    assert u_ND.grad.abs().sum() > 0


@pytest.mark.parametrize("estimator", ["analytic", "distance"])
def test_weights_from_rows_are_constants_of_the_gradient(estimator):
    """The gradient equals that of the same weights held fixed as a matrix."""
    u_ND, v_ND = (x.requires_grad_() for x in views())
    weights = row_log_weights(u_ND, v_ND, estimator=estimator)
    kept = KeptLogWeights(weights.block(cosines(u_ND, v_ND).detach(), 0, 0))
    found, expected = (
        affinity_loss(u_ND, v_ND, temperature=0.3, log_weights=one, block_size=9) for one in (weights, kept)
    )
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, u_ND, v_ND), gradients(expected, u_ND, v_ND), strict=True):
        torch.testing.assert_close(one, other)


def test_analytic_weights_are_the_closed_form_of_the_posterior():
    u_ND, v_ND = views()
    similarity = cosines(u_ND, v_ND)
    p = TwoGaussians.fit(similarity, two_means(similarity).is_upper_BM).upper_probability(similarity)
    u_AM = optimal_abstention(torch.minimum(p, 1 - p), reward=1.7)
    options = {"alpha_scale": 0.5, "mu_includes_diagonal": False}
    expected = KeptLogWeights.of(u_AM, **options).log_weight_AM
    found = row_log_weights(u_ND, v_ND, estimator="analytic", reward=1.7, **options).block(similarity, 0, 0)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_distance_weights_fall_with_distance_outside_and_are_least_inside():
    u_ND, v_ND = views()
    similarity = cosines(u_ND, v_ND)
    weight_AM = row_log_weights(u_ND, v_ND, estimator="distance").block(similarity, 0, 0).exp()
    partition = two_means(similarity)
    for i in range(NUM_NODES):
        own = partition.is_upper_BM[i] == partition.is_upper_BM[i, i]
        distance = (functional.normalize(u_ND)[i] - functional.normalize(v_ND)).norm(dim=1)
        scaled = (weight_AM[i] * distance)[~own]
        torch.testing.assert_close(scaled, scaled[:1].expand_as(scaled))
        torch.testing.assert_close(weight_AM[i][own], weight_AM[i][~own].min().expand(int(own.sum())))
    torch.testing.assert_close(weight_AM.mean(1), torch.ones(NUM_NODES, dtype=torch.float64))


@pytest.mark.parametrize("estimator", ["analytic", "distance"])
def test_blocks_of_rows_change_nothing_and_anchors_may_be_few(estimator, monkeypatch):
    u_ND, v_ND = views(num_nodes=90)
    similarity = cosines(u_ND, v_ND)
    whole = row_log_weights(u_ND, v_ND, estimator=estimator).block(similarity, 0, 0)
    monkeypatch.setattr("gcl.losses.affinity_weights.BLOCK_PAIRS", 1)
    blocked = row_log_weights(u_ND, v_ND, estimator=estimator)
    torch.testing.assert_close(blocked.block(similarity[30:50, 10:], 30, 10), whole[30:50, 10:])
    few = row_log_weights(u_ND, v_ND, estimator=estimator, num_anchors=7)
    torch.testing.assert_close(few.block(similarity[:7], 0, 0), whole[:7])


@pytest.mark.parametrize("estimator", ["analytic", "distance"])
def test_bound_of_the_log_weights_holds(estimator):
    u_ND, v_ND = views(num_nodes=90)
    similarity = cosines(u_ND, v_ND)
    for weights in (
        row_log_weights(u_ND, v_ND, estimator=estimator, alpha_scale=3.0),
        KeptLogWeights.of(uncertainties(90, 90) ** 9),
    ):
        assert weights.block(similarity, 0, 0).abs().max() <= weights.bound < 40


def test_a_row_that_cannot_be_parted_weighs_uniformly():
    u_ND = torch.ones(8, SIZE)
    for estimator in ("analytic", "distance"):
        block = row_log_weights(u_ND, u_ND, estimator=estimator).block(torch.ones(8, 8), 0, 0)
        torch.testing.assert_close(block, torch.zeros(8, 8))


def test_false_negatives_weigh_less_than_boundary_negatives():
    """Four Gaussian classes; boundary candidates lie halfway between the anchor's class and another."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(400) % 4
    centre = torch.eye(4, 16)
    centre_ND = centre[label].clone()
    is_boundary = torch.arange(400) % 40 < 4
    centre_ND[is_boundary] = (centre[label] + centre[(label + 1) % 4])[is_boundary] / 2
    u_ND, v_ND = (centre_ND + 0.08 * torch.randn(400, 16, generator=generator) for _ in range(2))
    weight_AM = row_log_weights(u_ND, v_ND, estimator="analytic").block(cosines(u_ND, v_ND), 0, 0).exp()
    anchors = ~is_boundary
    same = (label[:, None] == label)[anchors] & ~is_boundary
    half = (label[:, None] == label)[anchors] | (label[:, None] == (label + 1) % 4)[anchors]
    false_negative = weight_AM[anchors][same].mean()
    boundary = weight_AM[anchors][half & is_boundary].mean()
    assert false_negative < 0.5 < 2 < boundary


def test_margin_identity():
    generator = torch.Generator().manual_seed(0)
    weight, h_ij, h_ii = (torch.rand(50, generator=generator, dtype=torch.float64) for _ in range(3))
    weight, temperature = weight * 3 + 1e-8, 0.2
    margin = affinity_margin(weight, temperature=temperature)
    left = weight * torch.exp((h_ij - h_ii) / temperature)
    torch.testing.assert_close(left, torch.exp((h_ij - h_ii + 2 * margin) / temperature), rtol=1e-6, atol=0)


def test_margin_of_a_uniform_weight_is_zero():
    assert affinity_margin(torch.ones(1), temperature=0.7).item() == 0


def test_half_precision_products_stay_close():
    u_ND, v_ND = (x.float() for x in views(num_nodes=60))
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            weights = row_log_weights(u_ND, v_ND, estimator="analytic")
            losses.append(affinity_loss(u_ND, v_ND, temperature=0.5, log_weights=weights).item())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_what_it_is_not_defined_for_is_refused():
    u_ND, v_ND = views()
    with pytest.raises(ValueError, match="temperature"):
        affinity_loss(u_ND, v_ND, temperature=0.0, log_weights=None)
    with pytest.raises(ValueError, match="30 anchors"):
        affinity_loss(u_ND, v_ND, temperature=1.0, log_weights=None, num_anchors=30)
    with pytest.raises(NotDefined):
        affinity_loss(u_ND[:1], v_ND[:1], temperature=1.0, log_weights=None)
