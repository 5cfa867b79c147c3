from dataclasses import fields

import numpy as np
import pytest

from gcl.errors import NotDefined
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.judge import Everyone
from gcl.evaluation.predictions import predict_nodes
from gcl.evaluation.results import PredictedNodes
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
    everyone = Everyone(z_ND, EDGELESS, np.arange(1500))
    return predict_nodes(
        z_ND, labels, split, everyone, config, protocol="given", seed=0, uncertainty_R=uncertainty_N
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
    predictions = predict(z_ND, labels, split).predictions
    given = predictions.whole()
    assert given.predicted_B.dtype == np.int32 and given.set_BK.shape == (1500, 3)
    assert (given.confidence_B > 1 / 3).all() and (given.confidence_B <= 1).all()
    assert (given.entropy_B >= 0).all() and given.entropy_B.max() <= np.log(3) + 1e-6
    np.testing.assert_array_equal(given.abstain_B, given.confidence_B < np.float32(predictions.threshold))
    assert given.entropy_B[given.abstain_B].mean() > given.entropy_B[~given.abstain_B].mean()


def test_test_labels_do_not_reach_the_predictions():
    z_ND, labels, split = task()
    other_N = labels.y_N.copy()
    other_N[split.test] = 0
    for conformal in ("lac", "aps", "daps"):
        a = predict(z_ND, labels, split, conformal=conformal).predictions
        b = predict(z_ND, Labels(other_N, labels.class_names), split, conformal=conformal).predictions
        for part in fields(PredictedNodes):
            one, other = (getattr(given.whole(), part.name) for given in (a, b))
            assert one.tobytes() == other.tobytes()
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
    assert found.predictions.whole().abstain_B.all() and found.predictions.threshold == np.inf
    assert figures(found)["answered"] == 0 and "answered_risk" not in figures(found)
    assert "every node abstains" in found.notes[0]
    everyone = Everyone(z_ND, EDGELESS, np.arange(1500))
    config = EvaluateConfig(target_risk=0.01)
    of_graphs = predict_nodes(
        z_ND, labels, split, everyone, config, protocol="given", seed=0, row="graph"
    ).notes[0]
    assert of_graphs == found.notes[0].replace("node", "graph")
    assert "no threshold on 250 calibration graphs" in of_graphs


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
