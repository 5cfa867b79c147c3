"""The measures of shift: what they are without one, and that they see one."""

import numpy as np
import pytest
from pydantic import ValidationError

from gcl.evaluation.embedding_shift import (
    MIN_NEW_NODES,
    ShiftConfig,
    known_shift,
    measure_shift,
    nearest,
    training_region,
    two_sample_shift,
)

SIZE = 16


def points(seed: int, num_nodes: int, *, centre: float = 1.0) -> np.ndarray:
    """Three clusters around directions that every seed shares."""
    generator = np.random.default_rng(seed)
    means_KD = 4 * centre * np.random.default_rng(99).standard_normal((3, SIZE))
    noise_ND = generator.standard_normal((num_nodes, SIZE))
    return (means_KD[generator.integers(0, 3, num_nodes)] + noise_ND).astype(np.float32)


def naive_shift(new_RD: np.ndarray, z_ND: np.ndarray) -> float:
    """The definition, pair by pair."""

    def squares(a, b):
        return [[float(((x - y) ** 2).sum()) for y in b] for x in a]

    old, new, across = (np.array(squares(*pair)) for pair in ((z_ND, z_ND), (new_RD, new_RD), (new_RD, z_ND)))
    median = np.median([old[i, j] for i in range(len(old)) for j in range(i)])

    def within(square):
        pairs = [square[i, j] for i in range(len(square)) for j in range(len(square)) if i != j]
        return np.mean(np.exp(-np.array(pairs) / (2 * median)))

    return within(new) + within(old) - 2 * np.exp(-across / (2 * median)).mean()


@pytest.mark.parametrize("normalise", [False, True])
def test_shift_is_its_definition(normalise):
    new_RD, z_ND = points(1, 12).astype(np.float64), points(2, 15).astype(np.float64)
    found = two_sample_shift(new_RD.astype(np.float32), z_ND.astype(np.float32), normalise=normalise, seed=0)
    if normalise:
        new_RD, z_ND = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (new_RD, z_ND))
    assert found == pytest.approx(naive_shift(new_RD, z_ND), abs=1e-5)


@pytest.mark.parametrize("num_new", [MIN_NEW_NODES, 200])
def test_shift_is_zero_on_average_without_one_however_few(num_new):
    z_ND = points(0, 600)
    found = [
        two_sample_shift(points(seed, num_new), z_ND, normalise=True, seed=seed) for seed in range(1, 61)
    ]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * error + 1e-3
    assert np.max(found) < ShiftConfig().max_shift


@pytest.mark.parametrize("num_new", [MIN_NEW_NODES, 200])
def test_shift_and_outliers_tell_new_nodes_from_elsewhere(num_new):
    z_ND = points(0, 600)
    region = training_region(z_ND, normalise=True, seed=0)
    elsewhere_RD = np.random.default_rng(4).standard_normal((num_new, SIZE)).astype(np.float32)
    assert two_sample_shift(elsewhere_RD, z_ND, normalise=True, seed=0) > 1.5 * ShiftConfig().max_shift
    assert region.outside(elsewhere_RD).mean() > 2 * ShiftConfig().max_outlier_share


def test_shift_does_not_grow_with_the_number_of_nodes():
    z_ND = points(0, 1500)
    few, many = (
        two_sample_shift(points(5, n, centre=0.6), z_ND, normalise=False, seed=0) for n in (60, 1500)
    )
    assert few == pytest.approx(many, rel=0.3)


def test_about_one_node_in_a_hundred_of_the_same_distribution_is_outside():
    region = training_region(points(0, 3000), normalise=True, seed=0)
    share = region.outside(points(1, 4000)).mean()
    assert 0.003 < share < 0.025


def test_known_nodes_that_stay_have_not_moved_and_opposites_are_at_two():
    z_SD = points(0, 50)
    assert known_shift(z_SD, z_SD) == 0
    assert known_shift(z_SD, 3 * z_SD) == pytest.approx(0, abs=1e-6), "length is no direction"
    assert known_shift(z_SD, -z_SD) == pytest.approx(2, abs=1e-6)
    turned = np.roll(np.eye(SIZE, dtype=np.float32), 1, axis=0)
    assert known_shift(np.eye(SIZE, dtype=np.float32), turned) == pytest.approx(1)


def test_a_row_of_zeros_is_at_one_of_all_but_zeros():
    zero, one = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    assert (known_shift(zero, zero), known_shift(zero, one), known_shift(one, zero)) == (0, 1, 1)


def test_nearest_is_the_nearest_in_blocks_too(monkeypatch):
    z_ND, anchor_KD = points(0, 57), points(1, 5)
    expected = np.linalg.norm(z_ND[:, None].astype(float) - anchor_KD[None], axis=2)
    for height in (57, 10):
        slices = [slice(first, min(first + height, 57)) for first in range(0, 57, height)]
        monkeypatch.setattr("gcl.evaluation.embedding_shift.row_slices", lambda *_, slices=slices: slices)
        which, distance = nearest(z_ND, anchor_KD, normalise=False)
        np.testing.assert_array_equal(which, expected.argmin(1))
        np.testing.assert_allclose(distance, expected.min(1), rtol=1e-5)


def test_too_few_nodes_are_not_judged():
    z_ND = points(0, 100)
    region = training_region(z_ND, normalise=True, seed=0)
    none = np.empty((0, SIZE), np.float32)
    options = {"region": region, "seed": 0}
    few = measure_shift(z_ND, before_SD=none, now_SD=none, new_RD=points(1, MIN_NEW_NODES - 1), **options)
    assert few.values == {"known_shift": None, "outlier_share": None, "shift": None}
    assert len(few.notes) == 2
    enough = measure_shift(z_ND, before_SD=z_ND, now_SD=z_ND, new_RD=points(1, MIN_NEW_NODES), **options)
    assert None not in enough.values.values()
    assert enough.notes == ()
    nothing = measure_shift(z_ND, before_SD=z_ND, now_SD=z_ND, new_RD=none, **options)
    assert nothing.notes == (), "no new nodes is for the caller to say"


def test_samples_are_drawn_by_seed():
    z_ND, new_RD = points(0, 2500), points(1, 1200)
    found = [two_sample_shift(new_RD, z_ND, normalise=True, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    regions = [training_region(z_ND, normalise=True, seed=seed).max_distance for seed in (0, 0, 1)]
    assert regions[0] == regions[1] != regions[2]


def test_bounds_may_be_none_and_not_negative():
    assert ShiftConfig(max_shift="none").max_shift is None
    with pytest.raises(ValidationError):
        ShiftConfig(max_known_shift=-0.1)
