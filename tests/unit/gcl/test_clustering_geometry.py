import numpy as np
import pytest

from gcl.clustering.geometry import (
    aligned_rows,
    checked_embeddings,
    cluster_spread,
    has_direction,
    is_one_point,
    soft_membership,
    squared_distance,
    unit_rows,
)
from gcl.workspace import Workspace


def test_unit_rows_leave_a_zero_row_zero():
    unit_ND = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(unit_ND, [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "bad", [np.full((3, 2), np.nan), np.zeros((0, 4)), np.zeros(5), np.full((2, 2), np.inf)]
)
def test_embeddings_that_are_no_finite_matrix_are_refused(bad):
    with pytest.raises(ValueError, match="embedding"):
        checked_embeddings(bad)


def test_squared_distance_equals_the_loop():
    rng = np.random.default_rng(0)
    z_ND, c_KD = rng.normal(size=(20, 3)).astype("f"), rng.normal(size=(4, 3)).astype("f")
    loop = [[((z - c) ** 2).sum() for c in c_KD] for z in z_ND]
    np.testing.assert_allclose(squared_distance(z_ND, c_KD), loop, atol=1e-5)


def test_membership_is_a_distribution_that_peaks_at_the_nearest_centroid():
    rng = np.random.default_rng(0)
    z_ND, c_KD = rng.normal(size=(9000, 3)).astype("f"), rng.normal(size=(4, 3)).astype("f")
    member_NK = soft_membership(z_ND, c_KD, scale=1.0)
    np.testing.assert_allclose(member_NK.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(member_NK.argmax(1), squared_distance(z_ND, c_KD).argmin(1))


def test_membership_equals_the_posterior_of_two_round_gaussians():
    """On data drawn from it, the membership of the planted scale is calibrated."""
    rng = np.random.default_rng(0)
    y_N = rng.integers(2, size=20_000)
    c_KD = np.array([[-1, 0, 0], [1, 0, 0]], np.float32)
    z_ND = (c_KD[y_N] + rng.normal(size=(20_000, 3))).astype("f")
    scale = 2 * cluster_spread(z_ND, c_KD, y_N)
    assert scale == pytest.approx(2.0, rel=0.05)
    p_N = soft_membership(z_ND, c_KD, scale=scale)[:, 1]
    for low in (0.1, 0.3, 0.5, 0.7):
        band = (p_N >= low) & (p_N < low + 0.2)
        assert y_N[band].mean() == pytest.approx(p_N[band].mean(), abs=0.04)


def test_larger_scale_is_softer_and_zero_is_hard():
    z_ND, c_KD = np.array([[0.2, 0]], np.float32), np.array([[0, 0], [1, 0]], np.float32)
    top = [soft_membership(z_ND, c_KD, scale=scale)[0, 0] for scale in (0.0, 0.1, 1.0, 10.0)]
    assert top[0] == 1.0
    assert top == sorted(top, reverse=True)


def test_spread_counts_only_directions_in_use():
    rng = np.random.default_rng(0)
    z_ND = np.zeros((5000, 100), np.float32)
    z_ND[:, :2] = rng.normal(size=(5000, 2))
    spread = cluster_spread(z_ND, np.zeros((1, 100), np.float32), np.zeros(5000, int))
    assert spread == pytest.approx(1.0, rel=0.1)


def test_blocks_and_a_workspace_change_no_byte(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    z_ND = rng.normal(size=(9000, 5)).astype("f")
    z_ND[[3, 8999]] = 0
    c_KD = rng.normal(size=(4, 5)).astype("f")

    def results(**options):
        unit_ND = unit_rows(z_ND, **options)
        return unit_ND, soft_membership(unit_ND, c_KD, scale=0.3, **options), has_direction(unit_ND)

    whole = results()
    monkeypatch.setattr("gcl.clustering.geometry._BLOCK_BYTES", 1)
    assert [rows.stop for rows in aligned_rows(z_ND)] == [4096, 8192, 9000]
    parts = results(workspace=Workspace(tmp_path, in_memory_bytes=0))
    assert isinstance(parts[0].base, np.memmap) and isinstance(parts[1].base, np.memmap)
    assert [a.tobytes() for a in whole] == [b.tobytes() for b in parts]
    assert np.flatnonzero(~parts[2]).tolist() == [3, 8999]


def test_every_row_that_is_not_finite_is_counted(monkeypatch):
    monkeypatch.setattr("gcl.clustering.geometry._BLOCK_BYTES", 1)
    z_ND = np.ones((9000, 2), np.float32)
    z_ND[[1, 8999], 0] = np.nan
    with pytest.raises(ValueError, match="2 embedding row"):
        checked_embeddings(z_ND)


@pytest.mark.parametrize(("apart", "expected"), [(0.0, True), (5e-7, True), (1e-4, False)])
def test_one_point_is_told_in_every_block(monkeypatch, apart, expected):
    monkeypatch.setattr("gcl.clustering.geometry._BLOCK_BYTES", 1)
    z_ND = np.full((9000, 2), -1, np.float32)
    z_ND[8500, 1] += apart
    assert is_one_point(z_ND) is expected
