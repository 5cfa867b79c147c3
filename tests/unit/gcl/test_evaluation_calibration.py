import numpy as np
import pytest

from gcl.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
    reliability,
    squared_error,
)


def drawn(num_nodes=20_000, seed=0):
    """Logits, and classes drawn from their softmax: calibrated at temperature 1."""
    rng = np.random.default_rng(seed)
    logit_NK = 2 * rng.normal(size=(num_nodes, 4))
    p_NK = probabilities(logit_NK, 1.0)
    y_N = (p_NK.cumsum(1) < rng.random((num_nodes, 1))).sum(1)
    return logit_NK, y_N


@pytest.mark.parametrize("planted", [0.3, 1.0, 4.0])
def test_planted_temperature_is_recovered(planted):
    logit_NK, y_N = drawn()
    assert fit_temperature(planted * logit_NK, y_N) == pytest.approx(planted, rel=0.05)


def test_calibration_lowers_the_error_and_keeps_the_answers():
    logit_NK, y_N = drawn()
    logit_NK = 0.2 * logit_NK
    before, after = probabilities(logit_NK, 1.0), probabilities(logit_NK, fit_temperature(logit_NK, y_N))
    is_right_N = before.argmax(1) == y_N
    ece = [expected_calibration_error(p.max(1), is_right_N, num_bins=15) for p in (before, after)]
    assert ece[1] < 0.02 < 0.2 < ece[0]
    np.testing.assert_array_equal(before.argmax(1), after.argmax(1))


def test_classes_unknown_to_the_probe_do_not_break_the_fit():
    logit_NK, y_N = drawn(500)
    logit_NK[:, 2] = -np.inf
    assert np.isfinite(fit_temperature(logit_NK, y_N))
    assert fit_temperature(logit_NK, np.full(500, 2)) == 1.0
    assert probabilities(logit_NK, 2.0)[:, 2].max() == 0


def test_perfectly_answered_nodes_do_not_drive_temperature_to_zero():
    assert fit_temperature(np.eye(3) * 5, np.arange(3)) >= 1 / 50


def test_ece_by_hand():
    confidence, is_right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, True, True, False])
    assert expected_calibration_error(confidence, is_right, num_bins=10) == pytest.approx(0.05)
    _, accuracy_B, count_B = reliability(confidence, is_right, num_bins=10)
    assert accuracy_B.tolist() == [0.5, 1.0] and count_B.tolist() == [2, 2]


def test_confidence_of_one_falls_into_the_last_bin():
    assert expected_calibration_error(np.array([1.0]), np.array([True]), num_bins=5) == 0


def test_brier_and_nll_by_hand():
    p_MK, y_M = np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0, 1])
    assert squared_error(p_MK, y_M).mean() == pytest.approx(0.25)
    assert negative_log_likelihood(p_MK[[0, 1], y_M]) == pytest.approx(np.log(2) / 2)
    assert np.isfinite(negative_log_likelihood(p_MK[[0, 1], [0, 0]]))
