import numpy as np
import pytest
import torch

from gcl import two_means as module
from gcl.two_means import TwoGaussians, positive_group, two_means


def random_rows(num_rows=12, width=60, *, seed=0, holes=False):
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [
            rng.normal(size=(num_rows, width)),
            rng.choice([0.1, 0.4, 0.9], size=(num_rows, width)),
            np.where(rng.random((num_rows, width)) < 0.02, 50.0, rng.normal(size=(num_rows, width))),
        ]
    )
    if holes:
        rows[rng.random(rows.shape) < 0.2] = np.nan
    return rows


def sum_of_squares(row, is_upper):
    return sum(((part - part.mean()) ** 2).sum() for part in (row[is_upper], row[~is_upper]) if len(part))


@pytest.mark.parametrize("holes", [False, True])
def test_cost_equals_scikit_learn_with_many_starts(holes):
    from sklearn.cluster import KMeans

    rows = random_rows(holes=holes)
    partition = two_means(torch.from_numpy(rows))
    for row, is_upper, cost in zip(rows, partition.is_upper_BM.numpy(), partition.cost_B, strict=True):
        present = np.isfinite(row)
        row, is_upper = row[present], is_upper[present]
        best = KMeans(2, n_init=50, random_state=0).fit(row[:, None]).inertia_
        assert cost.item() == pytest.approx(best, abs=1e-9)
        assert cost.item() == pytest.approx(sum_of_squares(row, is_upper), abs=1e-9)
        assert row[is_upper].min() > row[~is_upper].max()


def test_no_cut_of_a_short_row_is_cheaper():
    """Against every cut of every row, tried one by one."""
    rows = random_rows(num_rows=20, width=7, seed=3)
    partition = two_means(torch.from_numpy(rows))
    for row, cost in zip(rows, partition.cost_B, strict=True):
        costs = [sum_of_squares(row, row > cut) for cut in row]
        assert cost.item() == pytest.approx(min(costs), abs=1e-10)


@pytest.mark.parametrize("block_values", [1, 150, 1 << 20])
def test_blocks_change_nothing(block_values, monkeypatch):
    value_BM = torch.from_numpy(random_rows(holes=True))
    whole = two_means(value_BM)
    monkeypatch.setattr(module, "BLOCK_VALUES", block_values)
    for expected, found in zip(whole, two_means(value_BM), strict=True):
        assert torch.equal(expected, found)


def test_single_precision_parts_as_double_precision():
    value_BM = torch.from_numpy(random_rows()).float()
    single, double = two_means(value_BM), two_means(value_BM.double())
    assert torch.equal(single.is_upper_BM, double.is_upper_BM)
    assert single.threshold_B.dtype == torch.float32
    torch.testing.assert_close(single.cost_B, double.cost_B)


def test_the_input_is_left_alone():
    value_BM = torch.from_numpy(random_rows())
    before = value_BM.clone()
    two_means(value_BM)
    assert torch.equal(value_BM, before)


def test_equal_single_and_missing_values_are_one_group():
    nan = torch.nan
    value_BM = torch.tensor([[0.3, 0.3, 0.3], [0.3, nan, nan], [nan, nan, nan]])
    partition = two_means(value_BM)
    assert torch.equal(partition.is_upper_BM, ~value_BM.isnan())
    assert partition.cost_B.tolist() == [0, 0, 0]
    assert (partition.threshold_B == -torch.inf).all()
    assert two_means(torch.empty(2, 0)).is_upper_BM.shape == (2, 0)


def test_the_group_of_the_positive_is_labelled_on_either_side():
    value_BM = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.9, 0.8, 0.1, 0.2]])
    label_BM = positive_group(two_means(value_BM), torch.tensor([0, 3]))
    assert label_BM.tolist() == [[True, True, False, False], [False, False, True, True]]


def test_gaussians_have_the_moments_of_the_groups():
    rng = np.random.default_rng(0)
    value_BM = torch.from_numpy(rng.normal(size=(4, 50)))
    gaussians = TwoGaussians.fit(value_BM, value_BM > 0.3)
    for row, low, top in zip(value_BM, gaussians.low_mean_B1, gaussians.top_mean_B1, strict=True):
        assert low.item() == pytest.approx(row[row <= 0.3].mean().item())
        assert top.item() == pytest.approx(row[row > 0.3].mean().item())


def test_posterior_is_bayes_rule_between_the_means():
    rng = np.random.default_rng(1)
    row = np.concatenate([rng.normal(0.0, 0.1, 300), rng.normal(0.8, 0.2, 100)])
    is_upper = row > 0.4
    gaussians = TwoGaussians.fit(torch.from_numpy(row[None]), torch.from_numpy(is_upper[None]))
    x = np.linspace(row[~is_upper].mean(), row[is_upper].mean(), 20)
    density = [
        len(part) * np.exp(-((x - part.mean()) ** 2) / (2 * part.var())) / part.std()
        for part in (row[~is_upper], row[is_upper])
    ]
    expected = density[1] / (density[0] + density[1])
    found = gaussians.upper_probability(torch.from_numpy(x[None]))[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_posterior_is_frozen_beyond_the_means():
    tight, wide = np.tile([-0.01, 0.01], 20), np.linspace(0.5, 1.5, 10)
    value_BM = torch.from_numpy(np.concatenate([[-0.06], tight, wide])[None])
    gaussians = TwoGaussians.fit(value_BM, value_BM > 0.3)
    far = gaussians.upper_probability(torch.tensor([[-9.0, 9.0, torch.nan]], dtype=torch.float64))[0]
    assert far[0].item() < 0.01
    assert far[1].item() > 0.99
    assert far[2].isnan()


def test_a_row_of_a_single_group_is_surely_upper():
    value_BM = torch.full((1, 5), 0.25)
    gaussians = TwoGaussians.fit(value_BM, two_means(value_BM).is_upper_BM)
    assert gaussians.upper_probability(value_BM).tolist() == [[1.0] * 5]


def test_rows_are_cut_out_of_the_gaussians():
    value_BM = torch.from_numpy(random_rows())
    gaussians = TwoGaussians.fit(value_BM, two_means(value_BM).is_upper_BM)
    part = gaussians.rows(5, 9).log_odds(value_BM[5:9])
    assert torch.equal(part, gaussians.log_odds(value_BM)[5:9])


def test_the_threshold_lies_halfway_and_never_on_the_upper_side():
    above = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item()
    partition = two_means(torch.tensor([[1.0, 2.0, 2.0], [1.0, above, above]]))
    assert partition.threshold_B[0].item() == 1.5
    assert partition.is_upper_BM.tolist() == [[False, True, True]] * 2


@pytest.mark.parametrize("width", [3, 7, 10, 49])
def test_round_off_parts_no_equal_values(width):
    """The mean of ten times .1 is not .1: each cut seems to gain a little."""
    partition = two_means(torch.full((1, width), 0.1, dtype=torch.float64))
    assert partition.is_upper_BM.all()
    assert partition.threshold_B.item() == -torch.inf


@pytest.mark.parametrize("width", [1, 2, 3, 8, 61])
def test_running_sums_of_accelerators_are_running_sums(width):
    value_BM = torch.from_numpy(np.random.default_rng(0).normal(size=(4, width)))
    np.testing.assert_allclose(module._doubled_sums(value_BM), value_BM.cumsum(1), rtol=0, atol=1e-12)


def test_accelerators_find_the_same_cuts(monkeypatch):
    rows = torch.from_numpy(random_rows(holes=True))
    expected = two_means(rows)
    monkeypatch.setattr(module, "_running_sums", module._doubled_sums)
    found = two_means(rows)
    assert torch.equal(found.is_upper_BM, expected.is_upper_BM)
    torch.testing.assert_close(found.cost_B, expected.cost_B)
