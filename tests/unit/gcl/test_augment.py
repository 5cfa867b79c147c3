"""Each augmentation does what it says, at the rate it says, from its generator alone."""

import pytest
import torch

from gcl.augment import AUGMENTATIONS, augment_rows, entry_dropout, feature_mask, gaussian_jitter
from gcl.random import torch_generator


def rows(num_rows=400, num_features=300):
    return 1 + torch.rand(num_rows, num_features, generator=torch_generator(0, "rows"))


def test_feature_mask_zeroes_whole_columns_at_the_rate():
    x = rows()
    masked = feature_mask(x, 0.3, torch_generator(1, "augment"))
    is_zero = (masked == 0).any(dim=0)
    assert ((masked == 0) == is_zero).all()
    assert is_zero.float().mean().item() == pytest.approx(0.3, abs=0.1)
    assert (masked[:, ~is_zero] == x[:, ~is_zero]).all()


def test_entry_dropout_zeroes_entries_at_the_rate_and_keeps_the_mean():
    x = rows()
    dropped = entry_dropout(x, 0.8, torch_generator(1, "augment"))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert dropped.mean().item() == pytest.approx(x.mean().item(), rel=0.02)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], x[kept] / 0.2)
    assert (dropped == 0).any(dim=0).all(), "entries are dropped one by one, not by column"


def test_jitter_is_in_proportion_to_the_spread_of_the_column():
    x = rows(2000, 3) * torch.tensor([1.0, 10.0, 0.0])
    noise = gaussian_jitter(x, 0.5, torch_generator(1, "augment")) - x
    torch.testing.assert_close(noise.std(dim=0), 0.5 * x.std(dim=0), rtol=0.1, atol=1e-6)
    assert noise.mean(dim=0).abs().max() < 0.2


@pytest.mark.parametrize("name", ["feature_mask", "entry_dropout", "gaussian_jitter", "encoder_dropout"])
def test_strength_zero_leaves_the_rows_alone(name):
    assert torch.equal(augment_rows(rows(), {name: 0.0}, torch_generator(1, "augment")), rows())


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_same_generator_same_view_and_input_untouched(name):
    x = rows()
    first, second = (augment_rows(x, {name: 0.5}, torch_generator(1, "augment", 2)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(x, rows())
    if name != "encoder_dropout":
        assert not torch.equal(first, augment_rows(x, {name: 0.5}, torch_generator(1, "augment", 3)))


def test_global_generator_is_neither_read_nor_advanced():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = augment_rows(rows(), dict.fromkeys(AUGMENTATIONS, 0.5), torch_generator(1, "augment"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(
        first, augment_rows(rows(), dict.fromkeys(AUGMENTATIONS, 0.5), torch_generator(1, "augment"))
    )


def test_augmentations_are_applied_in_order():
    draws = torch_generator(1, "augment")
    by_hand = gaussian_jitter(feature_mask(rows(), 0.4, draws), 0.2, draws)
    both = augment_rows(rows(), {"feature_mask": 0.4, "gaussian_jitter": 0.2}, torch_generator(1, "augment"))
    assert torch.equal(both, by_hand)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown augmentation 'blur'; known: encoder_dropout, entry_dropout"
    ):
        augment_rows(rows(), {"blur": 0.1}, torch_generator(1, "augment"))
