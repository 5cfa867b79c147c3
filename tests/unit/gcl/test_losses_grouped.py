"""The batch-level tuplet loss: views of nodes and labelled rows, dense and in blocks of rows."""

import math

import pytest
import torch
from torch.nn import functional

from gcl.errors import NotDefined
from gcl.losses import grouped
from gcl.losses.grouped import (
    cosine_rows,
    grouped_tuplet_loss,
    hard_negative_similarity,
    positive_similarity,
    views_tuplet_loss,
)

GROUPS = torch.tensor([0, 1, 0, -1, 2, 1, 1, -1, 3, 0])


def random_rows(seed=0, num_rows=10, size=5, dtype=torch.float64):
    return torch.randn(num_rows, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def naive_grouped(z, group, *, temperature, form, mass=None, ungrouped="ignored"):
    unit = z / z.norm(dim=1, keepdim=True)
    losses = []
    for a in range(len(z)):
        if group[a] < 0:
            continue
        score = [float(unit[a] @ unit[b]) / temperature for b in range(len(z))]
        positives = [score[b] for b in range(len(z)) if b != a and group[b] == group[a]]
        negatives = [
            score[b]
            for b in range(len(z))
            if group[b] != group[a] and (group[b] >= 0 or ungrouped == "negatives")
        ]
        if not positives or not negatives:
            continue
        g = (mass or len(negatives)) * sum(map(math.exp, negatives)) / len(negatives)
        m = len(positives)
        if form == "B":
            losses.append(math.log(1 + g * sum(math.exp(-s) for s in positives) / m))
        elif form == "C":
            losses.append(sum(math.log(1 + g * math.exp(-s)) for s in positives) / m)
        else:
            losses.append(math.log(1 + g / (sum(map(math.exp, positives)) / m)))
    return sum(losses) / len(losses), len(losses)


@pytest.mark.parametrize("form", ["A", "B", "C"])
@pytest.mark.parametrize("ungrouped", ["ignored", "negatives"])
@pytest.mark.parametrize("mass", [None, 2.0])
@pytest.mark.parametrize("block_size", [None, 3])
def test_equals_naive_loop(form, ungrouped, mass, block_size):
    z = random_rows()
    result = grouped_tuplet_loss(
        z,
        GROUPS,
        temperature=0.4,
        form=form,
        negative_mass=mass,
        ungrouped=ungrouped,
        block_size=block_size,
    )
    expected, num_anchors = naive_grouped(
        z, GROUPS.tolist(), temperature=0.4, form=form, mass=mass, ungrouped=ungrouped
    )
    assert result.loss.item() == pytest.approx(expected, rel=1e-7)
    assert (result.num_anchors, result.num_skipped) == (num_anchors, len(z) - num_anchors)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_two_views_are_nt_xent(temperature):
    z = random_rows(1, 2 * 7).view(2, 7, 5)
    unit = functional.normalize(z.flatten(0, 1), dim=1)
    logits = (unit @ unit.T / temperature).fill_diagonal_(-math.inf)
    partner = torch.arange(14).roll(7)
    expected = functional.cross_entropy(logits, partner)
    for form in ("A", "B", "C"):
        loss = views_tuplet_loss(z, temperature=temperature, form=form).loss
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_every_view_of_every_node_is_an_anchor():
    result = views_tuplet_loss(random_rows(2, 3 * 4).view(3, 4, 5), temperature=0.5)
    assert (result.num_anchors, result.num_skipped) == (12, 0)


@pytest.mark.parametrize("form", ["A", "B", "C"])
@pytest.mark.parametrize("prior", [0.0, 0.2])
def test_blocks_give_the_dense_loss_and_gradient(form, prior):
    z = random_rows(3, 3 * 11).view(3, 11, 5)
    results = []
    for block_size in (None, 1, 4, 32):
        leaf = z.clone().requires_grad_()
        loss = views_tuplet_loss(
            leaf, temperature=0.3, form=form, debias_prior=prior, block_size=block_size
        ).loss
        (2.5 * loss).backward()
        results.append((loss.item(), leaf.grad))
    for loss, gradient in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-12)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("block_size", [None, 3])
@pytest.mark.parametrize("form", ["A", "B", "C"])
def test_gradient_is_that_of_finite_differences(form, block_size):
    z = random_rows(4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: grouped_tuplet_loss(z, GROUPS, temperature=0.3, form=form, block_size=block_size).loss, (z,)
    )


def test_large_batch_is_worked_off_in_blocks(monkeypatch):
    widths = []
    original = grouped.tuplet_losses
    monkeypatch.setattr(grouped, "MAX_DENSE_SCORES", 100)
    monkeypatch.setattr(
        grouped, "tuplet_losses", lambda p, n, **rest: widths.append(n.numel()) or original(p, n, **rest)
    )
    z = random_rows(5, 2 * 20).view(2, 20, 5)
    views_tuplet_loss(z.requires_grad_(), temperature=0.5)
    assert len(widths) > 1
    assert max(widths) <= 100


@pytest.mark.parametrize("block_size", [None, 6])
def test_out_of_device_memory_halves_the_blocks_once_and_says_so(monkeypatch, caplog, block_size):
    z = random_rows(5)
    expected = grouped_tuplet_loss(z, GROUPS, temperature=0.5, block_size=block_size).loss
    original, limit = grouped.tuplet_losses, (block_size or len(z)) // 2

    def tuplet_losses(positive, negative, **rest):
        if len(negative) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(positive, negative, **rest)

    monkeypatch.setattr(grouped, "tuplet_losses", tuplet_losses)
    found = grouped_tuplet_loss(z.requires_grad_(), GROUPS, temperature=0.5, block_size=block_size).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert f"trying {limit}" in caplog.text
    limit = 1
    with pytest.raises(torch.cuda.OutOfMemoryError):
        grouped_tuplet_loss(z, GROUPS, temperature=0.5, block_size=block_size)


@pytest.mark.parametrize("block_size", [None, 4])
def test_permuting_the_batch_changes_nothing(block_size):
    z = random_rows(6)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(1))
    before = grouped_tuplet_loss(z, GROUPS, temperature=0.2, block_size=block_size).loss
    after = grouped_tuplet_loss(z[order], GROUPS[order], temperature=0.2, block_size=block_size).loss
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


@pytest.mark.parametrize("form", ["A", "B", "C"])
def test_finite_at_temperature_one_hundredth(form):
    z = random_rows(7, dtype=torch.float32).requires_grad_()
    loss = grouped_tuplet_loss(z, GROUPS, temperature=0.01, form=form, debias_prior=0.1).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_scores_are_float32_under_autocast():
    z = random_rows(8, dtype=torch.float32)
    plain = grouped_tuplet_loss(z, GROUPS, temperature=0.05).loss
    exact = grouped_tuplet_loss(z.double(), GROUPS, temperature=0.05).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = grouped_tuplet_loss(z, GROUPS, temperature=0.05).loss
    assert autocast.dtype == torch.float32
    assert autocast.item() == plain.item() == pytest.approx(exact.item(), rel=1e-5)


def test_row_of_zeros_has_a_finite_gradient():
    z = random_rows(9, dtype=torch.float32)
    z[0] = 0
    z.requires_grad_()
    grouped_tuplet_loss(z, GROUPS, temperature=0.1).loss.backward()
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize(
    "group",
    [[0, 1, 2, 3], [0, 0, 0, 0], [-1, -1, -1, -1], [0, 0, -1, -1]],
    ids=["all alone", "one group", "unknown", "one group and unknown"],
)
def test_batch_without_anchors_is_refused(group):
    with pytest.raises(NotDefined, match="no anchor among 4"):
        grouped_tuplet_loss(random_rows(num_rows=4), torch.tensor(group), temperature=0.5)


def test_unknown_rows_as_negatives_make_a_single_group_trainable():
    z, group = random_rows(num_rows=4), torch.tensor([0, 0, -1, -1])
    result = grouped_tuplet_loss(z, group, temperature=0.5, ungrouped="negatives")
    assert (result.num_anchors, result.num_skipped) == (2, 2)


@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 1, 5)], ids=["one view", "one node"])
def test_views_without_pairs_are_refused(shape):
    with pytest.raises(NotDefined):
        views_tuplet_loss(torch.ones(shape), temperature=0.5)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature"):
        grouped_tuplet_loss(random_rows(), GROUPS, temperature=0.0)


def test_cosine_rows_have_unit_length():
    assert cosine_rows(random_rows()).norm(dim=1) == pytest.approx(torch.ones(10))


def test_similarities_are_those_of_all_pairs():
    z = random_rows(10, 2 * 12, dtype=torch.float32).view(2, 12, 5)
    unit = cosine_rows(z)
    expected = torch.tensor([float(unit[0, i] @ unit[1, i]) for i in range(12)]).mean()
    assert positive_similarity(z).item() == pytest.approx(expected.item(), rel=1e-5)
    pairs = sorted(float(unit[0, i] @ unit[0, j]) for i in range(12) for j in range(i))
    assert hard_negative_similarity(z[0]).item() == pytest.approx(sum(pairs[-7:]) / 7, rel=1e-5)


def test_hardness_of_a_single_row_is_zero():
    assert hard_negative_similarity(torch.ones(1, 3)).item() == 0.0
