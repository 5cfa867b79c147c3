import numpy as np
import pytest

from data_contracts.spectrum import SecondMoments, effective_rank


def test_covariance_equals_numpy_although_streamed_and_far_from_zero() -> None:
    z = (np.random.default_rng(0).normal(size=(500, 4)) + 1e6).astype(np.float32)
    moments = SecondMoments(4)
    for part in np.array_split(z, 7):
        moments.add(part)
    expected = np.cov(z.astype(np.float64), rowvar=False, bias=True)
    np.testing.assert_allclose(moments.covariance_DD(), expected, rtol=1e-9, atol=1e-9)


def test_effective_rank_of_known_spectra() -> None:
    assert effective_rank(np.eye(5)) == pytest.approx(5.0)
    assert effective_rank(np.diag([3.0, 0.0])) == pytest.approx(1.0)
    assert effective_rank(np.zeros((3, 3))) == 0.0


def test_figures_name_constant_dimensions_and_norm() -> None:
    moments = SecondMoments(3)
    moments.add(np.array([[3.0, 4.0, 7.0], [0.0, 0.0, 7.0]], np.float32))
    figures = moments.figures("z")
    assert figures["z.constant_dimensions"] == 1
    assert figures["z.mean_norm"] == pytest.approx((74**0.5 + 7) / 2)
    assert figures["z.max_variance"] == pytest.approx(4.0)


def test_rows_that_are_not_finite_are_left_out() -> None:
    moments = SecondMoments(2)
    moments.add(np.array([[1.0, 0.0], [np.nan, 5.0], [-1.0, 0.0]], np.float32))
    assert moments.figures("z")["z.effective_rank"] == pytest.approx(1.0)


def test_empty_table_has_no_figures() -> None:
    assert set(SecondMoments(2).figures("z").values()) == {None}
