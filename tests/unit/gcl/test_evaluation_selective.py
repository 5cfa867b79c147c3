import numpy as np
import pytest

from gcl.evaluation.selective import (
    clopper_pearson_upper,
    guaranteed_threshold,
    risk_at_coverage,
    risk_coverage,
    selective_scores,
)


def test_curve_and_areas_by_hand():
    uncertainty, is_wrong = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True])
    coverage, risk = risk_coverage(uncertainty, is_wrong)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
    scores = selective_scores(uncertainty, is_wrong)
    assert scores["aurc"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert scores["augrc"] == pytest.approx((0 + 1 + 1 + 2) / 16)
    assert scores["e_aurc"] == pytest.approx(scores["aurc"] - (1 / 3 + 1 / 2) / 4)


def test_oracle_is_best_and_chance_is_between():
    rng = np.random.default_rng(0)
    is_wrong = rng.random(2000) < 0.2
    informed = np.where(is_wrong, rng.normal(1, 1, 2000), rng.normal(0, 1, 2000))
    aurc = [
        selective_scores(u, is_wrong)["aurc"] for u in (is_wrong * 1.0, informed, rng.random(2000), -informed)
    ]
    assert aurc == sorted(aurc)
    assert selective_scores(is_wrong * 1.0, is_wrong)["e_aurc"] == 0
    assert aurc[2] == pytest.approx(0.2, abs=0.03)


def test_ties_have_no_order():
    is_wrong = np.array([True, False, False, True])
    _, risk = risk_coverage(np.zeros(4), is_wrong)
    np.testing.assert_allclose(risk, 0.5)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 2, 0, 3]):
        assert selective_scores(np.zeros(4), is_wrong[order])["aurc"] == pytest.approx(0.5)


def test_risk_at_coverage_takes_at_least_that_share():
    uncertainty, is_wrong = np.arange(10.0), np.arange(10) >= 8
    assert risk_at_coverage(uncertainty, is_wrong, 0.8) == 0
    assert risk_at_coverage(uncertainty, is_wrong, 0.85) == pytest.approx(1 / 9)
    assert risk_at_coverage(uncertainty, is_wrong, 1.0) == pytest.approx(0.2)


def test_clopper_pearson_is_the_exact_binomial_bound():
    from scipy.stats import binom

    for wrong, answered in ((0, 30), (3, 50), (20, 40)):
        bound = clopper_pearson_upper(wrong, answered, delta=0.1)
        assert binom.cdf(wrong, answered, bound) == pytest.approx(0.1, abs=1e-6)
    assert clopper_pearson_upper(5, 5, delta=0.1) == 1.0


def test_threshold_keeps_its_guarantee():
    """Over calibration draws the true risk above the threshold exceeds the target at most delta often."""
    rng = np.random.default_rng(0)
    candidates = np.linspace(0.5, 0.95, 10)
    failures = given = 0
    for _ in range(300):
        confidence = rng.uniform(0.5, 1, 600)
        is_wrong = rng.random(600) > confidence  # calibrated: risk above t is (1 - t) / 2
        threshold = guaranteed_threshold(candidates, confidence, is_wrong, target_risk=0.15, delta=0.2)
        if np.isfinite(threshold):
            given += 1
            failures += (1 - threshold) / 2 > 0.15
    assert given > 200
    assert failures / 300 <= 0.2


def test_the_widest_threshold_that_qualifies_is_taken():
    confidence, is_wrong = np.linspace(0, 1, 400), np.linspace(0, 1, 400) < 0.3
    threshold = guaranteed_threshold(
        np.linspace(0, 0.9, 10), confidence, is_wrong, target_risk=0.1, delta=0.1
    )
    assert threshold == pytest.approx(0.3)


def test_no_threshold_means_never_answer():
    confidence = np.array([0.9, 0.8, 0.95])
    assert (
        guaranteed_threshold(np.array([0.5]), confidence, np.zeros(3, bool), target_risk=0.1, delta=0.1)
        == np.inf
    )
