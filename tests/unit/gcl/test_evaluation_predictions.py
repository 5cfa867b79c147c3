import numpy as np
import pytest

from gcl.errors import NotDefined
from gcl.evaluation import EvaluateConfig
from gcl.evaluation.predictions import predict_nodes
from gcl.graph import Graph, Labels, Split

EDGELESS = Graph(1500, np.zeros(0, np.int64), np.zeros(0, np.int64))


def task(noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    y_N = rng.integers(3, size=1500).astype(np.int32)
    z_ND = (np.eye(3, 8)[y_N] + noise * rng.normal(size=(1500, 8))).astype("f")
    parts = np.split(rng.permutation(1500), [150, 650])
    return z_ND, Labels(y_N, ("a", "b", "c")), Split("s", *map(np.sort, parts))


def predict(z_ND, labels, split, uncertainty_N=None, **settings):
    config = EvaluateConfig(**settings)
    return predict_nodes(
        z_ND, labels, split, EDGELESS, config, protocol="given", seed=0, uncertainty_N=uncertainty_N
    )


def figures(found, part="test"):
    return {row.metric: row.value for row in found.rows if row.split == part}


def test_predictions_keep_their_promises_on_test_nodes():
    z_ND, labels, split = task()
    found = predict(z_ND, labels, split)
    test = figures(found)
    assert test["coverage"] == pytest.approx(0.9, abs=0.04)
    assert test["answered_risk"] <= 0.1 < 1 - test["calibrated_accuracy"]
    assert 0 < test["answered"] < 1
    assert test["e_aurc"] <= test["aurc"] <= 1 - test["calibrated_accuracy"]
    assert test["risk_at_coverage"] < 1 - test["calibrated_accuracy"]
    assert figures(found, "validation")["answered_risk"] <= 0.1
    assert found.notes == []


def test_calibration_repairs_an_underconfident_probe():
    test = figures(predict(*task(), probe_c=(0.05,)))
    assert test["ece"] < 0.05 < 0.1 < test["ece_uncalibrated"]


def test_predictions_are_complete_and_consistent():
    z_ND, labels, split = task()
    given = predict(z_ND, labels, split).predictions
    assert given.predicted_N.dtype == np.int32 and given.set_NK.shape == (1500, 3)
    assert (given.confidence_N > 1 / 3).all() and (given.confidence_N <= 1).all()
    assert (given.entropy_N >= 0).all() and given.entropy_N.max() <= np.log(3) + 1e-6
    np.testing.assert_array_equal(given.abstain_N, given.confidence_N < np.float32(given.threshold))
    assert given.entropy_N[given.abstain_N].mean() > given.entropy_N[~given.abstain_N].mean()


def test_test_labels_do_not_reach_the_predictions():
    z_ND, labels, split = task()
    other_N = labels.y_N.copy()
    other_N[split.test] = 0
    for conformal in ("lac", "aps", "daps"):
        a = predict(z_ND, labels, split, conformal=conformal).predictions
        b = predict(z_ND, Labels(other_N, labels.class_names), split, conformal=conformal).predictions
        for name in ("predicted_N", "confidence_N", "entropy_N", "abstain_N", "set_NK"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
        assert a.threshold == b.threshold


def test_calibration_nodes_choose_neither_probe_nor_temperature(monkeypatch):
    """The probe and the temperature see one half of the validation nodes, thresholds the other."""
    from gcl.evaluation import calibration, predictions

    seen = {}
    fit_probes, fit_temperature, quantile = (
        predictions.fit_probes, calibration.fit_temperature, predictions.conformal_quantile,
    )  # fmt: skip
    monkeypatch.setattr(
        predictions,
        "fit_probes",
        lambda z, y, split, *a, **k: seen.update(probe=split) or fit_probes(z, y, split, *a, **k),
    )
    monkeypatch.setattr(
        calibration,
        "fit_temperature",
        lambda logit, y: seen.update(choose=len(y)) or fit_temperature(logit, y),
    )
    monkeypatch.setattr(
        predictions,
        "conformal_quantile",
        lambda s, alpha: seen.update(calibrate=len(s)) or quantile(s, alpha),
    )
    z_ND, labels, split = task()
    predict(z_ND, labels, split)
    assert len(seen["probe"].validation) == seen["choose"] == 250
    assert seen["calibrate"] == 250 == len(np.setdiff1d(split.validation, seen["probe"].validation))


def test_every_node_abstains_and_a_note_says_so_where_no_threshold_holds():
    z_ND, labels, split = task(noise=5.0)
    found = predict(z_ND, labels, split, target_risk=0.01)
    assert found.predictions.abstain_N.all() and found.predictions.threshold == np.inf
    assert figures(found)["answered"] == 0 and "answered_risk" not in figures(found)
    assert "every node abstains" in found.notes[0]


def test_label_free_uncertainty_gets_its_curve_without_unscored_nodes():
    z_ND, labels, split = task()
    uncertainty_N = np.random.default_rng(0).random(1500).astype("f")
    uncertainty_N[split.test[:100]] = np.nan
    found = predict(z_ND, labels, split, uncertainty_N)
    assert len(found.curves["risk_coverage_uncertainty"][0]) == len(split.test) - 100
    assert len(found.curves["risk_coverage_confidence"][0]) == len(split.test)
    assert figures(found)["aurc"] < figures(found)["aurc_uncertainty"]
    assert "aurc_uncertainty" not in figures(predict(z_ND, labels, split))


def test_too_few_validation_nodes_are_not_defined():
    z_ND, labels, split = task()
    with pytest.raises(NotDefined, match="4 validation nodes"):
        predict(z_ND, labels, Split("s", split.train, split.validation[:3], split.test))
