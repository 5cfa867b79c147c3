"""The score-level tuplet loss against naive loops, its ordering, its bound and its numerical safety."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from gcl.errors import NotDefined
from gcl.losses.tuplet import TupletForm, multi_class_tuplet_loss

FORMS: tuple[TupletForm, ...] = ("A", "B", "C")


def naive_loss(positive, negative, form, *, mass=None, prior=0.0, lowest=-math.inf):
    """One anchor at a time, straight from the formulas, in Python floats."""
    losses = []
    for positives, negatives in zip(positive, negative, strict=True):
        if not positives or not negatives:
            continue
        mean = sum(map(math.exp, negatives)) / len(negatives)
        if prior:
            mean_positive = sum(map(math.exp, positives)) / len(positives)
            mean = max((mean - prior * mean_positive) / (1 - prior), math.exp(lowest))
        g = (len(negatives) if mass is None else mass) * mean
        m = len(positives)
        if form == "B":
            losses.append(math.log(1 + g * sum(math.exp(-s) for s in positives) / m))
        elif form == "C":
            losses.append(sum(math.log(1 + g * math.exp(-s)) for s in positives) / m)
        else:
            losses.append(math.log(1 + g / (sum(math.exp(s) for s in positives) / m)))
    return sum(losses) / len(losses)


def random_scores(seed, num_anchors=6, num_positives=4, num_negatives=9, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    make = lambda width: scale * torch.randn(num_anchors, width, generator=generator, dtype=torch.float64)  # noqa: E731
    return make(num_positives), make(num_negatives)


def kept(scores, mask):
    rows = zip(scores, mask, strict=True)
    return [[s for s, keep in zip(row, flags, strict=True) if keep] for row, flags in rows]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mass", [None, 3.0])
@pytest.mark.parametrize("prior", [0.0, 0.1, 0.6])
def test_equals_naive_loop(form, mass, prior):
    positive, negative = random_scores(1)
    loss = multi_class_tuplet_loss(
        positive, negative, form=form, negative_mass=mass, debias_prior=prior, lowest_score=-2.0
    ).loss
    expected = naive_loss(positive.tolist(), negative.tolist(), form, mass=mass, prior=prior, lowest=-2.0)
    assert loss.item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prior", [0.0, 0.2])
def test_masked_entries_and_anchors_do_not_count(form, prior):
    positive, negative = random_scores(2)
    generator = torch.Generator().manual_seed(3)
    positive_mask = torch.rand(positive.shape, generator=generator) < 0.5
    negative_mask = torch.rand(negative.shape, generator=generator) < 0.5
    positive_mask[0], positive_mask[1, 0], negative_mask[2] = False, True, False
    result = multi_class_tuplet_loss(
        positive,
        negative,
        positive_mask_AM=positive_mask,
        negative_mask_AQ=negative_mask,
        form=form,
        debias_prior=prior,
        lowest_score=-5.0,
    )
    positives, negatives = kept(positive.tolist(), positive_mask), kept(negative.tolist(), negative_mask)
    expected = naive_loss(positives, negatives, form, prior=prior, lowest=-5.0)
    assert result.loss.item() == pytest.approx(expected, rel=1e-7)
    num_used = sum(bool(p) and bool(n) for p, n in zip(positives, negatives, strict=True))
    assert (result.num_anchors, result.num_skipped) == (num_used, len(positive) - num_used)
    assert result.num_skipped >= 2


@pytest.mark.parametrize("form", FORMS)
def test_skipped_anchor_has_zero_gradient_and_no_nan(form):
    positive, negative = random_scores(4)
    positive.requires_grad_()
    negative.requires_grad_()
    mask = torch.ones(positive.shape, dtype=torch.bool)
    mask[0] = False
    result = multi_class_tuplet_loss(positive, negative, positive_mask_AM=mask, form=form)
    result.loss.backward()
    assert (positive.grad[0] == 0).all()
    assert (negative.grad[0] == 0).all()
    assert torch.isfinite(positive.grad).all()
    assert (negative.grad[1:] != 0).all()


@pytest.mark.parametrize("which", ["mask", "no positives", "no negatives"])
def test_batch_of_skipped_anchors_is_refused(which):
    positive, negative = random_scores(5)
    mask = None
    if which == "mask":
        mask = torch.zeros(positive.shape, dtype=torch.bool)
    elif which == "no positives":
        positive = positive[:, :0]
    else:
        negative = negative[:, :0]
    with pytest.raises(NotDefined, match="no anchor among 6"):
        multi_class_tuplet_loss(positive, negative, positive_mask_AM=mask)


@pytest.mark.parametrize("form", FORMS)
def test_one_positive_is_info_nce(form):
    positive, negative = random_scores(6, num_positives=1)
    logits = torch.cat([positive, negative], dim=1)
    expected = functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
    loss = multi_class_tuplet_loss(positive, negative, form=form).loss
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_forms_are_ordered_on_random_scores():
    for seed in range(300):
        positive, negative = random_scores(seed, scale=0.1 + seed % 7)
        a, c, b = (multi_class_tuplet_loss(positive, negative, form=form).loss.item() for form in "ACB")
        assert a <= c + 1e-9
        assert c <= b + 1e-9


@pytest.mark.parametrize("form", ["B", "C"])
def test_bounds_mean_classifier_cross_entropy_with_mass_of_other_classes(form):
    """Asymptotically: the anchor's class as its positives, all other balanced classes as its negatives."""
    num_classes, per_class = 4, 30
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        spread = 0.2 + 2 * torch.rand(num_classes, 1, 1, generator=generator, dtype=torch.float64)
        noise = torch.randn(num_classes, per_class, 5, generator=generator, dtype=torch.float64)
        z = torch.randn(num_classes, 1, 5, generator=generator, dtype=torch.float64) + spread * noise
        logits = z.flatten(0, 1) @ z.mean(dim=1).T
        labels = torch.arange(num_classes).repeat_interleave(per_class)
        mean_classifier = functional.cross_entropy(logits, labels)
        scores = z.flatten(0, 1) @ z.flatten(0, 1).T
        same = labels[:, None] == labels[None]
        loss = multi_class_tuplet_loss(
            scores,
            scores,
            positive_mask_AM=same,
            negative_mask_AQ=~same,
            form=form,
            negative_mass=num_classes - 1,
        ).loss
        assert loss >= mean_classifier


def test_form_a_falls_below_mean_classifier_cross_entropy():
    """Why A cannot be the form with the bound: a wide class alone makes its numerator large."""
    positive = torch.tensor([[8.0, -8.0]], dtype=torch.float64)
    negative = torch.tensor([[0.0]], dtype=torch.float64)
    mean_classifier = math.log(1 + math.exp(0.0 - 0.0))
    assert multi_class_tuplet_loss(positive, negative, form="A").loss.item() < mean_classifier
    assert multi_class_tuplet_loss(positive, negative, form="B").loss.item() > mean_classifier


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prior", [0.0, 0.3])
def test_gradient_is_that_of_finite_differences(form, prior):
    positive, negative = random_scores(7, num_anchors=3)
    mask = torch.ones(positive.shape, dtype=torch.bool)
    mask[0, 1:] = False

    def loss(positive, negative):
        return multi_class_tuplet_loss(
            positive, negative, positive_mask_AM=mask, form=form, debias_prior=prior, lowest_score=-6.0
        ).loss

    assert torch.autograd.gradcheck(loss, (positive.requires_grad_(), negative.requires_grad_()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prior", [0.0, 0.2])
def test_finite_at_temperature_one_hundredth(form, prior):
    positive = torch.tensor([[100.0, -100.0], [-100.0, -100.0], [100.0, 100.0]], requires_grad=True)
    negative = torch.tensor([[100.0, 100.0], [100.0, 100.0], [-100.0, -100.0]], requires_grad=True)
    loss = multi_class_tuplet_loss(
        positive, negative, form=form, debias_prior=prior, lowest_score=-100.0
    ).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(positive.grad).all()
    assert torch.isfinite(negative.grad).all()


def test_debiasing_floor_holds_where_positives_outweigh_negatives():
    positive, negative = torch.full((1, 3), 2.0), torch.full((1, 4), 1.0)
    loss = multi_class_tuplet_loss(positive, negative, debias_prior=0.9, lowest_score=-2.0).loss
    assert loss.item() == pytest.approx(math.log(1 + 4 * math.exp(-2.0) * math.exp(-2.0)), rel=1e-5)


def test_debiasing_floor_holds_where_little_is_left_of_the_negatives():
    """(e^0 - .99 e^0) / .01 is 1, but (e^0 - .9999 e^.00009) / .0001 lies below e^-0.5."""
    positive, negative = torch.full((1, 1), 9e-5).double(), torch.zeros(1, 4).double()
    loss = multi_class_tuplet_loss(positive, negative, debias_prior=0.9999, lowest_score=-0.5).loss
    assert loss.item() == pytest.approx(math.log(1 + 4 * math.exp(-0.5) * math.exp(-9e-5)), rel=1e-9)


def test_half_precision_scores_are_computed_in_float32():
    positive, negative = random_scores(8)
    half = multi_class_tuplet_loss(positive.to(torch.bfloat16), negative.to(torch.bfloat16)).loss
    lifted = multi_class_tuplet_loss(positive.bfloat16().float(), negative.bfloat16().float()).loss
    assert half.dtype == torch.float32
    assert half.item() == lifted.item()


@pytest.mark.parametrize(
    "arguments",
    [
        {"form": "D"},
        {"negative_mass": 0.0},
        {"negative_mass": math.inf},
        {"debias_prior": 1.0},
        {"debias_prior": -0.1},
        {"debias_prior": 0.1},
    ],
)
def test_parameter_out_of_range_is_refused(arguments):
    positive, negative = random_scores(9)
    with pytest.raises(ValueError, match="form|negative_mass|debias_prior|lowest_score"):
        multi_class_tuplet_loss(positive, negative, **arguments)


def test_form_b_weighs_the_hardest_positive_and_form_a_the_easiest():
    positive = torch.tensor([[3.0, -3.0]], requires_grad=True)
    negative = torch.zeros(1, 2)
    (gradient_b,) = torch.autograd.grad(multi_class_tuplet_loss(positive, negative, form="B").loss, positive)
    (gradient_a,) = torch.autograd.grad(multi_class_tuplet_loss(positive, negative, form="A").loss, positive)
    assert gradient_b[0, 1] < 100 * gradient_b[0, 0] < 0
    assert gradient_a[0, 0] < 100 * gradient_a[0, 1] < 0
    assert np.isfinite(gradient_a.numpy()).all()
