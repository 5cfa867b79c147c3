import math

import pytest
import torch
from torch.nn import functional

from gcl import gambler as module
from gcl.gambler import GamblerHead, abstention_of, doubt_of, entropy_of, gambler_loss, optimal_abstention


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(num_rows, size, seed=0):
    return torch.randn(num_rows, size, generator=seeded(seed))


def test_loss_equals_the_formula():
    logit_PC = rows(5, 4)
    label_P = torch.tensor([0, 2, 1, 0, 2])
    p_PC = logit_PC.softmax(1)
    expected = [-math.log(p[y] + p[-1] / 2.5) for p, y in zip(p_PC, label_P, strict=True)]
    found = gambler_loss(logit_PC, label_P, reward=2.5)
    assert found.item() == pytest.approx(sum(expected) / 5)
    odds = [-math.log(2.5 * p[y] + p[-1]) for p, y in zip(p_PC, label_P, strict=True)]
    assert found.item() == pytest.approx(sum(odds) / 5 + math.log(2.5))


def test_reward_of_one_is_refused():
    with pytest.raises(ValueError, match="reward must be above 1"):
        gambler_loss(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), reward=1.0)


@pytest.mark.parametrize("reward", [1.2, 1.9, 2.0])
@pytest.mark.parametrize("q", [0.5, 0.6, 0.9, 1.0])
def test_optimal_abstention_minimises_the_expected_loss(q, reward):
    """Against a grid over the simplex of (p_1, abstention)."""
    a, p1 = torch.meshgrid(torch.linspace(0, 1, 801), torch.linspace(0, 1, 801), indexing="ij")
    p0 = 1 - a - p1
    loss = -q * torch.log(p1 + a / reward) - (1 - q) * torch.log(p0.clamp(min=0) + a / reward).clamp(min=-99)
    loss[p0 < -1e-6] = torch.inf
    found = optimal_abstention(torch.tensor(1 - q, dtype=torch.float64), reward=reward).item()
    at_optimum = torch.tensor([1 - found if q * reward > 1 else 0.0, found])
    best = (
        -q * torch.log(at_optimum[0] + at_optimum[1] / reward)
        - (1 - q) * torch.log(at_optimum[1] / reward + 1e-30)
        if q < 1
        else -torch.log(at_optimum[0] + at_optimum[1] / reward)
    )
    assert best.item() <= loss.min().item() + 1e-6
    assert found == pytest.approx(min(1.0, (1 - q) * reward / (reward - 1)))


@pytest.mark.parametrize("q", [0.6, 0.7, 0.8, 0.9])
def test_head_converges_to_the_closed_form_on_bernoulli_labels(q):
    num_pairs, reward = 1000, 1.9
    head = GamblerHead(2, seeded(), hidden_size=16)
    row_1D = torch.ones(1, 2)
    label_AM = (torch.arange(num_pairs) < round(q * num_pairs))[None]
    for steps, rate in ((150, 1e-2), (150, 1e-3)):
        optimizer = torch.optim.Adam(head.parameters(), lr=rate)
        for step in range(steps):
            head.fit(
                row_1D,
                row_1D.expand(num_pairs, 2),
                label_AM,
                optimizer=optimizer,
                reward=reward,
                batch_size=num_pairs,
                generator=seeded(step),
            )
    expected = optimal_abstention(torch.tensor(1 - q), reward=reward)
    assert head.abstention(row_1D, row_1D).item() == pytest.approx(expected.item(), abs=0.03)
    p_C = head(row_1D, row_1D).softmax(1)[0]
    assert p_C[0] < 0.02


def test_split_first_layer_equals_the_layer_of_the_concatenation():
    head = GamblerHead(6, seeded(), hidden_size=5)
    anchor_PD, candidate_PD = rows(7, 6), rows(7, 6, 1)
    joined = torch.cat([anchor_PD, candidate_PD], 1)
    weight = torch.cat([head.anchor.weight, head.candidate.weight], 1)
    hidden = functional.relu(functional.linear(joined, weight, head.anchor.bias))
    expected = head.output(functional.relu(head.hidden(hidden)))
    torch.testing.assert_close(head(anchor_PD, candidate_PD), expected)


@pytest.mark.parametrize("pairs_at_once", [1, 10, 1 << 20])
def test_all_pairs_equal_pairs_one_by_one(pairs_at_once, monkeypatch):
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", pairs_at_once)
    head = GamblerHead(4, seeded(), hidden_size=8)
    anchor_AD, candidate_MD = rows(5, 4), rows(3, 4, 1)
    logits = torch.stack([head(row.expand(3, 4), candidate_MD) for row in anchor_AD])
    torch.testing.assert_close(head.abstention(anchor_AD, candidate_MD), logits.softmax(2)[..., 2])
    doubt_AM = 1 - logits[..., :2].softmax(2).amax(2)
    torch.testing.assert_close(head.of_all_pairs(anchor_AD, candidate_MD, doubt_of), doubt_AM)
    p_AMK = logits[..., :2].softmax(2)
    entropy_AM = -(p_AMK * p_AMK.log()).sum(2)
    torch.testing.assert_close(head.of_all_pairs(anchor_AD, candidate_MD, entropy_of), entropy_AM)
    assert not head.abstention(anchor_AD, candidate_MD).requires_grad


def fitted(seed, reward, passes=30):
    anchor_AD, candidate_MD = rows(20, 4), rows(30, 4, 1)
    label_AM = anchor_AD[:, :1] * candidate_MD[:, 0] > 0
    head = GamblerHead(4, seeded())
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    options = {"optimizer": optimizer, "reward": reward, "batch_size": 100, "generator": seeded(seed)}
    results = [head.fit(anchor_AD, candidate_MD, label_AM, **options) for _ in range(passes)]
    return head, results


@pytest.mark.parametrize("reward", [1.9, None])
def test_fit_learns_the_labels(reward):
    head, results = fitted(0, reward)
    assert results[-1].loss < results[0].loss / 4
    assert results[-1].right_share > 0.95
    assert results[-1].right_share <= results[-1].answered_share <= 1
    assert reward is not None or results[0].answered_share == 1
    assert all(parameter.grad is None for parameter in head.parameters())


def test_fit_repeats_bit_for_bit_and_reads_no_global_generator():
    torch.manual_seed(1)
    first, _ = fitted(0, 1.9, passes=2)
    torch.manual_seed(2)
    again, _ = fitted(0, 1.9, passes=2)
    other, _ = fitted(1, 1.9, passes=2)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.hidden.weight, other.hidden.weight)


def test_fit_works_where_gradients_are_off():
    with torch.no_grad():
        _, results = fitted(0, 1.9, passes=3)
    assert results[-1].loss < results[0].loss


def test_cross_entropy_leaves_the_abstaining_output_alone():
    before = GamblerHead(4, seeded()).output.weight[2].clone()
    head, _ = fitted(0, None, passes=1)
    assert torch.equal(head.output.weight[2], before)


def test_initial_weights_are_those_of_a_xavier_layer_on_both_rows():
    head = GamblerHead(100, seeded(), hidden_size=50)
    limit = math.sqrt(6 / 250)
    for layer in (head.anchor, head.candidate):
        assert 0.95 * limit < layer.weight.abs().max() <= limit
    assert not head.anchor.bias.any()


def test_more_classes_abstain_with_the_last_output():
    head = GamblerHead(3, seeded(), num_classes=4)
    logit_PC = head(rows(2, 3), rows(2, 3, 1))
    assert logit_PC.shape == (2, 5)
    torch.testing.assert_close(abstention_of(logit_PC), logit_PC.softmax(1)[:, 4])
